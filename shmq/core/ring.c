/* ring.c - series of rings that hold references (slot, generation) to messages. A reference is a hint: only the control word of
 * its slot delivers. Each half-done step is finished by whoever meets it:
 *
 *     enqueue:  entry EMPTY(lap) -> FULL(lap, ref)      died here: the next enqueuer or taker moves tail
 *               tail t -> t+1
 *     take:     (control word, by the caller)           died here: the reference is stale, the next taker clears it
 *               tail h -> h+1 if it still is h
 *               entry FULL(lap) -> EMPTY(lap+1)         died here: the next taker, who sees lap+1, moves head
 *               head h -> h+1, only when the entry was seen to be of lap+1
 *
 * All swaps are acq_rel: clearing an entry must not be seen before tail's advance, nor sealing before back's. */
#include "shmq_core.h"

#define LAP_MASK 0xfffffu
#ifndef SHMQ_STALE_MAX
#define SHMQ_STALE_MAX SHMQ_WINDOW /* a walk that passes so many gathers what is live behind them; harnesses with tiny rings say less */
#endif
#define WALKS_MAX 8u /* through a returned ring, when others are at its head: its order is best effort then */

/* ---- where the series are ---- */
static struct shmq_ring level_ring(struct shmq_queue *q, uint32_t level, bool returned) {
    const struct shmq_layout *l = &q->layout;
    uint8_t *block = q->base + l->levels + level * l->level_stride;
    uint8_t *rest = q->base + l->series + level * (l->main_stride + l->returned_stride);
    uint8_t *parts = block + 2 * sizeof(struct shmq_ends);
    if (returned) {
        block += sizeof(struct shmq_ends);
        parts += l->part_bytes;
        rest += l->main_stride;
    }
    return (struct shmq_ring){.ends = (struct shmq_ends *)(void *)block, .first = parts, .rest = rest,
                              .last = returned ? l->returned_last : l->main_last, .level = (uint16_t)level,
                              .kind = returned ? SHMQ_RETURNED : SHMQ_MAIN};
}

struct shmq_ring shmq_ring_main(struct shmq_queue *q, uint32_t level) { return level_ring(q, level, false); }
struct shmq_ring shmq_ring_returned(struct shmq_queue *q, uint32_t level) { return level_ring(q, level, true); }

static struct shmq_ring internal_ring(struct shmq_queue *q, struct shmq_ends *ends, uint64_t first, uint32_t nth) {
    const struct shmq_layout *l = &q->layout;
    uint64_t rest = l->series + q->geometry.levels * (l->main_stride + l->returned_stride) + nth * l->returned_stride;
    return (struct shmq_ring){.ends = ends, .first = q->base + first, .rest = q->base + rest, .last = l->returned_last, .kind = SHMQ_INTERNAL};
}

struct shmq_ring shmq_ring_dead(struct shmq_queue *q) { return internal_ring(q, &q->header->dead, q->layout.dead, 0); }
struct shmq_ring shmq_ring_delayed(struct shmq_queue *q) { return internal_ring(q, &q->header->delayed, q->layout.delayed, 1); }

struct shmq_part *shmq_ring_part(const struct shmq_queue *q, const struct shmq_ring *r, uint64_t k, uint32_t *bits) {
    if (k > r->last) return NULL; /* a hostile front or back */
    uint64_t first_bits = (uint64_t)__builtin_ctz(q->geometry.ring_entries);
    *bits = (uint32_t)(first_bits + k);
    if (k == 0) return (struct shmq_part *)(void *)r->first;
    uint64_t before = sizeof(struct shmq_part) * (k - 1) + ((UINT64_C(1) << (first_bits + k)) - (UINT64_C(2) << first_bits)) * 8;
    before = (before + SHMQ_LINE - 1) & ~(uint64_t)(SHMQ_LINE - 1); /* only a ring of 8 entries ends inside a line */
    return (struct shmq_part *)(void *)(r->rest + before);
}

