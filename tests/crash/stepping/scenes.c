/* scenes.c - the operations of the core, each in the states it is tried in. */
#include "stepping.h"
#include "support.h"

#include <string.h>

/* ---- operations ---- */
static int publish_own(struct stage *st, struct shmq_draft d)
{
    if (st->own_bytes != d.body_bytes) { /* beforehand, by the harness */
        body_fill(st->own_body, st->own_bytes = (uint32_t)d.body_bytes, st->own_id);
        return SHMQ_OK;
    }
    return shmq_publish(&st->q[CHILD], &d, st->own_body);
}

static int publish_small(struct stage *st)
{
    return publish_own(st, (struct shmq_draft){.body_bytes = 24, .level = st->q[0].geometry.levels / 2, .ttl_ns = -1});
}

static int publish_large(struct stage *st)
{
    return publish_own(st, large);
}

static int publish_delayed(struct stage *st)
{
    return publish_own(st, delayed);
}

static int publish_mortal(struct stage *st)
{
    return publish_own(st, (struct shmq_draft){.body_bytes = 24, .ttl_ns = 1000000000000});
}

static int abort_write(struct stage *st)
{
    struct shmq_write w;
    int r = shmq_write_begin(&st->q[CHILD], &large, &w);
    if (r == SHMQ_OK)
        shmq_write_abort(&st->q[CHILD], &w);
    return r == SHMQ_OK ? SHMQ_EMPTY : r; /* no message */
}

/* Take, copy, and look whether the copy is good: what a consumer does. */
static int deliver(struct stage *st)
{
    struct report *say = st->report;
    int r = shmq_take(&st->q[CHILD], &say->delivery);
    if (r != SHMQ_OK)
        return r;
    memcpy(say->copy, say->delivery.body, say->delivery.body_bytes);
    memcpy(&say->id, say->copy, sizeof say->id);
    say->current = shmq_is_current(&st->q[CHILD], &say->delivery);
    return r;
}

static int ack_held(struct stage *st)
{
    return shmq_ack(&st->q[CHILD], &st->held);
}

static int keep_held(struct stage *st)
{
    return shmq_ack_keep(&st->q[CHILD], &st->held);
}

static int release_held(struct stage *st)
{
    return shmq_release(&st->q[CHILD], &st->held);
}

static int requeue_held(struct stage *st)
{
    return shmq_requeue(&st->q[CHILD], st->held.slot, st->held.ctl, st->scene->limit);
}

static int reject_held(struct stage *st)
{
    return shmq_bury(&st->q[CHILD], st->held.slot, st->held.ctl, SHMQ_REJECTED);
}

static int delay_held(struct stage *st)
{
    return shmq_delay(&st->q[CHILD], st->held.slot, st->held.ctl, 12345678);
}

static int touch_held(struct stage *st)
{
    int r = shmq_touch(&st->q[CHILD], st->held.slot, st->held.ctl, 12345678);
    return r == SHMQ_STALE ? SHMQ_OK : r; /* too late, or in vain: readers ignore it */
}

/* Registers, looks, and gives up: with a token read, it passes that on; without, it takes its registration back. */
static int sleep_and_leave(struct stage *st)
{
    struct shmq_queue *q = &st->q[CHILD];
    shmq_bell_register(q, SHMQ_CONSUMERS);
    if (shmq_bell_look(q, SHMQ_CONSUMERS) || !shmq_bell_token(q, SHMQ_CONSUMERS))
        shmq_bell_leave(q, SHMQ_CONSUMERS);
    else if (shmq_bell_look(q, SHMQ_CONSUMERS))
        shmq_bell_ring(q, SHMQ_CONSUMERS);
    return SHMQ_OK;
}

static int leave_only(struct stage *st)
{
    shmq_bell_leave(&st->q[CHILD], SHMQ_CONSUMERS);
    return SHMQ_OK;
}

static int expire_sweep(struct stage *st)
{
    return shmq_expire_due(&st->q[CHILD], shmq_now(), 100) < 0 ? -1 : SHMQ_OK;
}

static int expire_all(struct stage *st)
{
    return shmq_expire_from(&st->q[CHILD], shmq_now(), 0, 100) < 0 ? -1 : SHMQ_OK;
}

