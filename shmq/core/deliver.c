/* deliver.c - what happens to a READY message: taken, acked, given back, delayed, buried. Each is one swap of its control word; what
 * stands behind the swap in a function is hints, and a death there is put right by the taker that comes next, the healer or the
 * supervisor's bell after each death. */
#include "shmq_core.h"

/* ---- times that belong to one delivery ---- */
uint64_t shmq_stamp(uint64_t ns, uint64_t ctl) {
    uint64_t delivery = (uint64_t)(shmq_ctl_generation(ctl) & 0xfu) << 8 | shmq_ctl_deliveries(ctl);
    if (ns > UINT64_MAX - 0xfff) ns = UINT64_MAX - 0xfff; /* for ever */
    return ((ns + 0xfff) & ~UINT64_C(0xfff)) | delivery;
}

bool shmq_stamp_fits(uint64_t stamped, uint64_t ctl) { return (stamped & 0xfff) == (shmq_stamp(0, ctl) & 0xfff); }

/* By swap from the value read while ctl is ours: a stopped owner's late stamp fails or is ignored for its delivery bits. */
static int stamp_word(struct shmq_queue *q, uint32_t slot, uint64_t ctl, shmq_word *word, uint64_t ns) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        uint64_t old = shmq_load(word);
        if (shmq_load(&shmq_slot_at(q, slot)->ctl) != ctl) return SHMQ_STALE;
        if (shmq_cas(word, old, shmq_stamp(ns, ctl))) return SHMQ_OK;
    }
    return SHMQ_DAMAGED;
}

int shmq_touch(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t deadline_ns) {
    return stamp_word(q, slot, ctl, &shmq_slot_at(q, slot)->ack_deadline, deadline_ns);
}

/* ---- take ---- */
static uint64_t delivered_word(const struct shmq_queue *q, uint64_t ctl) {
    uint32_t behind_255 = SHMQ_BROKEN(DELIVERIES_SATURATE) ? 255 : 128; /* successive words always differ */
    uint32_t deliveries = shmq_ctl_deliveries(ctl) == 255 ? behind_255 : shmq_ctl_deliveries(ctl) + 1;
    return shmq_ctl(shmq_ctl_generation(ctl), q->owner, deliveries, shmq_ctl_failures(ctl), SHMQ_UNACKED);
}

int shmq_describe(struct shmq_queue *q, uint32_t slot, uint64_t ctl, struct shmq_delivery *d) {
    struct shmq_slot *s = shmq_slot_at(q, slot);
    uint64_t shape = atomic_load_explicit(&s->shape, memory_order_relaxed);
    uint64_t place = atomic_load_explicit(&s->place, memory_order_relaxed);
    uint64_t padded = ((uint64_t)shmq_shape_body(shape) + 7) & ~UINT64_C(7), bytes = padded + shmq_shape_envelope(shape);
    const uint8_t *body = (const uint8_t *)(s + 1);
    if (shmq_place_tier(place)) body = shmq_shape_body(shape) <= SHMQ_BODY_BYTES_MAX ? shmq_arena_at(q, place, bytes) : NULL;
    else if (bytes > q->geometry.inline_bytes) body = NULL;
    if (!body) return SHMQ_DAMAGED;
    *d = (struct shmq_delivery){.ctl = ctl, .slot = slot, .body = body, .envelope = body + padded,
                                .body_bytes = shmq_shape_body(shape), .envelope_bytes = shmq_shape_envelope(shape),
                                .level = shmq_shape_level(shape), .flags = shmq_shape_flags(shape), .tier = (uint8_t)shmq_place_tier(place),
                                .origin = atomic_load_explicit(&s->origin, memory_order_relaxed),
                                .sequence = shmq_time(atomic_load_explicit(&s->sequence, memory_order_relaxed)),
                                .expires = shmq_time(atomic_load_explicit(&s->expires, memory_order_relaxed))};
    return SHMQ_OK;
}

