/* states.c - the states that operations are tried in. Rings have 4 entries, slots are few: with rings larger than the number of slots
 * nothing ever fills. Prepared by the others' handles, but for what the child itself must hold. */
#include "stepping.h"
#include "support.h"

const struct shmq_draft small = {.body_bytes = 24, .ttl_ns = -1};
const struct shmq_draft large = {.body_bytes = 600, .ttl_ns = -1};
const struct shmq_draft delayed = {.body_bytes = 24, .ttl_ns = -1, .delay_ns = 1};
static const struct shmq_draft expired = {.body_bytes = 24, .ttl_ns = 0};

/* ---- what others do beforehand ---- */
static void put(struct stage *st, uint32_t handle, struct shmq_draft draft, uint32_t level)
{
    int r;
    draft.level = level;
    stage_publish(st, handle, draft, &r);
    if (r != SHMQ_OK)
        fault(st, "cannot prepare: publish", (uint64_t)r, 0);
}

void stage_puts(struct stage *st, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        put(st, 1 + i % 2, small, 0);
}

struct shmq_delivery stage_take(struct stage *st, uint32_t handle)
{
    struct shmq_delivery d;
    int r = shmq_take(&st->q[handle], &d);
    if (r != SHMQ_OK)
        fault(st, "cannot prepare: take", (uint64_t)r, 0);
    judge_delivery(st, &d);
    return d;
}

void stage_ack(struct stage *st, uint32_t handle, const struct shmq_delivery *d)
{
    judge_settled(st, taken_id(d));
    if (shmq_ack(&st->q[handle], d) != SHMQ_OK)
        fault(st, "cannot prepare: ack", 0, 0);
}

void stage_give_back(struct stage *st, const struct shmq_delivery *d)
{
    if (shmq_requeue(&st->q[1], d->slot, d->ctl, false) != SHMQ_OK)
        fault(st, "cannot prepare: requeue", 0, 0);
}

static void bury_and_settle(struct stage *st, uint32_t slot)
{
    struct shmq_queue *q = &st->q[SUPERVISOR];
    struct shmq_delivery d;
    uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl);
    if (shmq_describe(q, slot, ctl, &d) != SHMQ_OK || shmq_bury(q, slot, ctl, SHMQ_EXPIRED) != SHMQ_OK ||
        shmq_pop(q, SHMQ_DEAD, &slot, &ctl) != SHMQ_OK)
        fault(st, "cannot prepare: bury", slot, ctl);
    judge_settled(st, taken_id(&d));
    if (shmq_settle_dead(q, slot, ctl) != SHMQ_OK)
        fault(st, "cannot prepare: settle", slot, ctl);
}

/* ---- states ---- */
void empty(struct stage *st)
{
    (void)st;
}

void one(struct stage *st)
{
    stage_puts(st, 1);
}

void wrapped(struct stage *st)
{
    for (uint32_t i = 0; i < 6; i++) {
        stage_puts(st, 1);
        struct shmq_delivery d = stage_take(st, 1);
        stage_ack(st, 1, &d);
    }
    stage_puts(st, 3);
}

void full(struct stage *st)
{
    stage_puts(st, st->q[0].geometry.slots);
}

void four(struct stage *st) /* the first ring is full, slots are not */
{
    stage_puts(st, 4);
}

void every_level(struct stage *st)
{
    for (uint32_t level = 0; level < st->q[0].geometry.levels; level += st->q[0].geometry.levels > 4 ? 6 : 1)
        put(st, 1 + level % 2, small, level);
}

void returned(struct stage *st) /* two in the returned ring, the older one behind the younger; one in main */
{
    stage_puts(st, 3);
    struct shmq_delivery d[2] = {stage_take(st, 1), stage_take(st, 1)};
    stage_give_back(st, &d[1]);
    stage_give_back(st, &d[0]);
}

void sealed(struct stage *st) /* growth has happened, the first ring is empty */
{
    stage_puts(st, 6);
    for (int i = 0; i < 4; i++) {
        struct shmq_delivery d = stage_take(st, 2);
        stage_ack(st, 2, &d);
    }
}

void stale_behind_head(struct stage *st) /* the largest main ring is full: a live head, then stale ones */
{
    stage_puts(st, 4);
    for (uint32_t slot = 1; slot < 4; slot++)
        bury_and_settle(st, slot);
}

