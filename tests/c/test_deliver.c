/* test_deliver.c - publish, take, ack, nack, reject, delay, touch: order, priority, counts, and who is refused as stale. */
#include "support.h"

static struct world w;

static void open_levels(uint32_t levels, uint32_t slots, uint32_t ring_entries)
{
    struct shmq_geometry g = sized(slots, ring_entries);
    g.levels = levels;
    world_open(&w, 3, g);
}

/* ---- order ---- */
static void nacked_together_come_back_in_publish_order(uint32_t ring_entries, uint32_t n, bool reversed)
{
    static struct shmq_delivery d[256];
    uint64_t state = 11;
    open_levels(1, n + 20, ring_entries);
    for (uint64_t id = 1; id <= n; id++)
        publish(&w.q[0], id);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < n; i++)
            EQ(take(&w.q[1], &d[i]), i + 1);
        for (uint32_t i = n; !reversed && i > 1; i--) {
            uint32_t j = below(&state, i);
            struct shmq_delivery swap = d[i - 1];
            d[i - 1] = d[j];
            d[j] = swap;
        }
        for (uint32_t i = n; i-- > 0;)
            nack(&w.q[1], &d[i]);
    }
    publish(&w.q[0], n + 1); /* newer: behind them all */
    for (uint64_t id = 1; id <= n + 1; id++)
        EQ(take_ack(&w.q[1]), id);
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void a_hundred_nacked_in_reverse_come_back_in_publish_order(void)
{
    nacked_together_come_back_in_publish_order(4, 100, true);
    nacked_together_come_back_in_publish_order(256, 100, true);
}

static void a_hundred_nacked_at_random_come_back_in_publish_order(void)
{
    nacked_together_come_back_in_publish_order(4, 100, false);
    nacked_together_come_back_in_publish_order(8, 128, false);
    nacked_together_come_back_in_publish_order(256, 100, false);
}

static void a_returned_message_comes_before_newer_ones(void)
{
    struct shmq_delivery d;
    open_levels(1, 16, 4);
    for (uint64_t id = 1; id <= 8; id++)
        publish(&w.q[0], id);
    for (int times = 0; times < 20; times++) {
        EQ(take(&w.q[1], &d), 1);
        nack(&w.q[1], &d);
    }
    for (uint64_t id = 1; id <= 8; id++)
        EQ(take_ack(&w.q[1]), id);
    world_close(&w);
}

static void a_message_nacked_for_ever_beside_live_ones_keeps_the_order(void)
{
    static struct shmq_delivery d[100], poison;
    open_levels(1, 128, 4);
    for (uint64_t id = 1; id <= 100; id++)
        publish(&w.q[0], id);
    for (uint32_t i = 0; i < 100; i++)
        EQ(take(&w.q[1], &d[i]), i + 1);
    for (uint32_t i = 100; i-- > 0;)
        nack(&w.q[1], &d[i]);
    for (int times = 0; times < 500; times++) {
        EQ(take(&w.q[1], &poison), 1);
        nack(&w.q[1], &poison);
    }
    for (uint64_t id = 1; id <= 100; id++)
        EQ(take_ack(&w.q[1]), id);
    world_close(&w);
}

static void a_backlog_in_rings_of_four_keeps_the_order_of_each_producer(void)
{
    uint64_t next[2] = {0, 0};
    open_levels(1, 600, 4);
    for (uint64_t id = 1; id <= 300; id++) {
        publish(&w.q[0], 1000 + id);
        publish(&w.q[1], 2000 + id);
    }
    for (int n = 0; n < 600; n++) {
        uint64_t id = take_ack(&w.q[2]);
        EQ(id % 1000, ++next[id / 1000 - 1]);
    }
    world_close(&w);
}

/* ---- priority ---- */
static void levels_are_strict(uint32_t levels)
{
    open_levels(levels, 2 * levels + 2, 4);
    for (uint32_t round = 0; round < 2; round++)
        for (uint32_t i = 0; i < levels; i++) {
            uint32_t level = (i * 7 + 3) % levels;
            EQ(publish_sized(&w.q[round], 1 + level * 2 + round, level, 24), SHMQ_OK);
        }
    CHECK(shmq_may_have(&w.q[2]));
    for (uint32_t level = levels; level-- > 0;)
        for (uint32_t round = 0; round < 2; round++)
            EQ(take_ack(&w.q[2]), 1 + level * 2 + round);
    EQ(take_ack(&w.q[2]), 0);
    CHECK(!shmq_may_have(&w.q[2]));
    world_close(&w);
}

