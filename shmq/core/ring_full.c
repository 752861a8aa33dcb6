/* ring_full.c - what an enqueuer does when the ring at `back` is full: grow to the next ring of the series, or, at the largest one
 * (or when there is no memory), get rid of stale references: spill a main ring into the returned one, rotate a returned ring in place.
 * Nothing here is an error: the message is READY already; what finds no room is left to the healer. So that this is rare, who commits
 * slots commits rings for them in the level it publishes to, and a publish secures the next ring from half of this one on. */
#include "shmq_core.h"

#define LAP_MASK 0xfffffu

/* Not full: the entry at tail is free, or belongs to a half-done step that whoever enqueues will finish. */
static bool has_room(struct shmq_part *part, uint32_t bits) {
    uint64_t t = shmq_load(&part->tail), e = shmq_load(&part->entry[shmq_entry_index(t, bits)]), lap = t >> bits & LAP_MASK;
    if (shmq_entry_lap(e) == ((lap + 1) & LAP_MASK)) return true;
    return shmq_entry_lap(e) == lap && (shmq_entry_is_full(e) || e == shmq_entry_empty(lap) || e == shmq_entry_sealed(lap));
}

static int commit_next(struct shmq_queue *q, const struct shmq_ring *r, uint64_t k) {
    uint32_t bits;
    struct shmq_part *next = k < r->last ? shmq_ring_part(q, r, k + 1, &bits) : NULL;
    struct shmq_room *room = r->kind == SHMQ_MAIN ? &q->room[r->level] : NULL;
    if (!next) return SHMQ_FULL;
    if (room && room->committed > k) return SHMQ_OK;
    int committed = shmq_commit_memory(q, (uint64_t)((uint8_t *)next - q->base), sizeof *next + (UINT64_C(8) << bits));
    if (committed == SHMQ_OK && room) room->committed = (uint32_t)k + 1;
    return committed;
}

int shmq_ring_reserve(struct shmq_queue *q, uint32_t level, uint64_t entries) {
    struct shmq_ring r = shmq_ring_main(q, level);
    uint64_t first = q->geometry.ring_entries;
    for (uint64_t k = shmq_load(&r.ends->back); k < r.last && first << k < entries; k++) {
        int committed = commit_next(q, &r, k);
        if (committed != SHMQ_OK) return committed;
    }
    return SHMQ_OK;
}

/* Head is the takers' word, so it is looked at once in a 32nd of a ring: sixteen producers fill half of it between two looks. In the last
 * eighth of a ring that can't grow and is smaller than the queue there is no room for another publish: others may be on their way. */
int shmq_ring_secure(struct shmq_queue *q, uint32_t level) {
    struct shmq_ring r = shmq_ring_main(q, level);
    uint64_t k = shmq_load(&r.ends->back);
    uint32_t bits;
    struct shmq_part *part = shmq_ring_part(q, &r, k, &bits);
    if (!part) return SHMQ_DAMAGED;
    uint64_t tail = shmq_load(&part->tail), head = shmq_load(&part->head), size = UINT64_C(1) << bits;
    uint64_t used = tail > head ? tail - head : 0;
    q->room[level].left = (uint32_t)(size / 32);
    if (used < size / 2) return SHMQ_OK;
    int next = commit_next(q, &r, k);
    if (next != SHMQ_NO_MEMORY) return next == SHMQ_FULL ? SHMQ_OK : next; /* the largest one spills */
    q->room[level].left = 0;
    return used < size - size / 8 || size >= shmq_slots_committed(q) ? SHMQ_OK : SHMQ_NO_MEMORY;
}

/* Memory first, then the swap: whoever sees the new back may touch it (acquire in shmq_ring_enqueue, shmq_ring_look). */
static int grow(struct shmq_queue *q, const struct shmq_ring *r, uint64_t k) {
    if (commit_next(q, r, k) != SHMQ_OK) return SHMQ_FULL; /* counts as being of its largest size */
    SHMQ_CAS_UNLESS(BACK_RELAXED, &r->ends->back, k, k + 1);
    return SHMQ_OK;
}

