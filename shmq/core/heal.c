/* heal.c - the healer puts back hints that deaths took away: a FREE slot without its bit, a READY slot that no reference leads to.
 * A pass marks what the rings refer to, then walks the slots. READY without a mark is only a suspect: its publisher may stand between
 * commit and enqueue. It is referenced when the very same control word is unmarked in a later pass, at least 100 ms on. A healer
 * that errs makes a duplicate reference, which is harmless. Steps are bounded; nothing is locked. */
#include "shmq_core.h"

#include <stdlib.h>
#include <string.h>

#define SECOND_LOOK_NS UINT64_C(100000000)
#define ENTRIES_STEP 65536u
#define SLOTS_STEP 16384u

struct suspect {
    uint64_t ctl, since;
    uint32_t slot;
};
struct suspects { /* in order of slots */
    struct suspect *list;
    size_t n, room;
};
struct shmq_heal {
    uint8_t *marks; /* one bit a slot below `high`, of this pass */
    uint32_t high, committed, slot, series;
    uint64_t part, position, left; /* where the walk through the rings stands, and how many entries of the part it still looks at */
    struct suspects before, now;
    size_t before_at;
    uint64_t tally[16], quiet_since; /* at the start of the pass, and when they were first seen so; 0: never looked */
    uint64_t states[SHMQ_STATES];
    uint64_t arena, ready_bytes;
    uint64_t depth[2], times; /* of the header, at the start, and how often somebody had counted */
    bool rings_done, entered, rested;
};

static void forget_pass(struct shmq_heal *h) {
    free(h->marks);
    h->marks = NULL;
}

void shmq_heal_forget(struct shmq_queue *q) {
    if (!q->heal) return;
    forget_pass(q->heal);
    free(q->heal->before.list);
    free(q->heal->now.list);
    free(q->heal);
    q->heal = NULL;
}

static int start_pass(struct shmq_queue *q, uint64_t now) {
    struct shmq_heal *h = q->heal;
    h->rested = shmq_counting_rests(q, &h->times); /* before all else: who is through is in what follows */
    h->high = shmq_slots_high(q);
    h->committed = shmq_slots_committed(q);
    h->marks = calloc(1, h->high / 8 + 1);
    if (!h->marks) return -ENOMEM;
    h->slot = h->series = 0;
    h->part = h->position = 0;
    h->before_at = 0;
    h->rings_done = h->entered = false;
    h->arena = h->ready_bytes = 0;
    memset(h->states, 0, sizeof h->states);
    uint64_t tally[16];
    shmq_tally_sum(q, tally);
    if (!h->quiet_since || memcmp(tally, h->tally, sizeof tally) != 0) h->quiet_since = now;
    memcpy(h->tally, tally, sizeof tally);
    h->depth[0] = shmq_load(&q->header->depth[0]);
    h->depth[1] = shmq_load(&q->header->depth[1]);
    return 0;
}

/* ---- what the rings refer to ---- */
static void mark_entry(struct shmq_queue *q, struct shmq_heal *h, uint64_t e, uint64_t lap) {
    uint64_t ctl;
    if (!shmq_entry_is_full(e) || shmq_entry_lap(e) != (lap & 0xfffffu) || shmq_entry_slot(e) >= h->high) return;
    if (shmq_reference_live(q, e, SHMQ_READY, &ctl)) h->marks[shmq_entry_slot(e) / 8] |= (uint8_t)(1u << shmq_entry_slot(e) % 8);
}

/* One part from where the walk stands, head to tail, tail included. Returns how many entries; *whole says whether it is through: at the tail,
 * or after as many entries as the part has, since a tail may move faster than we do. What lies behind those came after the pass began. */
static uint32_t mark_part(struct shmq_queue *q, struct shmq_heal *h, struct shmq_part *part, uint32_t bits, uint32_t most, bool *whole) {
    uint64_t head = shmq_load(&part->head), tail = shmq_load(&part->tail);
    if (!h->entered) h->left = UINT64_C(1) << bits;
    uint64_t from = h->entered && h->position > head ? h->position : head;
    uint64_t end = tail - from < h->left ? tail + 1 : from + h->left;
    uint32_t n = 0;
    if (tail + 1 < from) end = from;
    for (; from != end && n < most; from++, n++) mark_entry(q, h, shmq_load(&part->entry[shmq_entry_index(from, bits)]), from >> bits);
    h->position = from;
    h->left -= n;
    h->entered = true;
    *whole = from == end;
    return n + 1;
}