/* A swap failed by which a message was to go: it is still counted, or somebody else has counted it away. */
static int gone_elsewhere(struct shmq_queue *q, uint64_t shape, uint32_t overflow, struct shmq_counting counting) {
    if (overflow && !shmq_refuses(overflow)) shmq_depth_comes(q, shape);
    shmq_counting_end(counting);
    return SHMQ_STALE;
}

static int commit_take(struct shmq_queue *q, const struct shmq_look *look, struct shmq_delivery *d) {
    struct shmq_slot *s = shmq_slot_at(q, look->slot);
    uint64_t expires = atomic_load_explicit(&s->expires, memory_order_relaxed);
    if (expires && expires <= shmq_now()) {
        int r = shmq_bury(q, look->slot, look->ctl, SHMQ_EXPIRED);
        return r < 0 ? r : SHMQ_STALE; /* either way the reference is stale now */
    }
    uint64_t mine = delivered_word(q, look->ctl);
    /* The message's own level: a reference whose 20 bits of generation fit again may stand in another level's ring. Read before the swap,
     * which says that it was this message's: behind it the message may be taken back and the slot used anew while we are stopped. */
    uint64_t shape = atomic_load_explicit(&s->shape, memory_order_relaxed);
    uint8_t level = shmq_shape_level(shape);
    uint32_t overflow = shmq_overflow(q);
    struct shmq_counting counting = shmq_counting_begin(q, overflow);
    if (overflow && !shmq_refuses(overflow) && !SHMQ_BROKEN(DROPS_COUNTED_LATE)) shmq_depth_goes(q, shape);
    if (SHMQ_BROKEN(GATE_LOWERED_EARLY)) shmq_gate_lower(q, level);
    /* acquire: pairs with READY's release; the only swap that delivers */
    if (SHMQ_BROKEN(DELIVERY_WITHOUT_SWAP)) atomic_store(&s->ctl, mine);
    else if (!shmq_cas(&s->ctl, look->ctl, mine)) return gone_elsewhere(q, shape, overflow, counting);
    if (shmq_refuses(overflow) || (overflow && SHMQ_BROKEN(DROPS_COUNTED_LATE))) shmq_depth_goes(q, shape);
    shmq_counting_end(counting);
    if (!SHMQ_BROKEN(GATE_LOWERED_EARLY)) shmq_gate_lower(q, level);
    int r = shmq_describe(q, look->slot, mine, d);
    if (r == SHMQ_OK) return r;
    atomic_thread_fence(memory_order_acquire);
    return shmq_load(&s->ctl) == mine ? r : SHMQ_STALE; /* not ours any more: words of two messages do not fit */
}

struct first { /* of a level: the head of its main ring, or who came back; kept together */
    struct shmq_look look[2];
    bool returned;
};

static inline int first_of(struct shmq_queue *q, uint32_t level, struct first *f) {
    struct shmq_ring main = shmq_ring_main(q, level), returned = shmq_ring_returned(q, level);
    int in_main = shmq_ring_look(q, &main, SHMQ_READY, &f->look[0]); /* loaded before the returned ring is looked at */
    if (in_main < 0) return in_main;
    int in_returned = shmq_ring_lowest(q, &returned, &f->look[1]);
    if (in_returned < 0) return in_returned;
    f->returned = in_returned == SHMQ_OK;
    if (SHMQ_BROKEN(RETURNED_AFTER_MAIN) && in_main == SHMQ_OK) f->returned = false;
    return in_returned == SHMQ_OK || in_main == SHMQ_OK ? SHMQ_OK : SHMQ_EMPTY;
}

static inline void first_is_gone(struct shmq_queue *q, const struct first *f) {
    const struct shmq_look *look = &f->look[f->returned];
    if (!f->returned || shmq_load(&look->part->head) == look->position) shmq_ring_clear(q, look);
    else shmq_ring_mark(look);
}

