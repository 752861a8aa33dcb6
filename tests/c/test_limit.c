/* test_limit.c - lengths and what happens beyond them, the time of the first expiry, delayed retries, ageing. */
#include "support.h"

#include <sys/eventfd.h>
#include <unistd.h>

static struct world w;

static void open_levels(uint32_t levels)
{
    struct shmq_geometry g = sized(32, 4);
    g.levels = levels;
    world_open(&w, 3, g);
}

static void settle_all_dead(uint32_t expected, uint32_t reason)
{
    uint32_t slot, n = 0;
    uint64_t ctl;
    while (shmq_pop(&w.q[0], SHMQ_DEAD, &slot, &ctl) == SHMQ_OK) {
        EQ(shmq_ctl_owner(ctl), reason);
        EQ(shmq_settle_dead(&w.q[0], slot, ctl), SHMQ_OK);
        n++;
    }
    EQ(n, expected);
}

/* ---- lengths ---- */
static void beyond_its_length_heads_are_dead(void)
{
    open_levels(1);
    world_limit(&w, SHMQ_DROPS_DEAD, 3 + 1, 0);
    for (uint64_t id = 1; id <= 10; id++)
        publish(&w.q[id % 2], id);
    EQ(world_count(&w, SHMQ_READY), 3);
    settle_all_dead(7, SHMQ_MAXLEN);
    for (uint64_t id = 8; id <= 10; id++)
        EQ(take_ack(&w.q[2]), id);
    EQ(shmq_load(&w.q[0].header->depth[0]), 0);
    EQ(shmq_load(&w.q[0].header->depth[1]), 0);
    world_close(&w);
}

static void where_nothing_wants_them_heads_are_free_at_once(void)
{
    struct shmq_stats stats;
    open_levels(1);
    world_limit(&w, SHMQ_DROPS, 3 + 1, 0);
    for (uint64_t id = 1; id <= 10; id++)
        publish(&w.q[0], id);
    EQ(world_count(&w, SHMQ_DEAD), 0);
    EQ(world_count(&w, SHMQ_READY), 3);
    shmq_stats(&w.q[0], &stats);
    EQ(stats.ready, 3);
    EQ(stats.purged, 7);
    EQ(take_ack(&w.q[1]), 8);
    world_close(&w);
}

static void bytes_are_those_of_bodies(void)
{
    open_levels(1);
    world_limit(&w, SHMQ_DROPS_DEAD, 0, 60 + 1);
    EQ(publish_sized(&w.q[0], 1, 0, 24), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 2, 0, 24), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 3, 0, 40), SHMQ_OK); /* 88: both others are too many */
    settle_all_dead(2, SHMQ_MAXLEN);
    EQ(take_ack(&w.q[1]), 3);
    world_close(&w);
}