static bool series_at(struct shmq_queue *q, uint32_t series, struct shmq_ring *r) {
    uint32_t level = series / 2;
    if (!shmq_level_committed(q, level)) return false;
    *r = series % 2 ? shmq_ring_returned(q, level) : shmq_ring_main(q, level);
    return true;
}

static void next_series(struct shmq_heal *h) {
    h->series++;
    h->part = h->position = 0;
    h->entered = false;
}

static void mark_step(struct shmq_queue *q, struct shmq_heal *h, uint32_t most) {
    for (uint32_t n = 0; n < most && h->series < 2 * q->geometry.levels;) {
        struct shmq_ring r;
        uint32_t bits;
        bool whole;
        n++;
        if (!series_at(q, h->series, &r)) {
            next_series(h);
            continue;
        }
        uint64_t front = shmq_load(&r.ends->front), back = shmq_load(&r.ends->back);
        if (h->part < front) {
            h->part = front;
            h->entered = false;
        }
        struct shmq_part *part = h->part <= back ? shmq_ring_part(q, &r, h->part, &bits) : NULL;
        if (!part) {
            next_series(h);
            continue;
        }
        n += mark_part(q, h, part, bits, most - n + 1, &whole);
        if (!whole) return;
        h->part++;
        h->entered = false;
    }
    h->rings_done = h->series >= 2 * q->geometry.levels;
}

/* ---- the slots ---- */
static int suspect(struct shmq_heal *h, uint32_t slot, uint64_t ctl, uint64_t since) {
    struct suspects *s = &h->now;
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 16;
        struct suspect *grown = realloc(s->list, room * sizeof *grown);
        if (!grown) return -ENOMEM;
        s->list = grown;
        s->room = room;
    }
    s->list[s->n++] = (struct suspect){.ctl = ctl, .since = since, .slot = slot};
    return 0;
}

static int heal_ready(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t now, struct shmq_heal_report *out) {
    struct shmq_heal *h = q->heal;
    while (h->before_at < h->before.n && h->before.list[h->before_at].slot < slot) h->before_at++;
    const struct suspect *earlier = h->before_at < h->before.n ? &h->before.list[h->before_at] : NULL;
    const struct suspect at_once = {.ctl = ctl, .slot = slot};
    if (SHMQ_BROKEN(HEALER_LOOKS_ONCE)) earlier = &at_once;
    if (!earlier || earlier->slot != slot || earlier->ctl != ctl) return suspect(h, slot, ctl, now);
    if (now - earlier->since < SECOND_LOOK_NS) return suspect(h, slot, ctl, earlier->since);
    uint8_t level = shmq_shape_level(atomic_load_explicit(&shmq_slot_at(q, slot)->shape, memory_order_relaxed));
    if (level >= q->geometry.levels || !shmq_level_committed(q, level)) return 0;
    struct shmq_ring r = shmq_ctl_deliveries(ctl) ? shmq_ring_returned(q, level) : shmq_ring_main(q, level);
    if (shmq_ring_enqueue(q, &r, slot, shmq_ctl_generation(ctl)) != SHMQ_OK) return suspect(h, slot, ctl, earlier->since);
    out->references++;
    shmq_bell_ring(q, SHMQ_CONSUMERS);
    return 0;
}

static int heal_slot(struct shmq_queue *q, uint32_t slot, uint64_t now, struct shmq_heal_report *out) {
    struct shmq_heal *h = q->heal;
    if (slot >= h->high && shmq_slot_has_bit(q, slot)) return 0; /* never used yet: its memory is better left alone */
    struct shmq_slot *s = shmq_slot_at(q, slot);
    uint64_t c = shmq_load(&s->ctl);
    uint32_t state = shmq_ctl_state(c);
    if (state < SHMQ_STATES) h->states[state]++;
    if (state == SHMQ_READY) h->ready_bytes += shmq_shape_body(atomic_load_explicit(&s->shape, memory_order_relaxed));
    if (state == SHMQ_FREE) {
        if (shmq_slot_has_bit(q, slot)) return 0;
        shmq_slot_hint(q, slot);
        out->bits++;
        return 0;
    }
    uint64_t place = atomic_load_explicit(&s->place, memory_order_relaxed);
    uint32_t tier = shmq_place_tier(place);
    if (tier && tier <= SHMQ_TIERS) h->arena += (uint64_t)shmq_place_count(place) << q->layout.tier[tier - 1].shift;
    bool marked = slot >= h->high || h->marks[slot / 8] >> (slot % 8) & 1; /* claimed since this pass began: the next one's */
    return state == SHMQ_READY && !marked ? heal_ready(q, slot, c, now, out) : 0;
}

