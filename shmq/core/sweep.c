/* sweep.c - what the supervisor (or an owner that says goodbye) does over all slots: reap, purge, expire, ack timeouts, and taking up
 * dead and delayed messages. Everything is idempotent: each step is a swap of one control word from the value that was looked at. */
#include "shmq_core.h"

#include <stdlib.h>


struct given { /* an UNACKED slot to give back */
    uint64_t sequence, ctl;
    uint32_t slot;
};

static int by_sequence(const void *a, const void *b) {
    uint64_t x = ((const struct given *)a)->sequence, y = ((const struct given *)b)->sequence;
    return (x > y) - (x < y);
}

static bool is_gone(uint32_t of, const uint8_t *live, uint32_t owner) {
    return live ? !(live[of / 8] >> (of % 8) & 1) : of == owner;
}

static bool is_reaped(uint64_t ctl, const uint8_t *live, uint32_t owner) {
    uint32_t state = shmq_ctl_state(ctl);
    if (state != SHMQ_WRITING && state != SHMQ_UNACKED && state != SHMQ_ACKED) return false;
    return is_gone(shmq_ctl_owner(ctl), live, owner);
}

/* What the dead were counting is left to the healer. */
static void reap_counting(struct shmq_queue *q, const uint8_t *live, uint32_t owner) {
    for (uint32_t n = 0; n < SHMQ_COUNTING; n++) {
        uint64_t word = shmq_load(&q->header->counting[n]);
        uint32_t of = shmq_counting_owner(word);
        if (of && is_gone(of, live, owner)) shmq_cas(&q->header->counting[n], word, shmq_counted(word));
    }
}

static int give_back(struct shmq_queue *q, struct given *list, size_t n, bool count_failure, struct shmq_counts *out) {
    if (n) qsort(list, n, sizeof *list, by_sequence); /* together, in order: the returned ring keeps it */
    int error = SHMQ_OK; /* one damaged slot does not keep the others */
    for (size_t i = 0; i < n; i++) {
        int r = shmq_requeue(q, list[i].slot, list[i].ctl, count_failure);
        out->requeued += r == SHMQ_OK;
        out->dead += r == SHMQ_DEAD_NOW;
        if (r < 0) error = r;
    }
    return error;
}

static int remember(struct given **list, size_t *n, size_t *room, struct given g) {
    if (*n == *room) {
        size_t more = *room ? 2 * *room : 64;
        struct given *grown = realloc(*list, more * sizeof *grown);
        if (!grown) return -ENOMEM;
        *list = grown;
        *room = more;
    }
    (*list)[(*n)++] = g;
    return 0;
}

/* Died while it gave memory back: below `committed` there may be a hole, which nobody claims while the slot is not free. Without memory
 * the slot is kept, until another look of the reaper. */
static bool lies_over_a_hole(struct shmq_queue *q, uint32_t slot, uint64_t ctl) {
    uint64_t place = atomic_load_explicit(&shmq_slot_at(q, slot)->place, memory_order_relaxed);
    uint32_t tier = shmq_place_tier(place);
    if (shmq_ctl_state(ctl) != SHMQ_WRITING || !tier || tier > SHMQ_TIERS || shmq_place_count(place)) return false;
    int refilled = shmq_arena_refill(q, tier - 1, shmq_place_start(place));
    return refilled != SHMQ_EMPTY && refilled != SHMQ_OK;
}

static uint64_t free_owned(struct shmq_queue *q, uint32_t slot, uint64_t ctl) {
    if (lies_over_a_hole(q, slot, ctl)) return 0;
    struct shmq_tally *tally = shmq_tally_of(q);
    return shmq_slot_free(q, slot, ctl, shmq_ctl_state(ctl) == SHMQ_ACKED ? &tally->released : &tally->aborted) == SHMQ_OK;
}

int shmq_reap(struct shmq_queue *q, const uint8_t *live, uint32_t owner, bool count_failure, bool lost_session, struct shmq_counts *out) {
    struct given *list = NULL;
    size_t n = 0, room = 0;
    int r = 0;
    uint32_t high = shmq_slots_high(q);
    *out = (struct shmq_counts){0};
    for (uint32_t i = 0; i < high && !r; i++) {
        struct shmq_slot *s = shmq_slot_at(q, i);
        uint64_t c = shmq_load(&s->ctl);
        if (!is_reaped(c, live, owner)) continue;
        if (shmq_ctl_state(c) == SHMQ_UNACKED)
            r = remember(&list, &n, &room, (struct given){atomic_load_explicit(&s->sequence, memory_order_relaxed), c, i});
        else if (!lost_session || SHMQ_BROKEN(REAPS_THE_STOPPED))
            out->freed += free_owned(q, i, c);
    }
    if (!lost_session) reap_counting(q, live, owner);
    int given = give_back(q, list, n, count_failure, out); /* also after an error: what was found is given back */
    free(list);
    return r ? r : given;
}