/* The returned ring is full at its largest size: its head live, then stale ones (2 slots: 4 entries). */
void returned_full(struct stage *st)
{
    stage_puts(st, 2);
    struct shmq_delivery d[2] = {stage_take(st, 1), stage_take(st, 1)};
    stage_give_back(st, &d[0]);
    stage_give_back(st, &d[1]);
    for (int i = 0; i < 2; i++) {
        struct shmq_ring main = shmq_ring_main(&st->q[1], 0), ring = shmq_ring_returned(&st->q[1], 0);
        struct shmq_look look;
        bury_and_settle(st, 1);
        stage_puts(st, 1);
        if (shmq_ring_look(&st->q[1], &main, SHMQ_READY, &look) != SHMQ_OK ||
            shmq_ring_enqueue(&st->q[1], &ring, look.slot, shmq_ctl_generation(look.ctl)) != SHMQ_OK)
            fault(st, "cannot prepare: spill", 0, 0);
        shmq_ring_clear(&st->q[1], &look);
    }
}

void one_large(struct stage *st)
{
    put(st, 1, large, 0);
    put(st, 2, large, 0);
}

void one_delayed(struct stage *st)
{
    put(st, 1, delayed, 0);
    stage_puts(st, 1);
}

void one_expired(struct stage *st)
{
    put(st, 1, expired, 0);
    put(st, 2, small, 0);
    put(st, 1, expired, 0);
}

void dead_and_delayed_pending(struct stage *st)
{
    stage_puts(st, 3);
    put(st, 1, delayed, 0);
    for (int i = 0; i < 2; i++) {
        struct shmq_delivery d = stage_take(st, 1);
        if (shmq_bury(&st->q[1], d.slot, d.ctl, SHMQ_REJECTED) != SHMQ_OK)
            fault(st, "cannot prepare: reject", 0, 0);
    }
}

void all_committed_in_use(struct stage *st) /* the next claim commits more slots */
{
    stage_puts(st, 64);
}

/* ---- states with a delivery of the child ---- */
void stage_hold(struct stage *st)
{
    st->held = stage_take(st, CHILD);
    st->held_id = taken_id(&st->held);
}

void held_only(struct stage *st)
{
    one(st);
    stage_hold(st);
}

void held_among_others(struct stage *st)
{
    stage_puts(st, 3);
    stage_hold(st);
}

void held_wrapped(struct stage *st)
{
    wrapped(st);
    stage_hold(st);
}

void held_full(struct stage *st)
{
    full(st);
    stage_hold(st);
}

void held_levels(struct stage *st)
{
    every_level(st);
    stage_hold(st);
}

void held_returned(struct stage *st)
{
    returned(st);
    stage_hold(st);
}

void held_large(struct stage *st)
{
    one_large(st);
    stage_hold(st);
}

void held_expired(struct stage *st)
{
    held_among_others(st);
    atomic_store(&shmq_slot_at(&st->q[0], st->held.slot)->expires, 1);
}

void held_second(struct stage *st) /* the limit is 1 and it failed once */
{
    one(st);
    struct shmq_delivery d = stage_take(st, 1);
    if (shmq_requeue(&st->q[1], d.slot, d.ctl, true) != SHMQ_OK)
        fault(st, "cannot prepare: fail", 0, 0);
    stage_hold(st);
}

void held_growing(struct stage *st) /* giving it back grows the returned ring */
{
    struct shmq_delivery d[4];
    stage_puts(st, 5);
    for (int i = 0; i < 4; i++)
        d[i] = stage_take(st, 1);
    stage_hold(st);
    for (int i = 0; i < 4; i++)
        stage_give_back(st, &d[i]);
}

void viewed(struct stage *st)
{
    held_among_others(st);
    judge_settled(st, st->held_id);
    if (shmq_ack_keep(&st->q[CHILD], &st->held) != SHMQ_OK)
        fault(st, "cannot prepare: view", 0, 0);
}

void held_by_a_dead_one(struct stage *st)
{
    stage_puts(st, 3);
    stage_take(st, DEAD_ONE);
    stage_take(st, DEAD_ONE);
    struct shmq_write w;
    if (shmq_write_begin(&st->q[DEAD_ONE], &large, &w) != SHMQ_OK)
        fault(st, "cannot prepare: begin", 0, 0);
}

void lost_references(struct stage *st) /* two READY without a reference, slots without bits */
{
    stage_puts(st, 3);
    struct shmq_ring main = shmq_ring_main(&st->q[1], 0);
    struct shmq_look look;
    if (shmq_ring_look(&st->q[1], &main, SHMQ_READY, &look) != SHMQ_OK)
        fault(st, "cannot prepare: look", 0, 0);
    shmq_ring_clear(&st->q[1], &look);
    atomic_store((shmq_word *)(void *)(st->q[0].base + st->q[0].layout.bitmap), 0);
    ledger_find(st, 2001)->loose = true; /* its reference comes back at the tail */
}

static void loosen(struct stage *st) /* what is delayed comes back behind others */
{
    ledger_find(st, st->held_id)->loose = true;
}

void held_to_delay(struct stage *st)
{
    held_only(st);
    loosen(st);
}

void held_full_to_delay(struct stage *st)
{
    held_full(st);
    loosen(st);
}