/* ---- enqueue ---- */
int shmq_ring_put(struct shmq_part *part, uint32_t bits, uint32_t slot, uint32_t generation) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        uint64_t t = shmq_load(&part->tail);
        shmq_word *entry = &part->entry[shmq_entry_index(t, bits)];
        uint64_t e = shmq_load(entry), lap = t >> bits & LAP_MASK;
        if (e == shmq_entry_empty(lap)) {
            if (!shmq_cas(entry, e, shmq_entry_full(lap, generation, slot))) continue;
            shmq_cas(&part->tail, t, t + 1);
            bool lapped = shmq_load(&part->tail) - t > UINT64_C(1) << bits; /* stopped for a whole wrap of laps */
            return lapped ? SHMQ_PUT_LAPPED : SHMQ_PUT_DONE;
        }
        if (e == shmq_entry_sealed(lap)) return SHMQ_PUT_SEALED;
        bool half_done = (shmq_entry_is_full(e) && shmq_entry_lap(e) == lap) || shmq_entry_lap(e) == ((lap + 1) & LAP_MASK);
        if (half_done) {
            shmq_cas(&part->tail, t, t + 1);
            continue;
        }
        if (shmq_load(&part->tail) == t) return SHMQ_PUT_FULL;
    }
    return SHMQ_DAMAGED;
}

int shmq_ring_enqueue(struct shmq_queue *q, const struct shmq_ring *r, uint32_t slot, uint32_t generation) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        uint32_t bits;
        uint64_t k = shmq_load(&r->ends->back);
        struct shmq_part *part = shmq_ring_part(q, r, k, &bits);
        if (!part) return SHMQ_DAMAGED;
        int put = shmq_ring_put(part, bits, slot, generation);
        if (put == SHMQ_PUT_DONE) return SHMQ_OK;
        if (put < 0) return put;
        if (put == SHMQ_PUT_SEALED && shmq_load(&r->ends->back) == k) return SHMQ_DAMAGED; /* only rings before back are sealed */
        if (put != SHMQ_PUT_FULL) continue;
        int room = shmq_ring_make_room(q, r, k);
        if (room != SHMQ_OK) return room;
    }
    return SHMQ_DAMAGED;
}

/* ---- take ---- */
bool shmq_reference_live(struct shmq_queue *q, uint64_t entry, uint32_t state, uint64_t *ctl) {
    uint32_t slot = shmq_entry_slot(entry);
    if (slot >= q->slots_known && slot >= shmq_slots_committed(q)) return false; /* a mark, or hostile */
    /* acquire: pairs with READY's release, body and metadata are there */
    uint64_t c = shmq_load(&shmq_slot_at(q, slot)->ctl);
    *ctl = c;
    return shmq_ctl_state(c) == state && (shmq_ctl_generation(c) & 0xfffffu) == shmq_entry_generation(entry);
}

static uint64_t mark_of(uint64_t lap) { return shmq_entry_full(lap, 0, SHMQ_NO_SLOT); }

/* A mark may come in between: somebody took or moved the reference. Another reference may come too (see move), and is not ours to clear. */
int shmq_ring_clear(struct shmq_queue *q, const struct shmq_look *look) {
    (void)q;
    struct shmq_part *part = look->part;
    uint64_t h = look->position, lap = h >> look->bits & LAP_MASK, next = (lap + 1) & LAP_MASK, e = look->entry;
    if (!SHMQ_BROKEN(TAIL_NOT_HELPED) && shmq_load(&part->tail) == h) shmq_cas(&part->tail, h, h + 1); /* tail never behind head */
    shmq_word *entry = &part->entry[shmq_entry_index(h, look->bits)];
    while (!shmq_cas(entry, e, shmq_entry_empty(next))) {
        e = shmq_load(entry);
        if (SHMQ_BROKEN(HEAD_MOVED_BLINDLY)) break;
        if (SHMQ_BROKEN(CLEARS_WHAT_CAME) && shmq_entry_is_full(e) && shmq_entry_lap(e) == lap) continue;
        if (e == mark_of(lap)) continue;
        if (shmq_entry_lap(e) != next) return SHMQ_OK; /* not seen to be cleared: head is not ours to move */
        break;
    }
    shmq_cas(&part->head, h, h + 1);
    return SHMQ_OK;
}

/* The front ring is empty and not the last one: seal it, so that a late enqueuer turns to `back`, and go on to the next. */
static void seal(const struct shmq_ring *r, shmq_word *entry, uint64_t k, uint64_t lap) {
    if (shmq_cas(entry, shmq_entry_empty(lap), shmq_entry_sealed(lap))) shmq_cas(&r->ends->front, k, k + 1);
}