static void victims_are_of_the_lowest_level_or_of_the_highest(uint32_t flag, uint64_t first, uint64_t last)
{
    open_levels(3);
    for (uint64_t id = 1; id <= 3; id++)
        EQ(publish_sized(&w.q[0], id, (uint32_t)id - 1, 24), SHMQ_OK);
    world_limit(&w, SHMQ_DROPS | flag, 2 + 1, 0);
    atomic_store(&w.q[0].header->depth[0], 3);
    atomic_store(&w.q[0].header->depth[1], 72);
    EQ(shmq_trim(&w.q[0]), SHMQ_OK);
    EQ(take_ack(&w.q[1]), first);
    EQ(take_ack(&w.q[1]), last);
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void the_least_urgent_goes_first(void)
{
    victims_are_of_the_lowest_level_or_of_the_highest(0, 3, 2);
}

static void the_most_urgent_goes_first_where_that_is_asked_for(void)
{
    victims_are_of_the_lowest_level_or_of_the_highest(SHMQ_DROPS_HIGHEST, 2, 1);
}

static void a_refused_publish_leaves_nothing(void)
{
    open_levels(1);
    world_limit(&w, SHMQ_REFUSES, 1 + 1, 0);
    publish(&w.q[0], 1);
    EQ(publish_sized(&w.q[0], 2, 0, 24), SHMQ_REFUSED);
    EQ(world_count(&w, SHMQ_FREE), 31);
    EQ(take_ack(&w.q[1]), 1);
    publish(&w.q[0], 3);
    EQ(take_ack(&w.q[1]), 3);
    world_close(&w);
}

static void of_those_who_come_at_once_none_is_too_many(void)
{
    struct shmq_draft d = {.body_bytes = 24, .ttl_ns = -1};
    struct shmq_write first, second;
    open_levels(1);
    world_limit(&w, SHMQ_REFUSES, 1 + 1, 0);
    EQ(shmq_write_begin(&w.q[0], &d, &first), SHMQ_OK);
    EQ(shmq_write_begin(&w.q[1], &d, &second), SHMQ_OK);
    body_fill(first.body, 24, 1);
    body_fill(second.body, 24, 2);
    EQ(shmq_write_commit(&w.q[1], &second), SHMQ_OK);
    EQ(shmq_write_commit(&w.q[0], &first), SHMQ_REFUSED);
    EQ(take_ack(&w.q[2]), 2);
    EQ(take_ack(&w.q[2]), 0);
    world_close(&w);
}

static void of_those_who_saw_too_many_only_one_drops_a_head(void)
{
    open_levels(1);
    world_limit(&w, SHMQ_DROPS, 2 + 1, 0);
    for (uint64_t id = 1; id <= 3; id++)
        publish(&w.q[0], id);
    EQ(shmq_drop_head(&w.q[1], 0, false), SHMQ_NOT_DUE); /* by another, that looked before the first one had dropped it */
    EQ(shmq_drop_head(&w.q[1], 0, true), SHMQ_NOT_DUE);
    EQ(shmq_load(&w.q[0].header->depth[0]), 2);
    EQ(take_ack(&w.q[2]), 2);
    EQ(take_ack(&w.q[2]), 3);
    world_close(&w);
}

static void what_is_purged_counts_no_more(void)
{
    static const uint32_t overflows[] = {SHMQ_DROPS, SHMQ_REFUSES};
    for (int n = 0; n < 2; n++) {
        open_levels(1);
        world_limit(&w, overflows[n], 2 + 1, 0);
        publish(&w.q[0], 1);
        publish(&w.q[0], 2);
        EQ(shmq_purge(&w.q[1], UINT64_MAX), 2);
        EQ(shmq_load(&w.q[0].header->depth[0]), 0);
        EQ(shmq_load(&w.q[0].header->depth[1]), 0);
        world_close(&w);
    }
}

static void what_is_refused_may_be_dead(void)
{
    struct shmq_stats stats;
    open_levels(1);
    world_limit(&w, SHMQ_REFUSES_DEAD, 0 + 1, 0);
    EQ(publish_sized(&w.q[0], 1, 0, 24), SHMQ_REFUSED);
    shmq_stats(&w.q[0], &stats);
    EQ(stats.ready, 0);
    EQ(stats.dead_pending, 1);
    settle_all_dead(1, SHMQ_MAXLEN);
    world_close(&w);
}

static void who_waits_may_have_what_may_not_stay(void)
{
    open_levels(1);
    world_limit(&w, SHMQ_DROPS_DEAD, 0 + 1, 0);
    publish(&w.q[0], 1);
    settle_all_dead(1, SHMQ_MAXLEN);
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    publish(&w.q[0], 2);
    EQ(take_ack(&w.q[1]), 2);
    world_close(&w);
}

static void a_count_that_a_death_left_is_corrected_at_rest(void)
{
    open_levels(1);
    world_limit(&w, SHMQ_DROPS_DEAD, 4 + 1, 0);
    publish(&w.q[0], 1);
    atomic_store(&w.q[0].header->depth[0], 9);
    atomic_store(&w.q[0].header->depth[1], 1000);
    world_heal(&w);
    world_heal(&w);
    EQ(shmq_load(&w.q[0].header->depth[0]), 1);
    EQ(shmq_load(&w.q[0].header->depth[1]), 24);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void what_comes_back_or_is_due_counts_too(void)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl;
    open_levels(1);
    world_limit(&w, SHMQ_DROPS_DEAD, 1 + 1, 0);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    publish(&w.q[0], 2);
    nack(&w.q[1], &d); /* the head, and one too many */
    settle_all_dead(1, SHMQ_MAXLEN);
    EQ(publish_draft(&w.q[0], 3, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1, .delay_ns = 1}), SHMQ_OK);
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, UINT64_MAX / 2), SHMQ_OK);
    settle_all_dead(1, SHMQ_MAXLEN);
    EQ(take_ack(&w.q[1]), 3);
    world_close(&w);
}