static int take_level(struct shmq_queue *q, uint32_t level, struct shmq_delivery *d) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        struct first first;
        int r = first_of(q, level, &first);
        if (r != SHMQ_OK) return r;
        r = commit_take(q, &first.look[first.returned], d);
        if (r == SHMQ_STALE) continue;
        first_is_gone(q, &first);
        return r;
    }
    return SHMQ_DAMAGED;
}

void shmq_dead_enqueue(struct shmq_queue *q, uint32_t slot, uint64_t dead) {
    struct shmq_ring ring = shmq_ring_dead(q);
    if (shmq_ring_enqueue(q, &ring, slot, shmq_ctl_generation(dead)) != SHMQ_OK)
        atomic_fetch_or_explicit(&q->header->flags, SHMQ_FLAG_RESCAN, memory_order_relaxed);
    shmq_bell_supervisor(q);
}

static int buried(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t dead) {
    if (!shmq_cas(&shmq_slot_at(q, slot)->ctl, ctl, dead)) return SHMQ_STALE;
    if (shmq_ctl_state(ctl) == SHMQ_UNACKED) SHMQ_COUNT(q, dead, 1);
    else SHMQ_COUNT(q, expired, 1);
    shmq_dead_enqueue(q, slot, dead);
    return SHMQ_OK;
}

/* Counted away first: of several who saw the queue over its limit only as many drop one as it is over. */
static int drop_one(struct shmq_queue *q, const struct shmq_look *look, bool dies) {
    struct shmq_slot *s = shmq_slot_at(q, look->slot);
    uint64_t shape = atomic_load_explicit(&s->shape, memory_order_relaxed), expires = atomic_load_explicit(&s->expires, memory_order_relaxed);
    struct shmq_counting counting = shmq_counting_begin(q, SHMQ_DROPS);
    if (!shmq_depth_goes(q, shape) && !SHMQ_BROKEN(DROPS_AS_SEEN)) {
        bool over = shmq_depth_comes(q, shape);
        shmq_counting_end(counting);
        return over ? SHMQ_STALE : SHMQ_NOT_DUE;
    }
    uint32_t reason = expires && expires <= shmq_now() ? SHMQ_EXPIRED : SHMQ_MAXLEN;
    int r = dies ? buried(q, look->slot, look->ctl, shmq_ctl_moved(look->ctl, reason, SHMQ_DEAD))
                 : shmq_slot_free(q, look->slot, look->ctl, &shmq_tally_of(q)->purged);
    if (r != SHMQ_OK) return gone_elsewhere(q, shape, SHMQ_DROPS, counting);
    shmq_counting_end(counting);
    shmq_gate_lower(q, shmq_shape_level(shape));
    return SHMQ_OK;
}

int shmq_drop_head(struct shmq_queue *q, uint32_t level, bool dies) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        struct first first;
        int r = first_of(q, level, &first);
        if (r != SHMQ_OK) return r;
        r = drop_one(q, &first.look[first.returned], dies);
        if (r == SHMQ_STALE) continue;
        if (r == SHMQ_OK) first_is_gone(q, &first);
        return r;
    }
    return SHMQ_DAMAGED;
}

#define AGEING_MAX (UINT64_C(1) << 54) /* ns a level: 256 of them and a time of publishing are one signed word */

/* The first message that has waited so long that it stands highest: published earliest, where each level counts as so much time. What is
 * published while we look has waited less than nothing, however long we are stopped in between. */
