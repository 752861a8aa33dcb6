/* slot.c - claiming and freeing slots. The bitmap (and its summary) is a hint, lowest slot first so that hot memory stays small; the
 * claim is the swap FREE -> WRITING. A producer clears up to SHMQ_SPARE bits at once and keeps those slots in mind: they are
 * still FREE, so anybody's full look may claim them. "Full" is only said after looking at every control word. */
#include "shmq_core.h"

#define LOOK_ALWAYS_SLOTS 65536u
#define LOOK_AGAIN_NS UINT64_C(50000000)

static shmq_word *bitmap_word(struct shmq_queue *q, uint32_t w) { return (shmq_word *)(void *)(q->base + q->layout.bitmap) + w; }
static shmq_word *summary_word(struct shmq_queue *q, uint32_t w) { return (shmq_word *)(void *)(q->base + q->layout.summary) + w; }

void shmq_slot_hint(struct shmq_queue *q, uint32_t slot) {
    uint32_t w = slot / 64;
    uint64_t bit = UINT64_C(1) << (w & 63);
    /* seq_cst against `drained`: either it sees the bit, or we see the summary bit cleared */
    atomic_fetch_or_explicit(bitmap_word(q, w), UINT64_C(1) << (slot & 63), memory_order_seq_cst);
    shmq_word *summary = summary_word(q, w / 64);
    if (!(atomic_load_explicit(summary, memory_order_seq_cst) & bit)) atomic_fetch_or_explicit(summary, bit, memory_order_seq_cst);
}

bool shmq_slot_has_bit(struct shmq_queue *q, uint32_t slot) {
    uint32_t w = slot / 64;
    return (shmq_load(bitmap_word(q, w)) >> (slot & 63) & 1) && (shmq_load(summary_word(q, w / 64)) >> (w & 63) & 1);
}

static void drained(struct shmq_queue *q, uint32_t w) {
    uint64_t bit = UINT64_C(1) << (w & 63);
    atomic_fetch_and_explicit(summary_word(q, w / 64), ~bit, memory_order_seq_cst);
    if (atomic_load_explicit(bitmap_word(q, w), memory_order_seq_cst)) atomic_fetch_or_explicit(summary_word(q, w / 64), bit, memory_order_seq_cst);
}

/* Takes bits of one bitmap word into q->spare, lowest last (it is popped first). */
static bool take_bits(struct shmq_queue *q, uint32_t w) {
    uint64_t have = shmq_load(bitmap_word(q, w)), want = 0;
    uint32_t most = q->geometry.slots < 1024 ? 1 : SHMQ_SPARE;
    for (uint32_t n = 0; n < most && (have & ~want); n++) want |= (have & ~want) & -(have & ~want);
    if (!want) return false;
    uint64_t got = atomic_fetch_and_explicit(bitmap_word(q, w), ~want, memory_order_acquire) & want;
    uint32_t committed = shmq_slots_committed(q);
    for (; got; got &= ~(UINT64_C(1) << (63 - __builtin_clzll(got)))) {
        uint32_t slot = w * 64 + 63u - (uint32_t)__builtin_clzll(got);
        if (slot < committed) q->spare[q->spares++] = slot;
    }
    return q->spares > 0;
}

static bool refill(struct shmq_queue *q) {
    uint32_t words = (shmq_slots_committed(q) + 63) / 64;
    for (uint32_t i = 0; i * 64 < words; i++) {
        uint64_t summary = shmq_load(summary_word(q, i));
        for (; summary; summary &= summary - 1) {
            uint32_t w = i * 64 + (uint32_t)__builtin_ctzll(summary);
            if (w >= words) break;
            if (take_bits(q, w)) return true;
            drained(q, w);
        }
    }
    return false;
}

static void raise_high(struct shmq_queue *q, uint32_t slot) {
    uint64_t high = shmq_load(&q->header->slots_high);
    while (high <= slot && !shmq_cas(&q->header->slots_high, high, (uint64_t)slot + 1)) high = shmq_load(&q->header->slots_high);
}