static int settle_one(struct stage *st)
{
    uint32_t slot;
    uint64_t ctl;
    int r = shmq_pop(&st->q[CHILD], SHMQ_DEAD, &slot, &ctl);
    return r == SHMQ_OK ? shmq_settle_dead(&st->q[CHILD], slot, ctl) : r;
}

static int fire_one(struct stage *st)
{
    uint32_t slot;
    uint64_t ctl;
    int r = shmq_pop(&st->q[CHILD], SHMQ_DELAYED, &slot, &ctl);
    return r == SHMQ_OK ? shmq_fire(&st->q[CHILD], slot, ctl, UINT64_MAX) : r;
}

static int purge_all(struct stage *st)
{
    return shmq_purge(&st->q[CHILD], st->now) < 0 ? -1 : SHMQ_OK;
}

static int reap_the_dead(struct stage *st)
{
    struct shmq_counts counts;
    return shmq_reap(&st->q[CHILD], NULL, DEAD_ONE + 1, true, false, &counts);
}

static int give_back_overdue(struct stage *st)
{
    return shmq_overdue(&st->q[CHILD], 1000, UINT64_MAX / 2, 100) < 0 ? -1 : SHMQ_OK;
}

static int shrink(struct stage *st)
{
    shmq_arena_shrink(&st->q[CHILD]);
    return SHMQ_OK;
}

static int heal_twice(struct stage *st)
{
    struct shmq_heal_report report;
    int r = shmq_heal_step(&st->q[CHILD], st->now, true, &report);
    return r ? r : shmq_heal_step(&st->q[CHILD], st->now + 200000000, true, &report);
}

static int ring_unheard(struct stage *st)
{
    shmq_bell_ring_unheard(&st->q[CHILD]);
    return SHMQ_OK;
}