static int spill(struct shmq_queue *q, const struct shmq_ring *main, struct shmq_part *back, uint32_t bits) {
    struct shmq_ring returned = shmq_ring_returned(q, main->level);
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX && !has_room(back, bits); n++) {
        struct shmq_look look;
        int found = shmq_ring_look(q, main, SHMQ_READY, &look); /* clears what is stale, seals like a taker */
        if (found == SHMQ_EMPTY) return has_room(back, bits) ? SHMQ_OK : SHMQ_FULL; /* empty and full: damaged; not ours to say */
        if (found != SHMQ_OK) return found;
        if (has_room(back, bits)) break;
        if (SHMQ_BROKEN(SPILL_CLEARS_FIRST)) shmq_ring_clear(q, &look);
        int moved = shmq_ring_enqueue(q, &returned, look.slot, shmq_ctl_generation(look.ctl));
        if (moved != SHMQ_OK) return moved; /* first there, then cleared here */
        if (!SHMQ_BROKEN(SPILL_CLEARS_FIRST)) shmq_ring_clear(q, &look);
    }
    return SHMQ_OK;
}

static uint64_t count_stale(struct shmq_queue *q, struct shmq_part *part, uint32_t bits) {
    uint64_t stale = 0, ctl;
    for (uint64_t i = 0; i < UINT64_C(1) << bits; i++) {
        uint64_t e = shmq_load(&part->entry[i]);
        stale += !shmq_entry_is_full(e) || !shmq_reference_live(q, e, SHMQ_READY, &ctl);
    }
    return stale;
}

/* One position of a full ring: position h = t - size and position t share an entry, so one swap moves a live reference from head to
 * tail. Valid only while the ring is full: t, then h, then the entry. */
static void rotate_one(struct shmq_queue *q, struct shmq_part *part, uint32_t bits) {
    uint64_t t = shmq_load(&part->tail), h = shmq_load(&part->head), ctl;
    shmq_word *entry = &part->entry[shmq_entry_index(h, bits)];
    uint64_t e = shmq_load(entry), lap = h >> bits & LAP_MASK;
    if (!shmq_entry_is_full(e) || shmq_entry_lap(e) != lap) { /* a half-done step of somebody else */
        if (shmq_entry_lap(e) == ((lap + 1) & LAP_MASK)) shmq_cas(&part->head, h, h + 1);
        return;
    }
    struct shmq_look look = {.part = part, .position = h, .entry = e, .bits = bits, .slot = shmq_entry_slot(e)};
    if (!shmq_reference_live(q, e, SHMQ_READY, &ctl)) {
        shmq_ring_clear(q, &look);
    } else if (SHMQ_BROKEN(ROTATES_WHEN_NOT_FULL) || t - h == UINT64_C(1) << bits) {
        if (!shmq_cas(entry, e, shmq_entry_full((lap + 1) & LAP_MASK, shmq_entry_generation(e), look.slot))) return;
        shmq_cas(&part->tail, t, t + 1);
        shmq_cas(&part->head, h, h + 1);
    } else if (shmq_ring_put(part, bits, look.slot, shmq_entry_generation(e)) == SHMQ_PUT_DONE) {
        shmq_ring_clear(q, &look); /* no longer full: first behind, then cleared here */
    }
}

/* Turns the ring once, dropping stale references. OK when there is room afterwards. */
static int rotate(struct shmq_queue *q, struct shmq_part *part, uint32_t bits) {
    for (uint64_t n = 0; n < UINT64_C(1) << bits; n++) rotate_one(q, part, bits);
    return has_room(part, bits) ? SHMQ_OK : SHMQ_FULL;
}

int shmq_ring_make_room(struct shmq_queue *q, const struct shmq_ring *r, uint64_t k) {
    uint32_t bits;
    struct shmq_part *part = shmq_ring_part(q, r, k, &bits);
    if (!part) return SHMQ_DAMAGED;
    uint64_t stale = r->kind == SHMQ_RETURNED ? count_stale(q, part, bits) : 0;
    if (stale >= (UINT64_C(1) << bits) / 2 && stale && rotate(q, part, bits) == SHMQ_OK) return SHMQ_OK;
    if (grow(q, r, k) == SHMQ_OK) return SHMQ_OK;
    if (shmq_load(&r->ends->back) != k) return SHMQ_OK; /* somebody else grew it */
    if (r->kind == SHMQ_MAIN) return spill(q, r, part, bits);
    if (r->kind == SHMQ_RETURNED && stale) return rotate(q, part, bits);
    return SHMQ_FULL;
}
