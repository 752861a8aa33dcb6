/* test_sweep.c - what the supervisor does over all slots: reap, purge, expire, ack timeouts, dead and delayed taken up. */
#include "support.h"

#define MIB (UINT64_C(1) << 20)

static struct world w;

static void open_world(uint32_t levels, uint32_t slots)
{
    struct shmq_geometry g = sized(slots, 4);
    g.levels = levels;
    g.arena_bytes = 1 * MIB;
    world_open(&w, 3, g);
}

static struct shmq_counts reap(uint32_t owner, bool lost_session)
{
    struct shmq_counts counts;
    EQ(shmq_reap(&w.q[0], NULL, owner, true, lost_session, &counts), 0);
    return counts;
}

/* ---- reap ---- */
static void what_a_dead_client_held_comes_back_in_order_with_a_failure(void)
{
    struct shmq_delivery d;
    open_world(1, 40);
    for (uint64_t id = 1; id <= 30; id++)
        publish(&w.q[0], id);
    for (uint64_t id = 1; id <= 20; id++)
        EQ(take(&w.q[1], &d), id);
    struct shmq_counts counts = reap(2, false);
    EQ(counts.requeued, 20);
    EQ(reap(2, false).requeued, 0); /* idempotent */
    for (uint64_t id = 1; id <= 30; id++) {
        EQ(take(&w.q[2], &d), id);
        EQ(shmq_ctl_failures(d.ctl), id <= 20);
        EQ(shmq_ctl_deliveries(d.ctl), id <= 20 ? 2 : 1);
        EQ(shmq_ack(&w.q[2], &d), SHMQ_OK);
    }
    world_close(&w);
}

static void what_only_the_process_may_finish_waits_for_its_death(void)
{
    struct shmq_delivery d, kept;
    struct shmq_write write;
    open_world(1, 8);
    publish(&w.q[0], 1);
    publish(&w.q[0], 2);
    EQ(take(&w.q[1], &kept), 1);
    EQ(shmq_ack_keep(&w.q[1], &kept), SHMQ_OK);
    EQ(take(&w.q[1], &d), 2);
    EQ(shmq_write_begin(&w.q[1], &(struct shmq_draft){.body_bytes = 24, .ttl_ns = -1}, &write), SHMQ_OK);
    struct shmq_counts counts = reap(2, true); /* a lost session */
    EQ(counts.requeued, 1);
    EQ(counts.freed, 0);
    CHECK(shmq_is_current(&w.q[1], &kept));
    EQ(shmq_ack(&w.q[1], &d), SHMQ_STALE);
    counts = reap(2, false);
    EQ(counts.freed, 2);
    EQ(shmq_release(&w.q[1], &kept), SHMQ_STALE);
    EQ(shmq_write_commit(&w.q[1], &write), SHMQ_STALE);
    EQ(take_ack(&w.q[0]), 2);
    world_close(&w);
}

static void a_reap_by_who_lives_spares_the_living(void)
{
    static uint8_t live[8192];
    struct shmq_delivery d[3];
    struct shmq_counts counts;
    open_world(1, 8);
    for (uint32_t i = 0; i < 3; i++) {
        publish(&w.q[0], i + 1);
        EQ(take(&w.q[i], &d[i]), i + 1);
    }
    live[0] = 1 << 1 | 1 << 3; /* owners 1 and 3 */
    EQ(shmq_reap(&w.q[0], live, 0, true, false, &counts), 0);
    EQ(counts.requeued, 1);
    EQ(shmq_ack(&w.q[0], &d[0]), SHMQ_OK);
    EQ(shmq_ack(&w.q[1], &d[1]), SHMQ_STALE);
    EQ(shmq_ack(&w.q[2], &d[2]), SHMQ_OK);
    EQ(take_ack(&w.q[2]), 2);
    world_close(&w);
}

static void a_message_over_the_limit_is_dead_and_the_others_come_back(void)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl;
    open_world(1, 8);
    atomic_store(&w.q[0].header->delivery_limit, 2); /* a limit of 1 */
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(reap(2, false).requeued, 1);
    publish(&w.q[0], 2);
    EQ(take(&w.q[1], &d), 1);
    EQ(take(&w.q[1], &d), 2);
    struct shmq_counts counts = reap(2, false);
    EQ(counts.dead, 1);
    EQ(counts.requeued, 1);
    EQ(take_ack(&w.q[2]), 2);
    EQ(shmq_pop(&w.q[0], SHMQ_DEAD, &slot, &ctl), SHMQ_OK);
    EQ(shmq_ctl_owner(ctl), SHMQ_DELIVERY_LIMIT);
    EQ(shmq_settle_dead(&w.q[0], slot, ctl), SHMQ_OK);
    world_close(&w);
}