/* READY with a sequence up to `before_ns` -> FREE, wherever it is referenced; then the stale heads are cleared away. */
int64_t shmq_purge(struct shmq_queue *q, uint64_t before_ns) {
    uint32_t high = shmq_slots_high(q);
    int64_t purged = 0;
    for (uint32_t i = 0; i < high; i++) {
        struct shmq_slot *s = shmq_slot_at(q, i);
        uint64_t c = shmq_load(&s->ctl);
        if (shmq_ctl_state(c) != SHMQ_READY || atomic_load_explicit(&s->sequence, memory_order_relaxed) > before_ns) continue;
        uint64_t shape = atomic_load_explicit(&s->shape, memory_order_relaxed);
        uint8_t level = shmq_shape_level(shape);
        uint32_t overflow = shmq_overflow(q);
        struct shmq_counting counting = shmq_counting_begin(q, overflow);
        if (overflow && !shmq_refuses(overflow)) shmq_depth_goes(q, shape);
        bool freed = shmq_slot_free(q, i, c, &shmq_tally_of(q)->purged) == SHMQ_OK;
        if (!freed && overflow && !shmq_refuses(overflow)) shmq_depth_comes(q, shape);
        if (freed && shmq_refuses(overflow)) shmq_depth_goes(q, shape);
        shmq_counting_end(counting);
        if (!freed) continue;
        if (level < q->geometry.levels) shmq_gate_lower(q, level);
        purged++;
    }
    for (uint32_t level = 0; level < q->geometry.levels; level++) {
        struct shmq_look look;
        if (!shmq_level_committed(q, level)) continue;
        struct shmq_ring main = shmq_ring_main(q, level), returned = shmq_ring_returned(q, level);
        if (shmq_ring_look(q, &main, SHMQ_READY, &look) < 0 || shmq_ring_look(q, &returned, SHMQ_READY, &look) < 0) return SHMQ_DAMAGED;
    }
    return purged;
}

int64_t shmq_expire_due(struct shmq_queue *q, uint64_t now_ns, uint32_t slots_max) {
    uint32_t high = shmq_slots_high(q);
    int64_t expired = 0;
    if (!(atomic_load_explicit(&q->header->flags, memory_order_relaxed) & SHMQ_FLAG_TTL) || !high) return 0;
    for (uint32_t n = 0; n < slots_max && n < high; n++) {
        uint32_t i = q->expire_cursor = q->expire_cursor + 1 < high ? q->expire_cursor + 1 : 0;
        struct shmq_slot *s = shmq_slot_at(q, i);
        uint64_t c = shmq_load(&s->ctl), expires = atomic_load_explicit(&s->expires, memory_order_relaxed);
        if (shmq_ctl_state(c) != SHMQ_READY || !expires || expires > now_ns) continue;
        expired += shmq_bury(q, i, c, SHMQ_EXPIRED) == SHMQ_OK;
    }
    return expired;
}

/* The word is emptied at the first slot: who publishes meanwhile names its own time anew. */
int64_t shmq_expire_from(struct shmq_queue *q, uint64_t now_ns, uint32_t first, uint32_t slots_max) {
    int64_t expired = 0;
    uint64_t next = 0;
    if (!first && !SHMQ_BROKEN(EXPIRY_EMPTIED_LATE)) {
        atomic_store_explicit(&q->header->expiry, 0, memory_order_seq_cst);
        atomic_thread_fence(memory_order_seq_cst); /* pairs with READY before the load in shmq_may_expire: we see one, or it sees that */
    }
    uint32_t high = shmq_slots_high(q); /* behind that too: who claims a slot above has not named its time yet */
    for (uint32_t i = first; i < high && i - first < slots_max; i++) {
        struct shmq_slot *s = shmq_slot_at(q, i);
        uint64_t c = shmq_load(&s->ctl), expires = atomic_load_explicit(&s->expires, memory_order_relaxed);
        if (shmq_ctl_state(c) != SHMQ_READY || !expires) continue;
        if (expires <= now_ns) expired += shmq_bury(q, i, c, SHMQ_EXPIRED) == SHMQ_OK;
        else if (!next || expires < next) next = expires;
    }
    if (SHMQ_BROKEN(EXPIRY_EMPTIED_LATE)) atomic_store_explicit(&q->header->expiry, 0, memory_order_seq_cst);
    if (next) shmq_may_expire(q, next);
    return expired;
}

/* ---- ack timeouts: from the supervisor's first sight of that very control word ---- */
struct shmq_timing {
    uint32_t slots;
    struct {
        uint64_t ctl, since;
    } seen[];
};