int shmq_ring_look(struct shmq_queue *q, const struct shmq_ring *r, uint32_t state, struct shmq_look *out) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        uint32_t bits;
        uint64_t k = shmq_load(&r->ends->front);
        struct shmq_part *part = shmq_ring_part(q, r, k, &bits);
        if (!part) return SHMQ_DAMAGED;
        uint64_t h = shmq_load(&part->head), lap = h >> bits & LAP_MASK;
        shmq_word *entry = &part->entry[shmq_entry_index(h, bits)];
        uint64_t e = shmq_load(entry);
        if (e == shmq_entry_empty(lap)) {
            if (shmq_load(&part->head) != h) continue;
            if (shmq_load(&r->ends->back) == k) return SHMQ_EMPTY;
            seal(r, entry, k, lap);
        } else if (e == shmq_entry_sealed(lap)) {
            shmq_cas(&r->ends->front, k, k + 1);
        } else if (shmq_entry_lap(e) == ((lap + 1) & LAP_MASK) && !(SHMQ_BROKEN(HALF_DONE_TAKE_UNSEEN) && shmq_entry_is_full(e))) {
            shmq_cas(&part->head, h, h + 1); /* a half-done take; EMPTY or FULL */
        } else if (shmq_entry_lap(e) == lap && shmq_entry_is_full(e)) {
            *out = (struct shmq_look){.part = part, .position = h, .entry = e, .bits = bits, .slot = shmq_entry_slot(e)};
            if (shmq_reference_live(q, e, state, &out->ctl)) return SHMQ_OK;
            shmq_ring_clear(q, out);
        } else if (shmq_load(&part->head) == h) {
            return SHMQ_DAMAGED; /* of no lap that head can meet; had only our head been stale, it would have moved on */
        }
    }
    return SHMQ_DAMAGED;
}

bool shmq_ring_may_have(struct shmq_queue *q, const struct shmq_ring *r) {
    uint32_t bits;
    uint64_t k = shmq_load(&r->ends->front);
    struct shmq_part *part = shmq_ring_part(q, r, k, &bits);
    if (!part) return true; /* damaged: the take will say so */
    uint64_t h = shmq_load(&part->head);
    uint64_t e = shmq_load(&part->entry[shmq_entry_index(h, bits)]);
    if (e != shmq_entry_empty(h >> bits & LAP_MASK) || shmq_load(&part->head) != h) return true;
    return shmq_load(&r->ends->back) != k;
}

/* ---- the returned ring: lowest sequence first ---- */
struct noted {
    shmq_word *word;
    uint64_t entry;
    uint32_t nth; /* in the order of the walk */
};
struct gathering { /* what a walk passes: all live references, and the last stale ones */
    struct noted live[SHMQ_WINDOW], stale[SHMQ_WINDOW];
};
struct lowest {
    struct shmq_look best;
    uint64_t sequence;
    uint32_t live, stale;
    struct gathering *gathering; /* or NULL */
};

static void note(const struct lowest *low, struct noted *at, const struct shmq_look *look) {
    *at = (struct noted){&look->part->entry[shmq_entry_index(look->position, look->bits)], look->entry, low->live + low->stale};
}

static void pass(struct lowest *low, const struct shmq_look *look) {
    if (low->gathering) note(low, &low->gathering->stale[low->stale % SHMQ_WINDOW], look);
    low->stale++;
}

static void consider(struct shmq_queue *q, struct lowest *low, const struct shmq_look *look) {
    if (low->gathering && low->live < SHMQ_WINDOW) note(low, &low->gathering->live[low->live], look);
    uint64_t sequence = atomic_load_explicit(&shmq_slot_at(q, look->slot)->sequence, memory_order_relaxed);
    if (low->live++ && sequence >= low->sequence) return;
    low->best = *look;
    low->sequence = sequence;
}

static void consider_part(struct shmq_queue *q, struct lowest *low, struct shmq_part *part, uint32_t bits, uint64_t from) {
    uint64_t tail = shmq_load(&part->tail), size = UINT64_C(1) << bits;
    uint64_t end = tail - from <= size ? tail + 1 : from + size; /* tail included: a half-done enqueue */
    for (uint64_t p = from; p != end && low->live < SHMQ_WINDOW; p++) {
        if (SHMQ_BROKEN(WINDOW_OF_POSITIONS)) low->live++;
        struct shmq_look look = {.part = part, .position = p, .bits = bits};
        look.entry = shmq_load(&part->entry[shmq_entry_index(p, bits)]);
        if (!shmq_entry_is_full(look.entry) || shmq_entry_lap(look.entry) != (p >> bits & LAP_MASK)) continue;
        look.slot = shmq_entry_slot(look.entry);
        if (shmq_reference_live(q, look.entry, SHMQ_READY, &look.ctl)) consider(q, low, &look);
        else pass(low, &look);
    }
}

