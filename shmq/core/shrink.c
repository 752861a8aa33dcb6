/* shrink.c - memory given back: the free end of a tier, by the supervisor.
 *
 *     claim every granule of the end (owner words of a WRITING slot of ours) -> lower `committed` -> punch the hole -> free the slot
 *
 * A claimer that was stopped and believes the older, higher `committed` either finds our owner words (its swaps fail), or swaps after our
 * slot was freed, hence after `committed` was lowered, which it looks at once more (find_run in arena.c). Somebody may extend the tier
 * again before the hole is punched: then the memory is committed anew before the slot is freed, or, without memory, the slot is kept and that
 * is tried again. Somebody may have allocated before the punch and raise `committed` behind it: that swap fails, as the punch is followed by
 * a change of the word. Slots, rings and owner tables are never given back. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "shmq_core.h"

#include <fcntl.h>

#define WORTH_BYTES (UINT64_C(1) << 20)
#define STEP_BYTES_MAX (UINT64_C(16) << 20) /* a hole of a gigabyte takes a quarter of a second */
#define SLOTS_LEAST 64u /* smaller queues have no slot to spare for the claim */

static shmq_word *owner_word(const struct shmq_queue *q, uint32_t t, uint32_t granule) {
    return (shmq_word *)(void *)(q->base + q->layout.tier[t].owners) + granule;
}

/* First granule of the free end, on a page, as far as one step takes it. */
static uint32_t free_end(struct shmq_queue *q, uint32_t t, uint32_t committed) {
    uint32_t n = committed, slot, page = SHMQ_PAGE >> q->layout.tier[t].shift;
    uint32_t step = (uint32_t)(STEP_BYTES_MAX >> q->layout.tier[t].shift), least = committed > step ? committed - step : 0;
    while (n > least && !shmq_arena_owner_live(q, shmq_load(owner_word(q, t, n - 1)), &slot)) n--;
    return page > 1 ? (n + page - 1) / page * page : n;
}

static void give_up(struct shmq_queue *q, uint32_t t, const struct shmq_shrunk *s, uint64_t mine, uint32_t upto) {
    for (uint32_t i = s->from; i < upto; i++) shmq_cas(owner_word(q, t, i), mine, 0);
    shmq_slot_free(q, s->slot, s->ctl, &shmq_tally_of(q)->aborted);
}

static bool claim_end(struct shmq_queue *q, uint32_t t, struct shmq_shrunk *s) {
    uint32_t slot;
    if (shmq_slot_claim(q, &s->slot, &s->ctl) != SHMQ_OK) return false;
    /* no granules of a tier: whoever reaps us must know that there may be a hole (free_owned in sweep.c) */
    atomic_store_explicit(&shmq_slot_at(q, s->slot)->place, (uint64_t)s->from << 32 | (uint64_t)(t + 1) << 8, memory_order_relaxed);
    uint64_t mine = (uint64_t)(s->slot + 1) << 40 | (uint64_t)shmq_ctl_generation(s->ctl) << 12;
    for (uint32_t i = s->from; i < s->to; i++) {
        uint64_t seen = shmq_load(owner_word(q, t, i));
        if (!shmq_arena_owner_live(q, seen, &slot) && shmq_cas(owner_word(q, t, i), seen, mine)) continue;
        give_up(q, t, s, mine, i);
        return false;
    }
    uint64_t word = shmq_load(&q->header->tier[t].committed);
    if ((uint32_t)word == s->to && shmq_cas(&q->header->tier[t].committed, word, ((word >> 32) + 1) << 32 | s->from)) return true;
    give_up(q, t, s, mine, s->to);
    return false;
}

/* Behind a punch, before the claim that lies over the hole is freed. EMPTY: nobody has extended the tier over it; and who allocated before
 * the punch and wants to raise `committed` now fails, as its change count moves on. OK: somebody had; there is memory again. */
int shmq_arena_refill(struct shmq_queue *q, uint32_t t, uint32_t from) {
    const struct shmq_tier *tier = &q->layout.tier[t];
    uint64_t word = shmq_load(&q->header->tier[t].committed);
    if ((uint32_t)word <= from && shmq_cas(&q->header->tier[t].committed, word, word + (UINT64_C(1) << 32))) return SHMQ_EMPTY;
    uint32_t committed = shmq_tier_committed(q, t);
    if (committed <= from) return SHMQ_EMPTY;
    return shmq_commit_memory(q, tier->data + ((uint64_t)from << tier->shift), (uint64_t)(committed - from) << tier->shift);
}

/* The end is ours and above `committed`: punch it, and undo that where somebody has extended the tier meanwhile. */
static uint64_t punch(struct shmq_queue *q, uint32_t t, struct shmq_shrunk *s) {
    const struct shmq_tier *tier = &q->layout.tier[t];
    uint64_t at = tier->data + ((uint64_t)s->from << tier->shift), bytes = (uint64_t)(s->to - s->from) << tier->shift;
    bool punched = !s->held && fallocate(q->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)bytes) == 0;
    int refilled = shmq_arena_refill(q, t, s->from);
    s->held = refilled != SHMQ_EMPTY && refilled != SHMQ_OK;
    if (!s->held) shmq_slot_free(q, s->slot, s->ctl, &shmq_tally_of(q)->aborted);
    return punched && refilled == SHMQ_EMPTY ? bytes : 0;
}

static uint64_t shrink_tier(struct shmq_queue *q, uint32_t t) {
    struct shmq_shrunk *s = &q->shrunk[t];
    uint32_t committed = shmq_tier_committed(q, t);
    if (s->held) return punch(q, t, s);
    *s = (struct shmq_shrunk){.from = free_end(q, t, committed), .to = committed};
    if (s->from >= s->to || (uint64_t)(s->to - s->from) << q->layout.tier[t].shift < WORTH_BYTES) return 0;
    return claim_end(q, t, s) ? punch(q, t, s) : 0;
}

uint64_t shmq_arena_shrink(struct shmq_queue *q) {
    uint64_t bytes = 0;
    if (q->geometry.slots < SLOTS_LEAST) return 0;
    for (uint32_t t = 0; t < SHMQ_TIERS; t++) bytes += shrink_tier(q, t);
    return bytes;
}
