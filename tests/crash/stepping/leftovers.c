/* leftovers.c - more states: what earlier deaths, or unlucky times, have left in rings, bitmaps and the arena. */
#include "stepping.h"
#include "support.h"

#include <fcntl.h>

static struct shmq_part *first_part(struct stage *st, bool of_returned, uint32_t *bits)
{
    struct shmq_ring r = of_returned ? shmq_ring_returned(&st->q[1], 0) : shmq_ring_main(&st->q[1], 0);
    return shmq_ring_part(&st->q[1], &r, 0, bits);
}

/* References to nothing, as messages that have gone leave them. */
static void stale_references(struct stage *st, uint32_t n, uint32_t slot, uint32_t generation)
{
    struct shmq_ring ring = shmq_ring_returned(&st->q[1], 0);
    for (uint32_t i = 0; i < n; i++)
        if (shmq_ring_enqueue(&st->q[1], &ring, slot, generation) != SHMQ_OK)
            fault(st, "cannot prepare: stale references", n, i);
}

void half_done_enqueue(struct stage *st)
{
    uint32_t bits;
    wrapped(st);
    struct shmq_part *part = first_part(st, false, &bits);
    atomic_fetch_sub(&part->tail, 1);
}

void half_done_take(struct stage *st) /* the entry is cleared, head has not moved */
{
    uint32_t bits;
    wrapped(st);
    atomic_fetch_sub(&first_part(st, false, &bits)->head, 1);
}

void half_done_take_of_full(struct stage *st) /* and the entry was filled again: FULL of the next lap */
{
    uint32_t bits;
    half_done_take(st);
    stage_puts(st, 1);
    struct shmq_part *part = first_part(st, false, &bits);
    if (shmq_load(&part->tail) - shmq_load(&part->head) != 5)
        fault(st, "cannot prepare: a full ring", shmq_load(&part->head), shmq_load(&part->tail));
}

void half_done_seal(struct stage *st) /* front still leads to a sealed ring */
{
    struct shmq_delivery d;
    stage_puts(st, 6);
    for (int i = 0; i < 5; i++) {
        d = stage_take(st, 2);
        stage_ack(st, 2, &d);
    }
    struct shmq_ring main = shmq_ring_main(&st->q[1], 0);
    if (shmq_load(&main.ends->front) != 1)
        fault(st, "cannot prepare: a sealed ring", 0, 0);
    atomic_store(&main.ends->front, 0);
}

void lost_bits(struct stage *st) /* slots are free, and no hint says so */
{
    const struct shmq_layout *l = &st->q[0].layout;
    one(st);
    atomic_store((shmq_word *)(void *)(st->q[0].base + l->bitmap), 0);
}

void false_hints(struct stage *st) /* the lowest bits are of slots in use, the summary promises an empty word */
{
    const struct shmq_layout *l = &st->q[0].layout;
    stage_puts(st, 3);
    atomic_fetch_or((shmq_word *)(void *)(st->q[0].base + l->bitmap), 7);
    atomic_fetch_or((shmq_word *)(void *)(st->q[0].base + l->summary), 2);
}

void large_from_the_start(struct stage *st) /* the walk begins before what is taken */
{
    one_large(st);
    atomic_store(&st->q[0].header->tier[0].hint, 0);
}

void lowest_level_only(struct stage *st)
{
    one(st);
}

void returned_in_many_rings(struct stage *st)
{
    struct shmq_delivery d[7];
    stage_puts(st, 7);
    for (int i = 0; i < 7; i++)
        d[i] = stage_take(st, 1);
    for (int i = 6; i >= 0; i--)
        stage_give_back(st, &d[i]);
}

void returned_behind_a_gap(struct stage *st) /* the newest at the head, two marks, the next one: a take gathers */
{
    struct shmq_delivery d[4];
    stale_max = 2;
    stage_puts(st, 4);
    for (int i = 0; i < 4; i++)
        d[i] = stage_take(st, 1);
    stage_give_back(st, &d[3]);
    for (int i = 0; i < 3; i++)
        stage_give_back(st, &d[i]);
    for (int i = 0; i < 2; i++) {
        d[i] = stage_take(st, 1);
        stage_ack(st, 1, &d[i]);
    }
}

void tokens_written(struct stage *st) /* for a sleeper that has not read its token yet */
{
    shmq_bell_register(&st->q[CHILD], SHMQ_CONSUMERS);
    one(st);
}

/* The child rings what nobody hears. */
void old_bells(struct stage *st)
{
    static int deaf = -1;
    if (deaf < 0 && (deaf = open("/dev/null", O_WRONLY)) < 0)
        fault(st, "cannot prepare: old bells", 0, 0);
    atomic_store(&st->q[0].header->epoch, 1);
    for (uint32_t i = 0; i < HANDLES; i++)
        st->q[i].bell_epoch = i != CHILD;
    for (uint32_t side = 0; side < SHMQ_SIDES; side++)
        st->q[CHILD].bell[side] = deaf;
}

void held_old_bells(struct stage *st)
{
    held_only(st);
    old_bells(st);
}

void rung_unheard(struct stage *st) /* by somebody before; the child rings for it */
{
    one(st);
    atomic_fetch_or(&st->q[0].header->flags, SHMQ_FLAG_UNHEARD << SHMQ_CONSUMERS | SHMQ_FLAG_UNHEARD << SHMQ_PRODUCERS);
}

void held_with_half_done_enqueue(struct stage *st)
{
    uint32_t bits;
    struct shmq_delivery d;
    stage_puts(st, 3);
    stage_hold(st);
    d = stage_take(st, 1);
    stage_give_back(st, &d);
    atomic_fetch_sub(&first_part(st, true, &bits)->tail, 1);
}

/* The returned ring is full at its largest size (4 entries for 2 slots): a live head and `stale` stale references; the rest are duplicates. */
static void held_beside_full_returned(struct stage *st, uint32_t stale)
{
    stage_puts(st, 2);
    stage_hold(st);
    struct shmq_delivery d = stage_take(st, 1);
    stage_give_back(st, &d);
    stale_references(st, 3 - stale, d.slot, shmq_ctl_generation(d.ctl));
    stale_references(st, stale, d.slot, shmq_ctl_generation(d.ctl) + 77);
}

void held_beside_stale(struct stage *st)
{
    held_beside_full_returned(st, 3);
}

void held_beside_one_stale(struct stage *st)
{
    held_beside_full_returned(st, 1);
}

void held_beside_live_only(struct stage *st) /* left to the healer */
{
    held_beside_full_returned(st, 0);
}

void unacked_and_seen(struct stage *st) /* for the first time, by the child; their owner is stuck */
{
    stage_puts(st, 3);
    stage_take(st, DEAD_ONE);
    stage_take(st, DEAD_ONE);
    if (shmq_overdue(&st->q[CHILD], 1000, 1000, 100) != 0)
        fault(st, "cannot prepare: overdue", 0, 0);
}

void free_end(struct stage *st) /* of the arena: 1 MiB and more */
{
    struct shmq_delivery d;
    int r;
    stage_publish(st, 1, (struct shmq_draft){.body_bytes = 1 << 20, .ttl_ns = -1}, &r);
    if (r != SHMQ_OK)
        fault(st, "cannot prepare: a large body", (uint64_t)r, 0);
    d = stage_take(st, 1);
    stage_ack(st, 1, &d);
    one(st);
}