static void one_ten_and_255_levels_are_strict(void)
{
    levels_are_strict(1);
    levels_are_strict(10);
    levels_are_strict(16);
    levels_are_strict(17);
    levels_are_strict(255);
    levels_are_strict(256);
}

static void a_level_above_the_highest_is_the_highest(void)
{
    struct shmq_delivery d;
    open_levels(3, 8, 4);
    EQ(publish_sized(&w.q[0], 1, 77, 24), SHMQ_OK);
    EQ(take(&w.q[1], &d), 1);
    EQ(d.level, 2);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    world_close(&w);
}

static void a_higher_level_interrupts_returned_ones_of_a_lower(void)
{
    struct shmq_delivery d;
    open_levels(20, 16, 4);
    EQ(publish_sized(&w.q[0], 1, 4, 24), SHMQ_OK);
    EQ(take(&w.q[1], &d), 1);
    nack(&w.q[1], &d);
    EQ(publish_sized(&w.q[0], 2, 5, 24), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 2);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

/* A reference whose 20 bits of generation fit again leads to a message of another level: the gate of that level is lowered, not
 * that of the ring it was found in. */
static void a_message_found_in_a_ring_of_another_level_lowers_its_own_gate(void)
{
    open_levels(64, 16, 4);
    EQ(publish_sized(&w.q[0], 1, 40, 24), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 2, 60, 24), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 2); /* so that level 60 is committed */
    EQ(publish_sized(&w.q[0], 3, 0, 24), SHMQ_OK); /* slot 1, generation 1 */
    struct shmq_ring r = shmq_ring_main(&w.q[0], 40);
    struct shmq_look look;
    EQ(shmq_ring_look(&w.q[0], &r, SHMQ_READY, &look), SHMQ_OK);
    EQ(shmq_ring_clear(&w.q[0], &look), SHMQ_OK);
    EQ(shmq_ring_enqueue(&w.q[0], &r, 1, 1), SHMQ_OK);
    EQ(shmq_ring_enqueue(&w.q[0], &r, look.slot, 0), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 3); /* through level 40's ring */
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

/* ---- stale ---- */
static void a_second_ack_is_stale(void)
{
    struct shmq_delivery d;
    open_levels(1, 8, 4);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_STALE);
    EQ(shmq_requeue(&w.q[1], d.slot, d.ctl, false), SHMQ_STALE);
    EQ(shmq_bury(&w.q[1], d.slot, d.ctl, SHMQ_REJECTED), SHMQ_STALE);
    EQ(shmq_delay(&w.q[1], d.slot, d.ctl, 5), SHMQ_STALE);
    EQ(shmq_touch(&w.q[1], d.slot, d.ctl, 5), SHMQ_STALE);
    EQ(shmq_ack_keep(&w.q[1], &d), SHMQ_STALE);
    CHECK(!shmq_is_current(&w.q[1], &d));
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void an_ack_of_every_earlier_delivery_of_300_is_stale(void)
{
    static struct shmq_delivery d[301];
    open_levels(1, 8, 4);
    publish(&w.q[0], 1);
    for (int i = 0; i <= 300; i++) {
        EQ(take(&w.q[1], &d[i]), 1);
        EQ(shmq_ctl_deliveries(d[i].ctl), i < 255 ? i + 1 : 128 + (i - 255) % 128); /* 255, then "at least 128" */
        for (int back = 1; back < 100 && back <= i; back++)
            EQ(shmq_ack(&w.q[1], &d[i - back]), SHMQ_STALE);
        if (i < 300)
            nack(&w.q[1], &d[i]);
    }
    EQ(shmq_ack(&w.q[1], &d[300]), SHMQ_OK);
    world_close(&w);
}

static void a_delivery_of_another_owner_cannot_be_settled(void)
{
    struct shmq_delivery d, other;
    open_levels(1, 8, 4);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    other = d;
    other.ctl = shmq_ctl_moved(d.ctl, 3, SHMQ_UNACKED);
    EQ(shmq_ack(&w.q[2], &other), SHMQ_STALE);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    world_close(&w);
}

static void a_body_that_is_kept_after_its_ack_is_not_used_again_before_its_release(void)
{
    struct shmq_delivery d;
    open_levels(1, 1, 4);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_ack_keep(&w.q[1], &d), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 2, 0, 24), SHMQ_FULL);
    EQ(taken_id(&d), 1);
    CHECK(shmq_is_current(&w.q[1], &d));
    EQ(shmq_release(&w.q[1], &d), SHMQ_OK);
    EQ(shmq_release(&w.q[1], &d), SHMQ_STALE);
    publish(&w.q[0], 2);
    EQ(take_ack(&w.q[1]), 2);
    world_close(&w);
}