static int highest_aged(struct shmq_queue *q, uint64_t ageing, struct first *highest) {
    int64_t least = 0, step = (int64_t)(ageing < AGEING_MAX ? ageing : AGEING_MAX);
    bool found = false;
    for (uint32_t level = q->geometry.levels; level-- > 0;) {
        struct first first;
        if (!shmq_level_committed(q, level)) continue;
        int r = first_of(q, level, &first);
        if (r < 0) return r;
        if (r != SHMQ_OK) continue;
        uint64_t since = atomic_load_explicit(&shmq_slot_at(q, first.look[first.returned].slot)->sequence, memory_order_relaxed);
        int64_t rank = (int64_t)(since & INT64_MAX) - level * step;
        if (found && rank >= least) continue;
        least = rank;
        *highest = first;
        found = true;
    }
    return found ? SHMQ_OK : SHMQ_EMPTY;
}

/* Just the message that was found to be the highest: when somebody was faster, the next of its level may be a low one. */
static int take_aged(struct shmq_queue *q, uint64_t ageing, struct shmq_delivery *d) {
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        struct first first;
        int r = highest_aged(q, ageing, &first);
        if (r != SHMQ_OK) return r;
        r = commit_take(q, &first.look[first.returned], d);
        if (r == SHMQ_STALE) continue;
        first_is_gone(q, &first);
        return r;
    }
    return SHMQ_DAMAGED;
}

static void count_delivery(struct shmq_queue *q, struct shmq_delivery *d) {
    SHMQ_COUNT(q, delivered, 1);
    SHMQ_COUNT(q, bytes_out, d->body_bytes);
    d->sample = shmq_sample(q);
    if (!d->sample) return;
    d->taken_ns = shmq_now();
    if (d->taken_ns > d->sequence) shmq_record(q, 0, d->taken_ns - d->sequence, d->sample);
}

static int take_by_level(struct shmq_queue *q, struct shmq_delivery *d) {
    bool gated = q->geometry.levels > SHMQ_GATED_LEVELS;
    for (uint32_t level = q->geometry.levels; level-- > 0;) {
        if (gated && !atomic_load_explicit(&q->header->gate[level / SHMQ_GATE_LEVELS], memory_order_acquire)) {
            level -= level % SHMQ_GATE_LEVELS;
            continue;
        }
        if (!shmq_level_committed(q, level)) continue;
        int r = take_level(q, level, d);
        if (r != SHMQ_EMPTY) return r;
    }
    return SHMQ_EMPTY;
}

int shmq_take(struct shmq_queue *q, struct shmq_delivery *d) {
    uint64_t ageing = atomic_load_explicit(&q->header->ageing, memory_order_relaxed);
    int r = ageing ? take_aged(q, ageing, d) : take_by_level(q, d);
    if (r == SHMQ_OK) count_delivery(q, d);
    return r;
}

bool shmq_may_have(struct shmq_queue *q) {
    bool gated = q->geometry.levels > SHMQ_GATED_LEVELS;
    for (uint32_t level = q->geometry.levels; level-- > 0;) {
        if (gated && !atomic_load_explicit(&q->header->gate[level / SHMQ_GATE_LEVELS], memory_order_acquire)) {
            level -= level % SHMQ_GATE_LEVELS;
            continue;
        }
        if (!shmq_level_committed(q, level)) continue;
        struct shmq_ring main = shmq_ring_main(q, level), returned = shmq_ring_returned(q, level);
        if (shmq_ring_may_have(q, &main) || shmq_ring_may_have(q, &returned)) return true; /* main first, as in take */
    }
    return false;
}

/* ---- settle ---- */
bool shmq_is_current(struct shmq_queue *q, const struct shmq_delivery *d) {
    atomic_thread_fence(memory_order_acquire); /* the copy's loads before this one */
    return atomic_load_explicit(&shmq_slot_at(q, d->slot)->ctl, memory_order_relaxed) == d->ctl;
}

static void record_ack(struct shmq_queue *q, const struct shmq_delivery *d) {
    if (d->taken_ns) shmq_record(q, 1, shmq_now() - d->taken_ns, d->sample);
}