/* ---- expiry ---- */
static uint64_t first_expiry(void)
{
    return shmq_load(&w.q[0].header->expiry);
}

static void the_first_expiry_is_known_and_told_anew(void)
{
    uint64_t now = shmq_now(), hour = UINT64_C(3600000000000);
    open_levels(1);
    EQ(first_expiry(), 0);
    publish(&w.q[0], 1);
    EQ(first_expiry(), 0);
    EQ(publish_draft(&w.q[0], 2, (struct shmq_draft){.body_bytes = 24, .ttl_ns = (int64_t)hour * 2}), SHMQ_OK);
    CHECK(first_expiry() >= now + 2 * hour);
    EQ(publish_draft(&w.q[0], 3, (struct shmq_draft){.body_bytes = 24, .ttl_ns = (int64_t)hour}), SHMQ_OK);
    CHECK(first_expiry() >= now + hour && first_expiry() < now + 2 * hour);
    EQ(shmq_expire_from(&w.q[0], shmq_now() + hour + hour / 2, 0, 1000), 1);
    CHECK(first_expiry() >= now + 2 * hour);
    settle_all_dead(1, SHMQ_EXPIRED);
    EQ(shmq_expire_from(&w.q[0], shmq_now() + 3 * hour, 0, 1000), 1);
    EQ(first_expiry(), 0);
    settle_all_dead(1, SHMQ_EXPIRED);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_time_of_zero_is_now_for_who_waits_and_else_never(void)
{
    struct shmq_draft at_once = {.body_bytes = 24, .ttl_ns = 0};
    open_levels(1);
    w.q[0].bell[SHMQ_CONSUMERS] = eventfd(0, EFD_NONBLOCK);
    EQ(publish_draft(&w.q[0], 1, at_once), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 0);
    settle_all_dead(1, SHMQ_EXPIRED);
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    EQ(publish_draft(&w.q[0], 2, at_once), SHMQ_OK);
    EQ(publish_draft(&w.q[0], 3, at_once), SHMQ_OK); /* nobody waits for a second one */
    EQ(take_ack(&w.q[1]), 2);
    EQ(take_ack(&w.q[1]), 0);
    settle_all_dead(1, SHMQ_EXPIRED);
    close(w.q[0].bell[SHMQ_CONSUMERS]);
    w.q[0].bell[SHMQ_CONSUMERS] = -1;
    world_close(&w);
}

static void what_is_delayed_begins_to_live_when_it_is_due(void)
{
    uint64_t hour = UINT64_C(3600000000000), now = shmq_now();
    uint32_t slot;
    uint64_t ctl;
    open_levels(1);
    EQ(publish_draft(&w.q[0], 1, (struct shmq_draft){.body_bytes = 24, .ttl_ns = (int64_t)hour, .delay_ns = 2 * hour}), SHMQ_OK);
    EQ(first_expiry(), 0);
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, UINT64_MAX / 2), SHMQ_OK);
    CHECK(first_expiry() >= now + 3 * hour);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

/* ---- what comes back ---- */
static uint64_t delay_after(bool failed)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl, now;
    take(&w.q[1], &d);
    now = shmq_now();
    EQ(shmq_requeue(&w.q[1], d.slot, d.ctl, failed), SHMQ_OK);
    if (shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl) != SHMQ_OK)
        return 0;
    uint64_t due = shmq_load(&shmq_slot_at(&w.q[0], slot)->due);
    EQ(shmq_fire(&w.q[0], slot, ctl, UINT64_MAX / 2), SHMQ_OK);
    return (due - now) / 1000000000;
}