/* ---- failures, limit, dead ---- */
static uint32_t pop_reason(uint64_t id)
{
    uint32_t slot;
    uint64_t ctl;
    struct shmq_delivery d;
    EQ(shmq_pop(&w.q[0], SHMQ_DEAD, &slot, &ctl), SHMQ_OK);
    EQ(shmq_describe(&w.q[0], slot, ctl, &d), SHMQ_OK);
    EQ(taken_id(&d), id);
    EQ(shmq_settle_dead(&w.q[0], slot, ctl), SHMQ_OK);
    EQ(shmq_settle_dead(&w.q[0], slot, ctl), SHMQ_STALE);
    return shmq_ctl_owner(ctl);
}

static void over_the_delivery_limit_a_message_dies(void)
{
    struct shmq_delivery d;
    open_levels(1, 8, 4);
    atomic_store(&w.q[0].header->delivery_limit, 3); /* a limit of 2 */
    publish(&w.q[0], 1);
    for (uint32_t failures = 0; failures < 2; failures++) {
        EQ(take(&w.q[1], &d), 1);
        EQ(shmq_ctl_failures(d.ctl), failures);
        EQ(shmq_requeue(&w.q[1], d.slot, d.ctl, true), SHMQ_OK);
    }
    EQ(take(&w.q[1], &d), 1);
    nack(&w.q[1], &d); /* an application's nack does not count */
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_requeue(&w.q[1], d.slot, d.ctl, true), SHMQ_DEAD_NOW);
    EQ(take_ack(&w.q[1]), 0);
    EQ(pop_reason(1), SHMQ_DELIVERY_LIMIT);
    world_close(&w);
}

static void without_a_limit_failures_saturate(void)
{
    struct shmq_delivery d;
    open_levels(1, 8, 4);
    publish(&w.q[0], 1);
    for (uint32_t i = 0; i < 300; i++) {
        EQ(take(&w.q[1], &d), 1);
        EQ(shmq_ctl_failures(d.ctl), i < 255 ? i : 255);
        EQ(shmq_requeue(&w.q[1], d.slot, d.ctl, true), SHMQ_OK);
    }
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_rejected_message_is_dead_with_its_reason(void)
{
    struct shmq_delivery d;
    open_levels(1, 8, 4);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_bury(&w.q[1], d.slot, d.ctl, SHMQ_REJECTED), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 0);
    EQ(pop_reason(1), SHMQ_REJECTED);
    world_close(&w);
}

static void an_expired_message_is_never_delivered(void)
{
    open_levels(1, 8, 4);
    EQ(publish_draft(&w.q[0], 1, (struct shmq_draft){.body_bytes = 24, .ttl_ns = 0}), SHMQ_OK);
    EQ(publish_draft(&w.q[0], 2, (struct shmq_draft){.body_bytes = 24, .ttl_ns = INT64_MAX}), SHMQ_OK);
    EQ(publish_draft(&w.q[0], 3, (struct shmq_draft){.body_bytes = 24, .ttl_ns = 1}), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 2);
    EQ(take_ack(&w.q[1]), 0);
    EQ(pop_reason(1), SHMQ_EXPIRED);
    EQ(pop_reason(3), SHMQ_EXPIRED);
    world_close(&w);
}