/* Nobody has counted what is ready while this pass went through the slots: it knows better (docs/SHM_LAYOUT.md, Limits). */
static void correct_depth(struct shmq_queue *q, const struct shmq_heal *h) {
    uint64_t times;
    bool rested = shmq_counting_rests(q, &times) && h->rested && times == h->times;
    if (!shmq_overflow(q) || (!rested && !SHMQ_BROKEN(HEALER_COUNTS_AT_ONCE))) return;
    shmq_cas(&q->header->depth[0], h->depth[0], h->states[SHMQ_READY]); /* unless somebody has counted since */
    shmq_cas(&q->header->depth[1], h->depth[1], h->ready_bytes);
}

/* Nothing was counted for longer than a process that lost its turn between a swap and its count waits for the next one: the census of
 * this pass is exact, and the gauges can be put right. */
static void correct_gauges(struct shmq_queue *q, struct shmq_heal *h, uint64_t now) {
    uint64_t tally[16];
    shmq_tally_sum(q, tally);
    if (memcmp(tally, h->tally, sizeof tally) != 0 || shmq_slots_high(q) != h->high || now - h->quiet_since < SECOND_LOOK_NS) return;
    static const enum shmq_state counted[SHMQ_GAUGES] = {SHMQ_READY, SHMQ_UNACKED, SHMQ_DELAYED, SHMQ_DEAD};
    uint64_t gauge[SHMQ_GAUGES];
    shmq_gauges_of(tally, gauge);
    for (uint32_t i = 0; i < SHMQ_GAUGES; i++) atomic_store_explicit(&q->header->adjust[i], h->states[counted[i]] - gauge[i], memory_order_relaxed);
    if (!h->states[SHMQ_WRITING]) atomic_store_explicit(&q->header->arena_used, h->arena, memory_order_relaxed);
}

static void end_pass(struct shmq_queue *q, uint64_t now, struct shmq_heal_report *out) {
    struct shmq_heal *h = q->heal;
    correct_depth(q, h);
    correct_gauges(q, h, now);
    struct suspects spare = h->before;
    h->before = h->now;
    h->now = spare;
    h->now.n = 0;
    forget_pass(h);
    out->passes++;
}

static int one_step(struct shmq_queue *q, uint64_t now, bool full, struct shmq_heal_report *out) {
    struct shmq_heal *h = q->heal;
    if (!h->marks) {
        int r = start_pass(q, now);
        if (r) return r;
    }
    do {
        mark_step(q, h, ENTRIES_STEP);
        if (!full) break;
    } while (!h->rings_done);
    if (!h->rings_done) return 0;
    for (uint32_t n = 0; h->slot < h->committed && (full || n < SLOTS_STEP); n++) {
        int r = heal_slot(q, h->slot++, now, out);
        if (r < 0) return r;
    }
    if (h->slot >= h->committed) end_pass(q, now, out);
    return 0;
}

int shmq_heal_step(struct shmq_queue *q, uint64_t now_ns, bool full, struct shmq_heal_report *out) {
    *out = (struct shmq_heal_report){0};
    if (!q->heal && !(q->heal = calloc(1, sizeof *q->heal))) return -ENOMEM;
    bool begun = q->heal->marks != NULL;
    int r = one_step(q, now_ns, full, out);
    if (full && !r && begun) r = one_step(q, now_ns, full, out); /* the end of a pass that had begun: now a whole one */
    out->suspects = q->heal->before.n + q->heal->now.n;
    uint64_t flags = atomic_load_explicit(&q->header->flags, memory_order_relaxed);
    if (flags & SHMQ_FLAG_RESCAN) {
        atomic_fetch_and_explicit(&q->header->flags, ~(uint64_t)SHMQ_FLAG_RESCAN, memory_order_acq_rel);
        out->rescan = 1;
    }
    return r;
}