/* operation, state, kind, prepare, act, levels, slots, ring entries, sleepers, limit, brings */
const struct scene scenes[] = {
    {"publish", "empty", PUBLISHES, empty, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "one", PUBLISHES, one, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "wrapped", PUBLISHES, wrapped, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "full", PUBLISHES, full, publish_small, 1, 4, 4, 0, 0, 1},
    {"publish", "priorities", PUBLISHES, every_level, publish_small, 3, 8, 4, 0, 0, 1},
    {"publish", "gated levels", PUBLISHES, every_level, publish_small, 20, 12, 4, 0, 0, 1},
    {"publish", "returned", PUBLISHES, returned, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "growth", PUBLISHES, four, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "sealed", PUBLISHES, sealed, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "spill", PUBLISHES, stale_behind_head, publish_small, 1, 4, 4, 0, 0, 1},
    {"publish", "half-done enqueue", PUBLISHES, half_done_enqueue, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "half-done take", PUBLISHES, half_done_take, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "half-done seal", PUBLISHES, half_done_seal, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "lost bits", PUBLISHES, lost_bits, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "false hints", PUBLISHES, false_hints, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "mortal", PUBLISHES, one, publish_mortal, 1, 8, 4, 0, 0, 1},
    {"publish", "sleepers", PUBLISHES, empty, publish_small, 1, 8, 4, 1, 0, 1},
    {"publish", "sleepers, old bells", PUBLISHES, old_bells, publish_small, 1, 8, 4, 1, 0, 1},
    {"publish", "more slots", PUBLISHES, all_committed_in_use, publish_small, 1, 72, 8, 0, 0, 1},
    {"publish", "drops the head", PUBLISHES, at_its_length, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "drops the head, free", PUBLISHES, at_its_length_free, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "drops what came back", PUBLISHES, returned_at_its_length, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "drops by bytes", PUBLISHES, at_its_bytes, publish_small, 3, 8, 4, 0, 0, 1},
    {"publish", "drops the highest", PUBLISHES, drops_highest, publish_small, 3, 8, 4, 0, 0, 1},
    {"publish", "refusing", PUBLISHES, has_room_for_one, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "refused", PUBLISHES, refuses, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "refused and dead", PUBLISHES, refuses_dead, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish", "below a limit", PUBLISHES, below_its_length, publish_small, 1, 8, 4, 0, 0, 1},
    {"publish large", "empty", PUBLISHES, empty, publish_large, 1, 8, 4, 0, 0, 1},
    {"publish large", "large", PUBLISHES, one_large, publish_large, 1, 8, 4, 0, 0, 1},
    {"publish large", "from the start", PUBLISHES, large_from_the_start, publish_large, 1, 8, 4, 0, 0, 1},
    {"publish delayed", "empty", PUBLISHES, empty, publish_delayed, 1, 8, 4, 0, 0, 1},
    {"publish delayed", "delayed", PUBLISHES, one_delayed, publish_delayed, 1, 8, 4, 0, 0, 1},
    {"abort", "large", PUBLISHES, one_large, abort_write, 1, 8, 4, 0, 0, 0},
    {"deliver", "empty", TAKES, empty, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "one", TAKES, one, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "wrapped", TAKES, wrapped, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "full", TAKES, full, deliver, 1, 4, 4, 0, 0, 0},
    {"deliver", "priorities", TAKES, every_level, deliver, 3, 8, 4, 0, 0, 0},
    {"deliver", "gated levels", TAKES, every_level, deliver, 20, 12, 4, 0, 0, 0},
    {"deliver", "returned", TAKES, returned, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "sealed", TAKES, sealed, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "stale", TAKES, stale_behind_head, deliver, 1, 4, 4, 0, 0, 0},
    {"deliver", "returned full", TAKES, returned_full, deliver, 1, 2, 4, 0, 0, 0},
    {"deliver", "low level only", TAKES, lowest_level_only, deliver, 20, 12, 4, 0, 0, 0},
    {"deliver", "half-done enqueue", TAKES, half_done_enqueue, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "half-done take", TAKES, half_done_take, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "full of next lap", TAKES, half_done_take_of_full, deliver, 1, 4, 4, 0, 0, 0},
    {"deliver", "half-done seal", TAKES, half_done_seal, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "many rings", TAKES, returned_in_many_rings, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "behind a gap", TAKES, returned_behind_a_gap, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "large", TAKES, one_large, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "delayed", TAKES, one_delayed, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "drops the head", TAKES, at_its_length, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "below a limit", TAKES, below_its_length, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "refusing", TAKES, refuses, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "expired, drops", TAKES, expired_at_its_length, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "expired, refusing", TAKES, expired_where_refused, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "aged, returned", TAKES, aged_returned, deliver, 1, 8, 4, 0, 0, 0},
    {"deliver", "aged", TAKES, aged, deliver, 3, 8, 4, 0, 0, 0},
    {"deliver", "expired", TAKES, one_expired, deliver, 1, 8, 4, 0, 0, 0},
    {"ack", "one", SETTLES, held_only, ack_held, 1, 8, 4, 0, 0, 0},
    {"ack", "wrapped", SETTLES, held_wrapped, ack_held, 1, 8, 4, 0, 0, 0},
    {"ack", "full", SETTLES, held_full, ack_held, 1, 4, 4, 0, 0, 0},
    {"ack", "priorities", SETTLES, held_levels, ack_held, 3, 8, 4, 0, 0, 0},
    {"ack", "large", SETTLES, held_large, ack_held, 1, 8, 4, 0, 0, 0},
    {"ack", "sleepers", SETTLES, held_full, ack_held, 1, 4, 4, 1, 0, 0},
    {"ack", "viewed", SETTLES, held_among_others, keep_held, 1, 8, 4, 0, 0, 0},
    {"release", "viewed", SETTLES, viewed, release_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "one", SETTLES, held_only, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "wrapped", SETTLES, held_wrapped, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "full", SETTLES, held_full, requeue_held, 1, 4, 4, 0, 0, 0},
    {"requeue", "priorities", SETTLES, held_levels, requeue_held, 3, 8, 4, 0, 0, 0},
    {"requeue", "gated levels", SETTLES, held_levels, requeue_held, 20, 12, 4, 0, 0, 0},
    {"requeue", "returned", SETTLES, held_returned, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "growth", SETTLES, held_growing, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "half-done enqueue", SETTLES, held_with_half_done_enqueue, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "rotation", SETTLES, held_beside_stale, requeue_held, 1, 2, 4, 0, 0, 0},
    {"requeue", "rotation, one stale", SETTLES, held_beside_one_stale, requeue_held, 1, 2, 4, 0, 0, 0},
    {"requeue", "rotation, none stale", SETTLES, held_beside_live_only, requeue_held, 1, 2, 4, 0, 0, 0},
    {"requeue", "large", SETTLES, held_large, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "sleepers", SETTLES, held_only, requeue_held, 1, 8, 4, 1, 0, 0},
    {"requeue", "sleepers, old bells", SETTLES, held_old_bells, requeue_held, 1, 8, 4, 1, 0, 0},
    {"requeue", "over the limit", SETTLES, held_second, requeue_held, 1, 8, 4, 0, 1, 0},
    {"requeue", "drops the head", SETTLES, held_at_its_length, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "refusing", SETTLES, held_refuses, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "delayed retry", SETTLES, held_to_try_later, requeue_held, 1, 8, 4, 0, 0, 0},
    {"requeue", "expired", SETTLES, held_expired, requeue_held, 1, 8, 4, 0, 0, 0},
    {"reject", "one", SETTLES, held_only, reject_held, 1, 8, 4, 0, 0, 0},
    {"reject", "large", SETTLES, held_large, reject_held, 1, 8, 4, 0, 0, 0},
    {"reject", "priorities", SETTLES, held_levels, reject_held, 3, 8, 4, 0, 0, 0},
    {"delay", "one", SETTLES, held_to_delay, delay_held, 1, 8, 4, 0, 0, 0},
    {"delay", "full", SETTLES, held_full_to_delay, delay_held, 1, 4, 4, 0, 0, 0},
    {"touch", "one", SWEEPS, held_only, touch_held, 1, 8, 4, 0, 0, 0},
    {"sleep", "empty", SWEEPS, empty, sleep_and_leave, 1, 8, 4, 1, 0, 0},
    {"sleep", "one", SWEEPS, one, sleep_and_leave, 1, 8, 4, 1, 0, 0},
    {"ring", "unheard", SWEEPS, rung_unheard, ring_unheard, 1, 8, 4, 1, 0, 0},
    {"leave", "token written", SWEEPS, tokens_written, leave_only, 1, 8, 4, 0, 0, 0},
    {"expire", "from the first", SWEEPS, one_expired, expire_all, 1, 8, 4, 0, 0, 0},
    {"expire", "expired", SWEEPS, one_expired, expire_sweep, 1, 8, 4, 0, 0, 0},
    {"expire", "drops the head", SWEEPS, expired_at_its_length, expire_all, 1, 8, 4, 0, 0, 0},
    {"expire", "refusing", SWEEPS, expired_where_refused, expire_all, 1, 8, 4, 0, 0, 0},
    {"settle", "dead", SWEEPS, dead_and_delayed_pending, settle_one, 1, 8, 4, 0, 0, 0},
    {"fire", "delayed", SWEEPS, dead_and_delayed_pending, fire_one, 1, 8, 4, 0, 0, 0},
    {"fire", "drops the head", SWEEPS, due_at_its_length, fire_one, 1, 8, 4, 0, 0, 0},
    {"fire", "refusing", SWEEPS, due_where_refused, fire_one, 1, 8, 4, 0, 0, 0},
    {"purge", "returned", SWEEPS, returned, purge_all, 1, 8, 4, 0, 0, 0},
    {"purge", "gated levels", SWEEPS, every_level, purge_all, 20, 12, 4, 0, 0, 0},
    {"purge", "drops the head", SWEEPS, at_its_length, purge_all, 1, 8, 4, 0, 0, 0},
    {"purge", "refusing", SWEEPS, refuses, purge_all, 1, 8, 4, 0, 0, 0},
    {"reap", "unacked and writing", SWEEPS, held_by_a_dead_one, reap_the_dead, 1, 8, 4, 0, 0, 0},
    {"reap", "drops the head", SWEEPS, held_by_a_dead_one_at_its_length, reap_the_dead, 1, 8, 4, 0, 0, 0},
    {"reap", "delayed retry", SWEEPS, held_by_a_dead_one_to_try_later, reap_the_dead, 1, 8, 4, 0, 0, 0},
    {"overdue", "unacked", SWEEPS, unacked_and_seen, give_back_overdue, 1, 8, 4, 0, 0, 0},
    {"overdue", "delayed retry", SWEEPS, seen_to_try_later, give_back_overdue, 1, 8, 4, 0, 0, 0},
    {"shrink", "free end", SWEEPS, free_end, shrink, 1, 64, 4, 0, 0, 0},
    {"heal", "lost references", SWEEPS, lost_references, heal_twice, 1, 8, 4, 0, 0, 0},
    {"heal", "miscounted", SWEEPS, miscounted, heal_twice, 1, 8, 4, 0, 0, 0},
};
const uint32_t scenes_count = sizeof scenes / sizeof *scenes;