static void a_returned_message_expires_too(void)
{
    struct shmq_delivery d;
    open_levels(1, 8, 4);
    EQ(publish_draft(&w.q[0], 1, (struct shmq_draft){.body_bytes = 24, .ttl_ns = INT64_MAX}), SHMQ_OK);
    EQ(take(&w.q[1], &d), 1);
    atomic_store(&shmq_slot_at(&w.q[0], d.slot)->expires, 1);
    nack(&w.q[1], &d);
    EQ(take_ack(&w.q[1]), 0);
    EQ(pop_reason(1), SHMQ_EXPIRED);
    world_close(&w);
}

/* ---- delay, touch ---- */
static void a_delayed_message_comes_when_it_is_due(void)
{
    uint32_t slot;
    uint64_t ctl, start = shmq_now();
    open_levels(1, 8, 4);
    EQ(publish_draft(&w.q[0], 1, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1, .delay_ns = 1000000000}), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 0);
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, start + 1000000000 - 1), SHMQ_NOT_DUE);
    EQ(shmq_fire(&w.q[0], slot, ctl, start + 2000000000), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, start + 2000000000), SHMQ_STALE);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_nack_with_delay_comes_when_it_is_due(void)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl, start = shmq_now();
    open_levels(1, 8, 4);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_delay(&w.q[1], d.slot, d.ctl, start + 1000000000), SHMQ_OK);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_STALE);
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, start + 999000000), SHMQ_NOT_DUE);
    EQ(shmq_fire(&w.q[0], slot, ctl, start + 1000010000), SHMQ_OK);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_ctl_deliveries(d.ctl), 2);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    world_close(&w);
}

static void a_delay_for_ever_does_not_wrap(void)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl, start = shmq_now();
    open_levels(1, 8, 4);
    EQ(publish_draft(&w.q[0], 1, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1, .delay_ns = UINT64_MAX}), SHMQ_OK);
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, 2 * start), SHMQ_NOT_DUE);
    EQ(shmq_fire(&w.q[0], slot, ctl, UINT64_MAX), SHMQ_OK);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_delay(&w.q[1], d.slot, d.ctl, UINT64_MAX), SHMQ_OK);
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, 2 * start), SHMQ_NOT_DUE);
    EQ(shmq_fire(&w.q[0], slot, ctl, UINT64_MAX), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_delay_whose_time_belongs_to_another_delivery_fires_at_once(void)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl;
    open_levels(1, 8, 4);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_delay(&w.q[1], d.slot, d.ctl, shmq_now() + 1000000000), SHMQ_OK);
    shmq_word *due = &shmq_slot_at(&w.q[0], d.slot)->due;
    atomic_store(due, shmq_load(due) + 1);
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, 0), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

int main(void)
{
    RUN(a_hundred_nacked_in_reverse_come_back_in_publish_order);
    RUN(a_hundred_nacked_at_random_come_back_in_publish_order);
    RUN(a_returned_message_comes_before_newer_ones);
    RUN(a_message_nacked_for_ever_beside_live_ones_keeps_the_order);
    RUN(a_backlog_in_rings_of_four_keeps_the_order_of_each_producer);
    RUN(one_ten_and_255_levels_are_strict);
    RUN(a_level_above_the_highest_is_the_highest);
    RUN(a_higher_level_interrupts_returned_ones_of_a_lower);
    RUN(a_message_found_in_a_ring_of_another_level_lowers_its_own_gate);
    RUN(a_second_ack_is_stale);
    RUN(an_ack_of_every_earlier_delivery_of_300_is_stale);
    RUN(a_delivery_of_another_owner_cannot_be_settled);
    RUN(a_body_that_is_kept_after_its_ack_is_not_used_again_before_its_release);
    RUN(over_the_delivery_limit_a_message_dies);
    RUN(without_a_limit_failures_saturate);
    RUN(a_rejected_message_is_dead_with_its_reason);
    RUN(an_expired_message_is_never_delivered);
    RUN(a_returned_message_expires_too);
    RUN(a_delayed_message_comes_when_it_is_due);
    RUN(a_nack_with_delay_comes_when_it_is_due);
    RUN(a_delay_for_ever_does_not_wrap);
    RUN(a_delay_whose_time_belongs_to_another_delivery_fires_at_once);
    return done();
}