/* One walk. *moved: a head moved meanwhile, so a turn of its ring may have carried a reference from before us to behind the end we saw. */
static int walk(struct shmq_queue *q, const struct shmq_ring *r, struct lowest *low, bool *moved) {
    struct shmq_look head;
    int found = shmq_ring_look(q, r, SHMQ_READY, &head);
    if (found != SHMQ_OK) return found;
    consider(q, low, &head);
    consider_part(q, low, head.part, head.bits, head.position + 1);
    *moved = shmq_load(&head.part->head) != head.position;
    uint64_t back = shmq_load(&r->ends->back);
    for (uint64_t k = shmq_load(&r->ends->front) + 1; k <= back && low->live < SHMQ_WINDOW; k++) {
        uint32_t bits;
        struct shmq_part *part = shmq_ring_part(q, r, k, &bits);
        if (!part) return SHMQ_DAMAGED;
        uint64_t h = shmq_load(&part->head);
        consider_part(q, low, part, bits, h);
        *moved |= shmq_load(&part->head) != h;
    }
    return SHMQ_OK;
}

/* A live reference goes into the place of a stale one behind it: first there, then its old place is marked. A death in between leaves one
 * too many. Who takes, turns or moves it meanwhile has changed the old place before us: then the copy goes again. While the old place is
 * unchanged no head has passed it, so nobody has seen a head at the new place and means to clear what was there. */
static void move(const struct noted *from, const struct noted *to) {
    uint64_t lap = shmq_entry_lap(to->entry), mark = mark_of(shmq_entry_lap(from->entry));
    uint64_t copy = shmq_entry_full(lap, shmq_entry_generation(from->entry), shmq_entry_slot(from->entry));
    if (SHMQ_BROKEN(MOVE_MARKS_FIRST) && !shmq_cas(from->word, from->entry, mark)) return;
    if (!shmq_cas(to->word, to->entry, copy) || SHMQ_BROKEN(MOVE_MARKS_FIRST)) return;
    if (!shmq_cas(from->word, from->entry, mark)) shmq_cas(to->word, copy, mark_of(lap));
}

/* Messages that stay at the head while those behind them are taken leave more and more marks between, which every take would walk through.
 * So they move behind the marks, and head may clear these. All that moves is in the window, and passes nothing live outside it: what
 * later windows contain stays the same. Moves are paid for by the takes that left the marks. */
static __attribute__((noinline)) void gather(struct shmq_queue *q, const struct shmq_ring *r) {
    struct gathering g;
    struct lowest low = {.gathering = &g};
    bool moved;
    if (walk(q, r, &low, &moved) != SHMQ_OK) return;
    for (uint32_t i = 0; i < low.live && i < low.stale && i < SHMQ_WINDOW; i++) {
        const struct noted *to = &g.stale[(low.stale - 1 - i) % SHMQ_WINDOW];
        if (to->nth < g.live[i].nth) break;
        move(&g.live[i], to);
    }
}

int shmq_ring_lowest(struct shmq_queue *q, const struct shmq_ring *r, struct shmq_look *out) {
    int found = SHMQ_OK;
    bool again = true;
    for (uint32_t n = 0; n < WALKS_MAX && found == SHMQ_OK && again; n++) {
        struct lowest low = {.live = 0};
        found = walk(q, r, &low, &again);
        *out = low.best;
        if (low.stale < SHMQ_STALE_MAX || n + 1 == WALKS_MAX) continue;
        gather(q, r);
        again = true;
    }
    return found;
}

void shmq_ring_mark(const struct shmq_look *look) {
    if (SHMQ_BROKEN(MIDDLE_TAKE_LEAVES)) return;
    shmq_cas(&look->part->entry[shmq_entry_index(look->position, look->bits)], look->entry, mark_of(look->position >> look->bits & LAP_MASK));
}