static uint64_t whoever_has_it(struct shmq_queue *q, const struct shmq_delivery *d) { /* of a broken build */
    uint64_t there = shmq_load(&shmq_slot_at(q, d->slot)->ctl);
    bool same = shmq_ctl_generation(there) == shmq_ctl_generation(d->ctl) && shmq_ctl_state(there) == shmq_ctl_state(d->ctl);
    return same ? there : d->ctl;
}

int shmq_ack(struct shmq_queue *q, const struct shmq_delivery *d) {
    uint64_t ctl = SHMQ_BROKEN(ACK_WITHOUT_OWNER) ? whoever_has_it(q, d) : d->ctl;
    int r = shmq_slot_free(q, d->slot, ctl, NULL); /* release: our loads of the body before the next writer's stores */
    if (r == SHMQ_OK) record_ack(q, d);
    return r;
}

int shmq_ack_keep(struct shmq_queue *q, struct shmq_delivery *d) {
    uint64_t acked = shmq_ctl_moved(d->ctl, q->owner, SHMQ_ACKED);
    if (!shmq_cas(&shmq_slot_at(q, d->slot)->ctl, d->ctl, acked)) return SHMQ_STALE;
    d->ctl = acked;
    SHMQ_COUNT(q, views, 1);
    record_ack(q, d);
    return SHMQ_OK;
}

int shmq_release(struct shmq_queue *q, const struct shmq_delivery *d) {
    return shmq_slot_free(q, d->slot, d->ctl, &shmq_tally_of(q)->released);
}

int shmq_bury(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint32_t reason) {
    uint64_t shape = atomic_load_explicit(&shmq_slot_at(q, slot)->shape, memory_order_relaxed);
    bool ready = shmq_ctl_state(ctl) == SHMQ_READY;
    uint32_t overflow = ready ? shmq_overflow(q) : SHMQ_NO_LIMIT;
    struct shmq_counting counting = shmq_counting_begin(q, overflow);
    if (overflow && !shmq_refuses(overflow)) shmq_depth_goes(q, shape);
    int r = buried(q, slot, ctl, shmq_ctl_moved(ctl, reason, SHMQ_DEAD));
    if (r != SHMQ_OK) return gone_elsewhere(q, shape, overflow, counting);
    if (shmq_refuses(overflow)) shmq_depth_goes(q, shape);
    shmq_counting_end(counting);
    if (ready) shmq_gate_lower(q, shmq_shape_level(shape));
    return r;
}

/* When a message that goes back is to be delivered again: `count` says whether it failed. 0: at once. */
static uint64_t retry_delay(const struct shmq_queue *q, uint64_t base, bool count_failure) {
    const struct shmq_header *h = q->header;
    uint64_t retry = atomic_load_explicit(&h->retry, memory_order_relaxed);
    if (!(retry & (count_failure ? SHMQ_RETRY_FAILED : SHMQ_RETRY_RETURNED))) return 0;
    uint64_t times = count_failure ? shmq_ctl_failures(base) : shmq_ctl_deliveries(base);
    uint64_t least = atomic_load_explicit(&h->retry_min, memory_order_relaxed), most = atomic_load_explicit(&h->retry_max, memory_order_relaxed);
    uint64_t delay = times && least > UINT64_MAX / times ? UINT64_MAX : least * times;
    return most && delay > most ? most : delay;
}

/* UNACKED -> DELAYED with the counts of `base`. */
static int put_off(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t base, uint64_t due_ns) {
    struct shmq_slot *s = shmq_slot_at(q, slot);
    int r = SHMQ_BROKEN(DUE_WRITTEN_LATE) ? SHMQ_OK : stamp_word(q, slot, ctl, &s->due, due_ns);
    if (r != SHMQ_OK) return r;
    uint64_t delayed = shmq_ctl_moved(base, 0, SHMQ_DELAYED);
    if (!shmq_cas(&s->ctl, ctl, delayed)) return SHMQ_STALE;
    if (SHMQ_BROKEN(DUE_WRITTEN_LATE)) stamp_word(q, slot, delayed, &s->due, due_ns);
    struct shmq_ring ring = shmq_ring_delayed(q);
    if (shmq_ring_enqueue(q, &ring, slot, shmq_ctl_generation(delayed)) != SHMQ_OK)
        atomic_fetch_or_explicit(&q->header->flags, SHMQ_FLAG_RESCAN, memory_order_relaxed);
    SHMQ_COUNT(q, held, 1);
    shmq_bell_supervisor(q);
    return SHMQ_OK;
}