static void one_damaged_slot_does_not_keep_the_others_from_coming_back(void)
{
    struct shmq_delivery d[3];
    struct shmq_counts counts;
    open_world(1, 8);
    for (uint32_t i = 0; i < 3; i++) {
        publish(&w.q[0], i + 1);
        EQ(take(&w.q[1], &d[i]), i + 1);
    }
    shmq_word *shape = &shmq_slot_at(&w.q[0], d[0].slot)->shape;
    uint64_t whole = shmq_load(shape);
    atomic_store(shape, whole | 0xff00); /* level 255 */
    EQ(shmq_reap(&w.q[0], NULL, 2, true, false, &counts), SHMQ_DAMAGED);
    EQ(counts.requeued, 2);
    EQ(take_ack(&w.q[2]), 2);
    EQ(take_ack(&w.q[2]), 3);
    atomic_store(shape, whole);
    EQ(reap(2, false).requeued, 1);
    EQ(take_ack(&w.q[2]), 1);
    world_close(&w);
}

/* ---- purge ---- */
static void a_purge_takes_what_is_ready_and_nothing_else(void)
{
    struct shmq_delivery d, held;
    open_world(20, 16);
    for (uint64_t id = 1; id <= 6; id++)
        EQ(publish_sized(&w.q[0], id, id > 3 ? 9 : 5, id == 5 ? 5000 : 24), SHMQ_OK);
    EQ(take(&w.q[1], &d), 4);
    EQ(take(&w.q[1], &held), 5);
    nack(&w.q[1], &d);
    EQ(publish_draft(&w.q[0], 7, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1, .delay_ns = 1}), SHMQ_OK);
    EQ(shmq_purge(&w.q[0], shmq_now()), 5);
    CHECK(!shmq_may_have(&w.q[1]));
    EQ(take_ack(&w.q[1]), 0);
    EQ(taken_id(&held), 5);
    EQ(shmq_ack(&w.q[1], &held), SHMQ_OK);
    uint32_t slot;
    uint64_t ctl;
    EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
    EQ(shmq_fire(&w.q[0], slot, ctl, UINT64_MAX), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 7);
    world_close(&w);
}

static void a_purge_spares_what_came_after_its_start(void)
{
    open_world(1, 8);
    publish(&w.q[0], 1);
    uint64_t start = shmq_now();
    publish(&w.q[0], 2);
    EQ(shmq_purge(&w.q[0], start), 1);
    EQ(take_ack(&w.q[1]), 2);
    world_close(&w);
}

/* ---- expiry ---- */
static void expiry_is_found_anywhere_in_the_queue(void)
{
    uint32_t slot;
    uint64_t ctl, now = shmq_now();
    open_world(1, 100);
    for (uint64_t id = 1; id <= 90; id++)
        EQ(publish_draft(&w.q[0], id, (struct shmq_draft){.body_bytes = 24, .ttl_ns = id % 3 ? -1 : 3600000000000}), SHMQ_OK);
    EQ(shmq_expire_due(&w.q[0], now, 1000), 0);
    int64_t expired = 0;
    for (int n = 0; n < 20; n++) /* in steps */
        expired += shmq_expire_due(&w.q[0], now + 7200000000000, 7);
    EQ(expired, 30);
    EQ(world_count(&w, SHMQ_DEAD), 30);
    for (int n = 0; n < 30; n++) {
        EQ(shmq_pop(&w.q[0], SHMQ_DEAD, &slot, &ctl), SHMQ_OK);
        EQ(shmq_ctl_owner(ctl), SHMQ_EXPIRED);
        EQ(shmq_settle_dead(&w.q[0], slot, ctl), SHMQ_OK);
    }
    for (uint64_t id = 1; id <= 90; id++)
        if (id % 3)
            EQ(take_ack(&w.q[1]), id);
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

/* ---- ack timeout ---- */
static void an_ack_timeout_runs_from_the_first_sight(void)
{
    struct shmq_delivery d, again;
    open_world(1, 8);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_overdue(&w.q[0], 1000, 50000, 100), 0); /* seen */
    EQ(shmq_overdue(&w.q[0], 1000, 50999, 100), 0);
    EQ(shmq_overdue(&w.q[0], 1000, 51000, 100), 1);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_STALE);
    EQ(take(&w.q[2], &again), 1);
    EQ(shmq_ctl_failures(again.ctl), 1);
    EQ(shmq_overdue(&w.q[0], 1000, 90000, 100), 0); /* another delivery: seen for the first time */
    EQ(shmq_overdue(&w.q[0], 1000, 90500, 100), 0);
    EQ(shmq_ack(&w.q[2], &again), SHMQ_OK);
    world_close(&w);
}