/* Commit: FREE(g) -> WRITING(g, me). A death behind it is reaped. */
static bool try_claim(struct shmq_queue *q, uint32_t slot, uint64_t *ctl) {
    raise_high(q, slot);
    shmq_word *word = &shmq_slot_at(q, slot)->ctl;
    uint64_t c = shmq_load(word); /* acquire: pairs with FREE's release, the last reader is done */
    if (shmq_ctl_state(c) != SHMQ_FREE) return false;
    *ctl = shmq_ctl(shmq_ctl_generation(c), q->owner, 0, 0, SHMQ_WRITING);
    return shmq_cas(word, c, *ctl);
}

uint64_t shmq_freed_sum(struct shmq_queue *q) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < SHMQ_SHARDS; i++) sum += shmq_load(&q->header->tally[i].freed);
    return sum;
}

/* Hints say full: look at every bitmap word, then at every control word. In very large queues at most every 50 ms a handle. */
static int full_look(struct shmq_queue *q, bool stopped, uint32_t *slot, uint64_t *ctl) {
    uint64_t freed = shmq_freed_sum(q), now = shmq_now();
    uint32_t committed = shmq_slots_committed(q);
    bool again = committed <= LOOK_ALWAYS_SLOTS || now - q->full_look_ns >= LOOK_AGAIN_NS;
    shmq_bell_lack(q, freed, false, stopped);
    for (uint32_t w = 0; w < (committed + 63) / 64; w++)
        for (uint32_t n = 0; n < 64 && take_bits(q, w); n++) /* bits may lie: each one taken is tried before the next */
            while (q->spares)
                if (try_claim(q, *slot = q->spare[--q->spares], ctl)) return SHMQ_OK;
    if (!again) return SHMQ_FULL;
    q->full_look_ns = now;
    for (uint32_t s = 0; s < committed; s++)
        if (try_claim(q, s, ctl)) {
            *slot = s;
            return SHMQ_OK;
        }
    return SHMQ_FULL;
}

/* Slots that were never claimed are free whatever the bits say: who committed them sets these afterwards, or died before. */
static bool claim_unused(struct shmq_queue *q, uint32_t *slot, uint64_t *ctl) {
    uint32_t committed = shmq_slots_committed(q);
    for (uint32_t s = shmq_slots_high(q); s < committed; s++)
        if (try_claim(q, *slot = s, ctl)) return true;
    return false;
}

int shmq_slot_claim(struct shmq_queue *q, uint32_t *slot, uint64_t *ctl) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        if (!q->spares && !refill(q)) {
            if (claim_unused(q, slot, ctl)) return SHMQ_OK;
            int more = shmq_commit_slots(q);
            if (more == SHMQ_OK) continue;
            int looked = SHMQ_BROKEN(FULL_FROM_HINTS) ? SHMQ_FULL : full_look(q, more == SHMQ_STOPPED, slot, ctl);
            return looked == SHMQ_OK ? SHMQ_OK : more; /* FULL, NO_MEMORY or an errno */
        }
        *slot = q->spare[--q->spares];
        if (try_claim(q, *slot, ctl)) return SHMQ_OK;
    }
    return SHMQ_DAMAGED;
}

int shmq_slot_free(struct shmq_queue *q, uint32_t slot, uint64_t ctl, shmq_word *why) {
    struct shmq_slot *s = shmq_slot_at(q, slot);
    uint64_t place = atomic_load_explicit(&s->place, memory_order_relaxed);
    if (shmq_place_tier(place)) shmq_arena_release(q, place);
    if (!SHMQ_CAS_UNLESS(FREE_RELAXED, &s->ctl, ctl, shmq_ctl_freed(ctl))) {
        if (shmq_place_tier(place)) shmq_arena_keep(q, place);
        return SHMQ_STALE;
    }
    shmq_slot_hint(q, slot);
    if (why) atomic_fetch_add_explicit(why, 1, memory_order_relaxed);
    SHMQ_COUNT(q, freed, 1); /* counted before the bell: most deaths behind a commit are in its system call */
    shmq_bell_ring(q, SHMQ_PRODUCERS);
    return SHMQ_OK;
}
