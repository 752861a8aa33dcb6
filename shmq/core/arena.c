/* arena.c - contiguous runs of granules for large bodies, in three tiers by size. A granule's owner word names (slot, generation);
 * it is taken while that slot has that generation and is not FREE, so freeing the slot frees its run, and staleness is for ever.
 * A claimer that dies leaves owner words that its reaped slot makes stale. */
#include "shmq_core.h"

#define EXTENT_BYTES_MAX (UINT64_C(16) << 20)
#define EXTENT_BYTES_MIN (UINT64_C(64) << 10)

static const uint64_t tier_bytes_max[SHMQ_TIERS] = {UINT64_C(64) << 10, UINT64_C(8) << 20, (UINT64_C(1) << 30)};

static shmq_word *owner_word(const struct shmq_queue *q, uint32_t t, uint32_t granule) {
    return (shmq_word *)(void *)(q->base + q->layout.tier[t].owners) + granule;
}

static uint64_t owner_of(uint32_t slot, uint64_t ctl) { return (uint64_t)(slot + 1) << 40 | (uint64_t)shmq_ctl_generation(ctl) << 12; }

bool shmq_arena_owner_live(struct shmq_queue *q, uint64_t owner, uint32_t *slot) {
    uint64_t s = owner >> 40;
    if (s == 0 || s > shmq_slots_committed(q)) return false;
    *slot = (uint32_t)s - 1;
    uint64_t c = shmq_load(&shmq_slot_at(q, *slot)->ctl);
    if (SHMQ_BROKEN(GRANULES_BY_SLOT)) return shmq_ctl_state(c) != SHMQ_FREE;
    return shmq_ctl_state(c) != SHMQ_FREE && shmq_ctl_generation(c) == (uint32_t)(owner >> 12 & 0xfffffffu);
}

uint32_t shmq_tier_committed(struct shmq_queue *q, uint32_t t) {
    uint32_t n = (uint32_t)shmq_load(&q->header->tier[t].committed);
    return n < q->layout.tier[t].granules ? n : q->layout.tier[t].granules;
}

static int commit_granules(struct shmq_queue *q, const struct shmq_tier *tier, uint64_t from, uint64_t to) {
    int r = shmq_commit_memory(q, tier->owners + from * 8, (to - from) * 8);
    return r ? r : shmq_commit_memory(q, tier->data + (from << tier->shift), (to - from) << tier->shift);
}

/* Memory first, then the word (release, by the swap; pairs with shmq_tier_committed). Doubles, or takes what there is. */
static int extend(struct shmq_queue *q, uint32_t t, uint32_t wanted) {
    const struct shmq_tier *tier = &q->layout.tier[t];
    uint64_t word = shmq_load(&q->header->tier[t].committed);
    uint64_t from = (uint32_t)word, step = from;
    if (from >= tier->granules) return SHMQ_FULL;
    if (shmq_stop(q)) return SHMQ_STOPPED;
    uint64_t most = EXTENT_BYTES_MAX >> tier->shift, least = EXTENT_BYTES_MIN >> tier->shift;
    if (least < wanted) least = wanted;
    if (step > most) step = most;
    if (step < least) step = least;
    if (step > tier->granules - from) step = tier->granules - from;
    int r = commit_granules(q, tier, from, from + step);
    for (; r == SHMQ_NO_MEMORY && step / 2 >= least; r = commit_granules(q, tier, from, from + step)) step /= 2;
    if (r) return r;
    SHMQ_CAS_UNLESS(TIERS_RELAXED, &q->header->tier[t].committed, word, ((word >> 32) + 1) << 32 | (from + step));
    shmq_bell_supervisor(q); /* all queues together may be above their mark now */
    return SHMQ_OK;
}

/* Where the next candidate behind a live owner is: behind its whole run when that is known to contain this granule. */
static uint32_t behind(struct shmq_queue *q, uint32_t t, uint32_t granule, uint32_t slot) {
    struct shmq_slot *s = shmq_slot_at(q, slot);
    uint64_t place = atomic_load_explicit(&s->place, memory_order_relaxed);
    uint32_t start = shmq_place_start(place), count = shmq_place_count(place);
    bool past_writing = shmq_ctl_state(shmq_load(&s->ctl)) != SHMQ_WRITING;
    bool contains = shmq_place_tier(place) == t + 1 && start <= granule && granule - start < count;
    return past_writing && contains ? start + count : granule + 1;
}

static void give_back(struct shmq_queue *q, uint32_t t, uint32_t start, uint32_t n, uint64_t mine) {
    for (uint32_t i = 0; i < n; i++) shmq_cas(owner_word(q, t, start + i), mine, 0);
}

/* Swaps `n` owner words from the stale values seen to mine. Returns n, or the index that failed, with mine given back. */
static uint32_t claim_run(struct shmq_queue *q, uint32_t t, uint32_t start, uint32_t n, const uint64_t *seen, uint64_t mine) {
    for (uint32_t i = 0; i < n; i++) {
        if (shmq_cas(owner_word(q, t, start + i), seen[i], mine)) continue;
        give_back(q, t, start, i, mine);
        return i;
    }
    return n;
}