static void touch_moves_the_deadline_of_its_own_delivery_only(void)
{
    struct shmq_delivery d, again;
    open_world(1, 8);
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_overdue(&w.q[0], 10000, 100000, 100), 0);
    EQ(shmq_touch(&w.q[1], d.slot, d.ctl, 200000), SHMQ_OK);
    EQ(shmq_overdue(&w.q[0], 10000, 199000, 100), 0);
    EQ(shmq_overdue(&w.q[0], 10000, 210000, 100), 1);
    EQ(shmq_touch(&w.q[1], d.slot, d.ctl, 900000), SHMQ_STALE);
    EQ(take(&w.q[1], &again), 1);
    EQ(shmq_overdue(&w.q[0], 10000, 300000, 100), 0);
    EQ(shmq_overdue(&w.q[0], 10000, 310000, 100), 1); /* the old touch does not count */
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

/* ---- dead and delayed ---- */
static void dead_and_delayed_rings_grow_like_the_others(void)
{
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl;
    open_world(1, 64);
    for (uint64_t id = 1; id <= 64; id++)
        EQ(publish_draft(&w.q[0], id, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1, .delay_ns = id % 2}), SHMQ_OK);
    for (uint64_t id = 2; id <= 64; id += 2) {
        EQ(take(&w.q[1], &d), id);
        EQ(shmq_bury(&w.q[1], d.slot, d.ctl, SHMQ_REJECTED), SHMQ_OK);
    }
    for (int n = 0; n < 32; n++) {
        EQ(shmq_pop(&w.q[0], SHMQ_DEAD, &slot, &ctl), SHMQ_OK);
        EQ(shmq_settle_dead(&w.q[0], slot, ctl), SHMQ_OK);
        EQ(shmq_pop(&w.q[0], SHMQ_DELAYED, &slot, &ctl), SHMQ_OK);
        EQ(shmq_fire(&w.q[0], slot, ctl, UINT64_MAX), SHMQ_OK);
    }
    EQ(shmq_pop(&w.q[0], SHMQ_DEAD, &slot, &ctl), SHMQ_EMPTY);
    for (uint64_t id = 1; id <= 64; id += 2)
        EQ(take_ack(&w.q[1]), id);
    world_close(&w);
}

static void what_found_no_room_in_the_dead_ring_asks_for_a_scan(void)
{
    struct shmq_delivery d;
    open_world(1, 64);
    for (uint64_t id = 1; id <= 10; id++)
        publish(&w.q[0], id);
    fallocate_left = 0;
    for (uint64_t id = 1; id <= 10; id++) {
        EQ(take(&w.q[1], &d), id);
        EQ(shmq_bury(&w.q[1], d.slot, d.ctl, SHMQ_REJECTED), SHMQ_OK);
    }
    EQ(world_count(&w, SHMQ_DEAD), 10);
    EQ(world_heal(&w).rescan, 1);
    EQ(world_heal(&w).rescan, 0);
    for (uint32_t slot = 0; slot < 10; slot++)
        EQ(shmq_settle_dead(&w.q[0], slot, shmq_load(&shmq_slot_at(&w.q[0], slot)->ctl)), SHMQ_OK);
    world_close(&w);
}

int main(void)
{
    RUN(what_a_dead_client_held_comes_back_in_order_with_a_failure);
    RUN(what_only_the_process_may_finish_waits_for_its_death);
    RUN(a_reap_by_who_lives_spares_the_living);
    RUN(a_message_over_the_limit_is_dead_and_the_others_come_back);
    RUN(one_damaged_slot_does_not_keep_the_others_from_coming_back);
    RUN(a_purge_takes_what_is_ready_and_nothing_else);
    RUN(a_purge_spares_what_came_after_its_start);
    RUN(expiry_is_found_anywhere_in_the_queue);
    RUN(an_ack_timeout_runs_from_the_first_sight);
    RUN(touch_moves_the_deadline_of_its_own_delivery_only);
    RUN(dead_and_delayed_rings_grow_like_the_others);
    RUN(what_found_no_room_in_the_dead_ring_asks_for_a_scan);
    return done();
}