static void a_retry_waits_longer_each_time_up_to_a_most(void)
{
    open_levels(1);
    struct shmq_header *h = w.q[0].header;
    atomic_store(&h->retry, SHMQ_RETRY_FAILED);
    atomic_store(&h->retry_min, UINT64_C(10000000000));
    atomic_store(&h->retry_max, UINT64_C(25000000000));
    publish(&w.q[0], 1);
    EQ(delay_after(true), 10);
    EQ(delay_after(false), 0);
    EQ(delay_after(true), 20);
    EQ(delay_after(true), 25);
    atomic_store(&h->retry, SHMQ_RETRY_RETURNED);
    atomic_store(&h->retry_max, 0);
    EQ(delay_after(true), 0);
    EQ(delay_after(false), 60); /* its sixth delivery */
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void what_fails_often_is_counted_once(void)
{
    open_levels(1);
    atomic_fetch_or(&w.q[0].header->flags, SHMQ_FLAG_WARN);
    publish(&w.q[0], 1);
    for (int n = 0; n < 30; n++)
        EQ(delay_after(true), 0);
    EQ(shmq_load(&w.q[0].header->often_failed), 1);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void waiting_raises_a_message(void)
{
    open_levels(3);
    for (uint32_t level = 0; level < 3; level++)
        EQ(publish_sized(&w.q[0], level + 1, level, 24), SHMQ_OK);
    atomic_store(&w.q[0].header->ageing, UINT64_C(1000000000000));
    EQ(take_ack(&w.q[1]), 3);
    atomic_store(&shmq_slot_at(&w.q[0], 0)->sequence, 1); /* as if it had waited since the host's start */
    atomic_store(&w.q[0].header->ageing, 1);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 2);
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void ageing_of_ages_leaves_levels_as_they_are(void)
{
    open_levels(200);
    EQ(publish_sized(&w.q[0], 1, 1, 24), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 2, 128, 24), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 3, 2, 24), SHMQ_OK);
    atomic_store(&w.q[0].header->ageing, (UINT64_C(1) << 62) - 1); /* 128 times that is a little less than nothing */
    EQ(take_ack(&w.q[1]), 2);
    EQ(take_ack(&w.q[1]), 3);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void the_priority_as_published_is_kept(void)
{
    struct shmq_delivery d;
    open_levels(2);
    EQ(publish_sized(&w.q[0], 1, 200, 24), SHMQ_OK);
    EQ(take(&w.q[1], &d), 1);
    EQ(d.level, 1);
    EQ(shmq_origin_priority(d.origin), 200);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    world_close(&w);
}

int main(void)
{
    RUN(beyond_its_length_heads_are_dead);
    RUN(where_nothing_wants_them_heads_are_free_at_once);
    RUN(bytes_are_those_of_bodies);
    RUN(the_least_urgent_goes_first);
    RUN(the_most_urgent_goes_first_where_that_is_asked_for);
    RUN(a_refused_publish_leaves_nothing);
    RUN(of_those_who_come_at_once_none_is_too_many);
    RUN(of_those_who_saw_too_many_only_one_drops_a_head);
    RUN(what_is_purged_counts_no_more);
    RUN(what_is_refused_may_be_dead);
    RUN(who_waits_may_have_what_may_not_stay);
    RUN(a_count_that_a_death_left_is_corrected_at_rest);
    RUN(what_comes_back_or_is_due_counts_too);
    RUN(the_first_expiry_is_known_and_told_anew);
    RUN(a_time_of_zero_is_now_for_who_waits_and_else_never);
    RUN(what_is_delayed_begins_to_live_when_it_is_due);
    RUN(a_retry_waits_longer_each_time_up_to_a_most);
    RUN(what_fails_often_is_counted_once);
    RUN(waiting_raises_a_message);
    RUN(ageing_of_ages_leaves_levels_as_they_are);
    RUN(the_priority_as_published_is_kept);
    return done();
}
