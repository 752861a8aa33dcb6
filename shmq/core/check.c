/* check.c - the invariants of a segment at rest (nobody at work, dead reaped, healed), as sentences about what is wrong. For tests, the
 * stepping harness, and an administrator who wants to know. Reads only. */
#include "shmq_core.h"

#include <stdio.h>
#include <stdlib.h>

struct checker {
    struct shmq_queue *q;
    void (*say)(void *, const char *);
    void *context;
    uint8_t *referenced;
    uint64_t ready[SHMQ_LEVELS_MAX / SHMQ_GATE_LEVELS];
    uint32_t high;
    int faults;
};

static void fault(struct checker *c, const char *what, uint64_t a, uint64_t b) {
    char text[160];
    snprintf(text, sizeof text, "%s (%llu, %llx)", what, (unsigned long long)a, (unsigned long long)b);
    c->faults++;
    if (c->say) c->say(c->context, text);
}

static void note_references(struct checker *c, const struct shmq_ring *r) {
    uint64_t front = shmq_load(&r->ends->front), back = shmq_load(&r->ends->back);
    if (front > back || back > r->last) fault(c, "front or back of a series out of range", front, back);
    for (uint64_t k = front; k <= back && k <= r->last; k++) {
        uint32_t bits;
        struct shmq_part *part = shmq_ring_part(c->q, r, k, &bits);
        uint64_t head = shmq_load(&part->head), tail = shmq_load(&part->tail), size = UINT64_C(1) << bits, ctl;
        if (tail < head && tail + 1 != head) fault(c, "tail behind head", head, tail);
        if (tail > head && tail - head > size) fault(c, "ring holds more than its size", head, tail);
        for (uint64_t p = head; p <= tail && p - head < size; p++) {
            uint64_t e = shmq_load(&part->entry[shmq_entry_index(p, bits)]);
            if (!shmq_entry_is_full(e) || shmq_entry_lap(e) != (p >> bits & 0xfffffu) || shmq_entry_slot(e) >= c->high) continue;
            if (shmq_reference_live(c->q, e, SHMQ_READY, &ctl)) c->referenced[shmq_entry_slot(e) / 8] |= (uint8_t)(1u << shmq_entry_slot(e) % 8);
        }
    }
}

static void check_run(struct checker *c, uint32_t slot, uint64_t ctl, uint64_t place) {
    uint32_t t = shmq_place_tier(place) - 1, start = shmq_place_start(place), count = shmq_place_count(place);
    if (t >= SHMQ_TIERS || (uint64_t)start + count > shmq_tier_committed(c->q, t)) {
        fault(c, "granules outside committed memory", slot, place);
        return;
    }
    const shmq_word *owners = (const shmq_word *)(void *)(c->q->base + c->q->layout.tier[t].owners);
    uint64_t mine = (uint64_t)(slot + 1) << 40 | (uint64_t)shmq_ctl_generation(ctl) << 12;
    for (uint32_t i = start; i < start + count; i++)
        if (shmq_load(&owners[i]) != mine) fault(c, "a granule of a live slot has another owner", slot, shmq_load(&owners[i]));
}

static void check_slot(struct checker *c, uint32_t slot) {
    struct shmq_slot *s = shmq_slot_at(c->q, slot);
    uint64_t ctl = shmq_load(&s->ctl), shape = shmq_load(&s->shape), place = shmq_load(&s->place);
    uint32_t state = shmq_ctl_state(ctl);
    if (state >= SHMQ_STATES) fault(c, "a slot is in no state", slot, ctl);
    if (state == SHMQ_FREE) {
        if (shmq_ctl_owner(ctl)) fault(c, "a FREE slot has an owner", slot, ctl);
        if (!shmq_slot_has_bit(c->q, slot)) fault(c, "a FREE slot has no bit", slot, ctl);
        return;
    }
    if (state != SHMQ_WRITING && shmq_shape_level(shape) >= c->q->geometry.levels) fault(c, "level out of range", slot, shape);
    if (shmq_place_tier(place) && state != SHMQ_WRITING) check_run(c, slot, ctl, place);
    if (state != SHMQ_READY) return;
    if (shmq_ctl_owner(ctl)) fault(c, "a READY slot has an owner", slot, ctl);
    c->ready[shmq_shape_level(shape) / SHMQ_GATE_LEVELS]++;
    if (!(c->referenced[slot / 8] >> (slot % 8) & 1)) fault(c, "a READY slot is referenced by nothing", slot, ctl);
}

static void check_gates(struct checker *c) {
    if (c->q->geometry.levels <= SHMQ_GATED_LEVELS) return;
    for (uint32_t g = 0; g < SHMQ_LEVELS_MAX / SHMQ_GATE_LEVELS; g++) {
        uint32_t gate = atomic_load_explicit(&c->q->header->gate[g], memory_order_acquire);
        if (gate < c->ready[g]) fault(c, "a gate is below what it counts", g, gate);
    }
}

int shmq_check(struct shmq_queue *q, void (*say)(void *, const char *), void *context) {
    struct checker c = {.q = q, .say = say, .context = context, .high = shmq_slots_high(q)};
    c.referenced = calloc(1, c.high / 8 + 1);
    if (!c.referenced) return -ENOMEM;
    for (uint32_t level = 0; level < q->geometry.levels; level++) {
        if (!shmq_level_committed(q, level)) continue;
        struct shmq_ring main = shmq_ring_main(q, level), returned = shmq_ring_returned(q, level);
        note_references(&c, &main);
        note_references(&c, &returned);
    }
    for (uint32_t slot = 0; slot < c.high; slot++) check_slot(&c, slot);
    check_gates(&c);
    for (uint32_t n = 0; n < SHMQ_COUNTING; n++)
        if (shmq_counting_owner(shmq_load(&q->header->counting[n]))) fault(&c, "somebody is still counting", n, shmq_load(&q->header->counting[n]));
    free(c.referenced);
    return c.faults;
}