static struct shmq_timing *timing_for(struct shmq_queue *q, uint32_t slots) {
    if (q->timing && q->timing->slots >= slots) return q->timing;
    uint32_t room = slots < 1024 ? 1024 : slots + slots / 2;
    struct shmq_timing *grown = calloc(1, sizeof *grown + (size_t)room * sizeof grown->seen[0]);
    if (!grown) return NULL;
    grown->slots = room;
    for (uint32_t i = 0; q->timing && i < q->timing->slots; i++) grown->seen[i] = q->timing->seen[i];
    free(q->timing);
    return q->timing = grown;
}

static uint64_t ack_deadline(struct shmq_slot *s, uint64_t ctl, uint64_t since, uint64_t timeout_ns) {
    uint64_t touched = shmq_load(&s->ack_deadline);
    bool moved = touched && shmq_stamp_fits(touched, ctl);
    return moved ? touched & ~UINT64_C(0xfff) : since + timeout_ns;
}

int64_t shmq_overdue(struct shmq_queue *q, uint64_t timeout_ns, uint64_t now_ns, uint32_t slots_max) {
    uint32_t high = shmq_slots_high(q);
    struct shmq_timing *timing = high ? timing_for(q, high) : NULL;
    int64_t given = 0;
    if (!high) return 0;
    if (!timing) return -ENOMEM;
    for (uint32_t n = 0; n < slots_max && n < high; n++) {
        uint32_t i = q->overdue_cursor = q->overdue_cursor + 1 < high ? q->overdue_cursor + 1 : 0;
        struct shmq_slot *s = shmq_slot_at(q, i);
        uint64_t c = shmq_load(&s->ctl);
        if (shmq_ctl_state(c) != SHMQ_UNACKED) continue;
        if (timing->seen[i].ctl != c) {
            timing->seen[i].ctl = c;
            timing->seen[i].since = now_ns;
        } else if (now_ns >= ack_deadline(s, c, timing->seen[i].since, timeout_ns)) {
            given += shmq_requeue(q, i, c, true) == SHMQ_OK;
        }
    }
    return given;
}

/* ---- dead and delayed: the supervisor is the only taker; it notes, clears, then acts only if state and generation still match ---- */
int shmq_pop(struct shmq_queue *q, enum shmq_state state, uint32_t *slot, uint64_t *ctl) {
    struct shmq_ring ring = state == SHMQ_DEAD ? shmq_ring_dead(q) : shmq_ring_delayed(q);
    struct shmq_look look;
    int r = shmq_ring_look(q, &ring, state, &look);
    if (r != SHMQ_OK) return r;
    *slot = look.slot;
    *ctl = look.ctl;
    return shmq_ring_clear(q, &look);
}

int shmq_settle_dead(struct shmq_queue *q, uint32_t slot, uint64_t ctl) {
    if (shmq_ctl_state(ctl) != SHMQ_DEAD) return SHMQ_STALE;
    return shmq_slot_free(q, slot, ctl, &shmq_tally_of(q)->settled);
}

int shmq_fire(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t now_ns) {
    struct shmq_slot *s = shmq_slot_at(q, slot);
    uint64_t due = shmq_load(&s->due);
    if (shmq_ctl_state(ctl) != SHMQ_DELAYED || shmq_load(&s->ctl) != ctl) return SHMQ_STALE;
    if (shmq_stamp_fits(due, ctl) && (due & ~UINT64_C(0xfff)) > now_ns) return SHMQ_NOT_DUE;
    uint64_t shape = atomic_load_explicit(&s->shape, memory_order_relaxed), expires = atomic_load_explicit(&s->expires, memory_order_relaxed);
    uint8_t level = shmq_shape_level(shape);
    uint32_t overflow = shmq_overflow(q);
    if (level >= q->geometry.levels || !shmq_level_committed(q, level)) return SHMQ_DAMAGED;
    struct shmq_counting counting = shmq_counting_begin(q, overflow);
    if (shmq_refuses(overflow)) shmq_depth_comes(q, shape);
    int r = shmq_make_ready(q, slot, ctl, shape);
    if (r == SHMQ_OK && overflow && !shmq_refuses(overflow)) shmq_depth_comes(q, shape);
    if (r != SHMQ_OK && shmq_refuses(overflow)) shmq_depth_goes(q, shape);
    shmq_counting_end(counting);
    if (r != SHMQ_OK) return r;
    SHMQ_COUNT(q, fired, 1);
    if (expires) shmq_may_expire(q, expires);
    if (overflow) r = shmq_trim(q);
    shmq_bell_ring(q, SHMQ_CONSUMERS);
    return r;
}