/* One walk. OK: *start is ours; FULL: no run; STALE: a swap failed, so "no run" is not known. */
static int walk(struct shmq_queue *q, uint32_t t, uint32_t from, uint32_t n, uint64_t mine, uint32_t *start) {
    uint64_t seen[SHMQ_RUN_MAX];
    uint32_t to = shmq_tier_committed(q, t), run = 0, slot;
    int none = SHMQ_FULL;
    for (uint32_t i = from; i < to;) {
        uint64_t word = shmq_load(owner_word(q, t, i));
        if (shmq_arena_owner_live(q, word, &slot)) {
            i = behind(q, t, i, slot);
            run = 0;
            continue;
        }
        seen[run++] = word;
        i++;
        if (run < n) continue;
        uint32_t done = claim_run(q, t, i - n, n, seen, mine);
        if (done == n) {
            *start = i - n;
            if (i <= shmq_tier_committed(q, t)) return SHMQ_OK;
            give_back(q, t, *start, n, mine); /* the end of the tier went while we looked (shrink.c) */
            return SHMQ_STALE;
        }
        none = SHMQ_STALE;
        i = i - n + done + 1;
        run = 0;
    }
    return none;
}

static int find_run(struct shmq_queue *q, uint32_t t, uint32_t n, uint64_t mine, uint32_t *start) {
    shmq_word *hint = &q->header->tier[t].hint;
    uint32_t from = (uint32_t)atomic_load_explicit(hint, memory_order_relaxed);
    for (uint32_t tries = 0; tries < SHMQ_LOOP_MAX; tries++) {
        int r = walk(q, t, from, n, mine, start);
        if (r == SHMQ_OK) {
            atomic_store_explicit(hint, *start + n, memory_order_relaxed);
            return SHMQ_OK;
        }
        if (r == SHMQ_STALE || from) {
            from = 0;
            continue;
        }
        r = extend(q, t, n);
        if (r != SHMQ_OK) return r;
    }
    return SHMQ_DAMAGED;
}

/* One body of the largest size, with its envelope, always fits an empty arena. */
static bool fits(const struct shmq_queue *q, uint64_t used, uint64_t charge) {
    return (int64_t)used <= 0 || used + charge <= q->geometry.arena_bytes + (1u << 20);
}

static int claim_charged(struct shmq_queue *q, uint32_t t, uint32_t n, uint32_t slot, uint64_t ctl, uint64_t *place) {
    uint64_t charge = (uint64_t)n << q->layout.tier[t].shift;
    uint32_t start = 0;
    if (!fits(q, shmq_load(&q->header->arena_used), charge)) return SHMQ_FULL; /* before the search: a charge would refuse others meanwhile */
    int r = find_run(q, t, n, owner_of(slot, ctl), &start);
    if (r != SHMQ_OK) return r;
    *place = (uint64_t)start << 32 | (uint64_t)n << 16 | (uint64_t)(t + 1) << 8;
    /* before the charge: a death from here on is reaped with it. Too low a sum is harmless, too high a one refuses bodies. */
    atomic_store_explicit(&shmq_slot_at(q, slot)->place, *place, memory_order_relaxed);
    uint64_t used = atomic_fetch_add_explicit(&q->header->arena_used, charge, memory_order_release);
    return fits(q, used, charge) ? SHMQ_OK : SHMQ_FULL; /* others were faster: the abort takes run and charge back */
}

int shmq_arena_claim(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t bytes, uint64_t *place) {
    uint32_t t = 0;
    while (t + 1 < SHMQ_TIERS && bytes > tier_bytes_max[t]) t++;
    const struct shmq_tier *tier = &q->layout.tier[t];
    uint64_t n = (bytes + (UINT64_C(1) << tier->shift) - 1) >> tier->shift;
    if (n > SHMQ_RUN_MAX || n > tier->granules) return SHMQ_TOO_LARGE;
    uint64_t freed = shmq_freed_sum(q) - shmq_load(&q->header->given_up);
    int r = claim_charged(q, t, (uint32_t)n, slot, ctl, place);
    if (r != SHMQ_OK) shmq_bell_lack(q, freed, true, r == SHMQ_STOPPED);
    return r;
}

static uint64_t charge_of(const struct shmq_queue *q, uint64_t place) {
    uint32_t t = shmq_place_tier(place) - 1;
    return t < SHMQ_TIERS ? (uint64_t)shmq_place_count(place) << q->layout.tier[t].shift : 0;
}

void shmq_arena_keep(struct shmq_queue *q, uint64_t place) {
    atomic_fetch_add_explicit(&q->header->arena_used, charge_of(q, place), memory_order_relaxed);
}

/* Before its slot is freed: a death in between leaves too low a sum, which is harmless. */
void shmq_arena_release(struct shmq_queue *q, uint64_t place) {
    uint32_t t = shmq_place_tier(place) - 1;
    if (t >= SHMQ_TIERS) return;
    atomic_fetch_sub_explicit(&q->header->arena_used, charge_of(q, place), memory_order_relaxed);
    shmq_word *hint = &q->header->tier[t].hint;
    if (shmq_place_start(place) < atomic_load_explicit(hint, memory_order_relaxed))
        atomic_store_explicit(hint, shmq_place_start(place), memory_order_relaxed);
}

uint8_t *shmq_arena_at(const struct shmq_queue *q, uint64_t place, uint64_t bytes) {
    uint32_t t = shmq_place_tier(place) - 1;
    if (t >= SHMQ_TIERS) return NULL;
    const struct shmq_tier *tier = &q->layout.tier[t];
    uint64_t start = shmq_place_start(place), count = shmq_place_count(place);
    uint32_t committed = (uint32_t)shmq_load(&q->header->tier[t].committed);
    if (committed > tier->granules || start + count > committed || bytes > count << tier->shift) return NULL;
    return q->base + tier->data + (start << tier->shift);
}