static void warn_of(struct shmq_queue *q, uint32_t failures) {
    bool wanted = atomic_load_explicit(&q->header->flags, memory_order_relaxed) & SHMQ_FLAG_WARN;
    if (failures != SHMQ_WARN_FAILURES || !wanted) return;
    atomic_fetch_add_explicit(&q->header->often_failed, 1, memory_order_relaxed);
    shmq_bell_supervisor(q);
}

int shmq_requeue(struct shmq_queue *q, uint32_t slot, uint64_t ctl, bool count_failure) {
    struct shmq_slot *s = shmq_slot_at(q, slot);
    uint32_t failures = shmq_ctl_failures(ctl);
    if (count_failure && failures < 255) failures++;
    uint64_t base = shmq_ctl(shmq_ctl_generation(ctl), 0, shmq_ctl_deliveries(ctl), failures, SHMQ_READY);
    uint64_t limit = atomic_load_explicit(&q->header->delivery_limit, memory_order_relaxed);
    if (count_failure && limit && failures >= limit) { /* stored as limit + 1 */
        int r = buried(q, slot, ctl, shmq_ctl_moved(base, SHMQ_DELIVERY_LIMIT, SHMQ_DEAD));
        return r == SHMQ_OK ? SHMQ_DEAD_NOW : r;
    }
    uint64_t delay = retry_delay(q, base, count_failure);
    if (delay) {
        uint64_t now = shmq_now();
        int r = put_off(q, slot, ctl, base, delay < UINT64_MAX - now ? now + delay : UINT64_MAX);
        if (r == SHMQ_OK && count_failure) warn_of(q, failures);
        return r;
    }
    uint64_t shape = atomic_load_explicit(&s->shape, memory_order_relaxed), expires = atomic_load_explicit(&s->expires, memory_order_relaxed);
    uint8_t level = shmq_shape_level(shape);
    uint32_t overflow = shmq_overflow(q);
    if (level >= q->geometry.levels) return SHMQ_DAMAGED;
    shmq_gate_raise(q, level);
    struct shmq_counting counting = shmq_counting_begin(q, overflow);
    if (shmq_refuses(overflow)) shmq_depth_comes(q, shape);
    if (!shmq_cas(&s->ctl, ctl, base)) {
        shmq_gate_lower(q, level);
        if (shmq_refuses(overflow)) shmq_depth_goes(q, shape);
        shmq_counting_end(counting);
        return SHMQ_STALE;
    }
    if (overflow && !shmq_refuses(overflow)) shmq_depth_comes(q, shape);
    shmq_counting_end(counting);
    struct shmq_ring ring = shmq_ring_returned(q, level);
    int r = shmq_level_committed(q, level) ? shmq_ring_enqueue(q, &ring, slot, shmq_ctl_generation(ctl)) : SHMQ_DAMAGED;
    if (r != SHMQ_OK) atomic_fetch_or_explicit(&q->header->flags, SHMQ_FLAG_RESCAN, memory_order_relaxed);
    SHMQ_COUNT(q, requeued, 1);
    if (expires) shmq_may_expire(q, expires);
    if (count_failure) warn_of(q, failures);
    if (overflow) r = shmq_trim(q);
    shmq_bell_ring(q, SHMQ_CONSUMERS);
    return r < 0 ? r : SHMQ_OK;
}

int shmq_delay(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t due_ns) { return put_off(q, slot, ctl, ctl, due_ns); }
