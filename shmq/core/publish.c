/* publish.c - a message from nothing to READY (or DELAYED):
 *
 *     claim slot -> claim granules -> room for the reference -> body, metadata -> gate -> [ctl -> READY] -> ring -> fence -> bell
 *
 * The bracketed swap is the commit; all that may fail comes before it. A death before it: WRITING, reaped. Behind it: READY without a
 * reference (healer), without a bell (supervisor rings after each death). */
#include "shmq_core.h"

#include <string.h>

#define STORE(word, value) atomic_store_explicit(&(word), value, memory_order_relaxed)

void shmq_gate_raise(struct shmq_queue *q, uint32_t level) {
    if (q->geometry.levels > SHMQ_GATED_LEVELS) atomic_fetch_add_explicit(&q->header->gate[level / SHMQ_GATE_LEVELS], 1, memory_order_seq_cst);
}

void shmq_gate_lower(struct shmq_queue *q, uint32_t level) {
    if (q->geometry.levels > SHMQ_GATED_LEVELS) atomic_fetch_sub_explicit(&q->header->gate[level / SHMQ_GATE_LEVELS], 1, memory_order_seq_cst);
}

int shmq_write_begin(struct shmq_queue *q, const struct shmq_draft *d, struct shmq_write *w) {
    uint64_t body = (d->body_bytes + 7) & ~UINT64_C(7), bytes = body + d->envelope_bytes;
    uint32_t level = d->level < q->geometry.levels ? d->level : q->geometry.levels - 1;
    if (atomic_load_explicit(&q->header->flags, memory_order_relaxed) & SHMQ_FLAG_DELETED) return SHMQ_DELETED;
    if (d->body_bytes > SHMQ_BODY_BYTES_MAX || d->envelope_bytes > SHMQ_ENVELOPE_BYTES_MAX) return SHMQ_TOO_LARGE;
    if (bytes > q->geometry.inline_bytes && d->body_bytes > q->geometry.arena_bytes) return SHMQ_TOO_LARGE;
    if (shmq_overflow(q) == SHMQ_REFUSES && !d->delay_ns && shmq_is_over(q, 1, d->body_bytes)) return SHMQ_REFUSED; /* before any work */
    int r = shmq_commit_level(q, level);
    q->publishing = level;
    if (q->room[level].left) q->room[level].left--;
    else if (r == SHMQ_OK) r = shmq_ring_secure(q, level);
    if (r == SHMQ_OK) r = shmq_slot_claim(q, &w->slot, &w->ctl);
    if (r != SHMQ_OK) return r;
    struct shmq_slot *s = shmq_slot_at(q, w->slot);
    STORE(s->place, w->place = 0);
    if (bytes <= q->geometry.inline_bytes) {
        w->body = (uint8_t *)(s + 1);
    } else if ((r = shmq_arena_claim(q, w->slot, w->ctl, bytes, &w->place)) == SHMQ_OK) {
        w->body = shmq_arena_at(q, w->place, bytes);
        if (!w->body) r = SHMQ_DAMAGED;
    }
    if (r != SHMQ_OK) {
        /* the slot we free is no room for who waits for granules, ourselves included; known before it is freed, which wakes them */
        if (r == SHMQ_FULL || r == SHMQ_STOPPED) atomic_fetch_add_explicit(&q->header->given_up, 1, memory_order_release);
        shmq_write_abort(q, w);
        return r;
    }
    w->envelope = w->body + body;
    if (d->envelope_bytes) memcpy(w->envelope, d->envelope, d->envelope_bytes);
    w->shape = d->body_bytes << 32 | (uint64_t)d->envelope_bytes << 16 | (uint64_t)level << 8 | (d->flags & 0xffu);
    w->expires = d->ttl_ns < 0 ? 0 : (uint64_t)d->ttl_ns + 1; /* from commit on; made a time there */
    w->due = d->delay_ns;
    w->origin = (d->sender ? d->sender : q->sender) | (d->level & 0xffu);
    return SHMQ_OK;
}

void shmq_write_abort(struct shmq_queue *q, struct shmq_write *w) {
    (void)shmq_slot_free(q, w->slot, w->ctl, &shmq_tally_of(q)->aborted);
}

int shmq_make_ready(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t shape) {
    uint64_t ready = shmq_ctl_moved(ctl, 0, SHMQ_READY);
    uint8_t level = shmq_shape_level(shape);
    if (!SHMQ_BROKEN(GATE_RAISED_LATE)) shmq_gate_raise(q, level); /* before it can be seen */
    /* release: body and metadata before READY; pairs with the acquire of ctl in shmq_reference_live */
    if (!SHMQ_CAS_UNLESS(READY_RELAXED, &shmq_slot_at(q, slot)->ctl, ctl, ready)) {
        shmq_gate_lower(q, level);
        return SHMQ_STALE;
    }
    if (SHMQ_BROKEN(GATE_RAISED_LATE)) shmq_gate_raise(q, level);
    struct shmq_ring ring = shmq_ring_main(q, level);
    int r = shmq_ring_enqueue(q, &ring, slot, shmq_ctl_generation(ctl));
    if (r != SHMQ_OK) atomic_fetch_or_explicit(&q->header->flags, SHMQ_FLAG_RESCAN, memory_order_relaxed); /* left to the healer */
    return SHMQ_OK;
}

static int make_delayed(struct shmq_queue *q, const struct shmq_write *w, uint64_t due) {
    uint64_t delayed = shmq_ctl_moved(w->ctl, 0, SHMQ_DELAYED);
    STORE(shmq_slot_at(q, w->slot)->due, shmq_stamp(due, delayed));
    if (!shmq_cas(&shmq_slot_at(q, w->slot)->ctl, w->ctl, delayed)) return SHMQ_STALE;
    struct shmq_ring ring = shmq_ring_delayed(q);
    if (shmq_ring_enqueue(q, &ring, w->slot, shmq_ctl_generation(delayed)) != SHMQ_OK)
        atomic_fetch_or_explicit(&q->header->flags, SHMQ_FLAG_RESCAN, memory_order_relaxed);
    return SHMQ_OK;
}

static void count_publish(struct shmq_queue *q, const struct shmq_write *w) {
    SHMQ_COUNT(q, published, 1);
    SHMQ_COUNT(q, bytes_in, shmq_shape_body(w->shape));
}

/* WRITING -> FREE, or -> DEAD where the refused have somewhere to go. */
static int refuse(struct shmq_queue *q, const struct shmq_write *w, uint32_t overflow) {
    if ((overflow & 0xfu) == SHMQ_REFUSES) {
        shmq_write_abort(q, (struct shmq_write *)w);
        return SHMQ_REFUSED;
    }
    uint64_t dead = shmq_ctl_moved(w->ctl, SHMQ_MAXLEN, SHMQ_DEAD);
    /* release: body and metadata before DEAD */
    if (!shmq_cas(&shmq_slot_at(q, w->slot)->ctl, w->ctl, dead)) return SHMQ_STALE;
    count_publish(q, w);
    SHMQ_COUNT(q, expired, 1);
    shmq_dead_enqueue(q, w->slot, dead);
    return SHMQ_REFUSED;
}

/* A time to live of 0 is now or never: a consumer that waits has until it is awake, without one it is over. */
static uint64_t end_of(struct shmq_queue *q, const struct shmq_write *w, uint64_t begin) {
    if (!w->expires) return 0;
    uint64_t ttl = w->expires - 1;
    if (!ttl && (uint32_t)shmq_load(&q->header->registered[SHMQ_CONSUMERS][0])) ttl = SHMQ_AT_ONCE_NS;
    return ttl < UINT64_MAX - begin ? begin + ttl : 0;
}

/* Where there is a limit. */
static int make_ready_within(struct shmq_queue *q, const struct shmq_write *w, uint32_t overflow) {
    struct shmq_counting counting = shmq_counting_begin(q, overflow);
    bool first = shmq_refuses(overflow) ? !SHMQ_BROKEN(REFUSES_COUNTED_LATE) : SHMQ_BROKEN(DROPS_COUNTED_EARLY);
    bool over = first && shmq_depth_comes(q, w->shape) && shmq_refuses(overflow); /* counted first: of those who come at once none is too many */
    int r = over ? SHMQ_REFUSED : shmq_make_ready(q, w->slot, w->ctl, w->shape);
    if (!first && r == SHMQ_OK) shmq_depth_comes(q, w->shape);
    if (first && r != SHMQ_OK) shmq_depth_goes(q, w->shape);
    shmq_counting_end(counting);
    return over ? refuse(q, w, overflow) : r;
}

int shmq_write_commit(struct shmq_queue *q, struct shmq_write *w) {
    struct shmq_slot *s = shmq_slot_at(q, w->slot);
    uint64_t now = shmq_now();
    if (now <= q->last_sequence) now = q->last_sequence + 1; /* strictly increasing per producer */
    q->last_sequence = now;
    STORE(s->sequence, now);
    uint64_t due = w->due && w->due < UINT64_MAX - now ? now + w->due : UINT64_MAX;
    uint64_t expires = end_of(q, w, w->due ? due : now); /* what is delayed begins to live when it is due */
    STORE(s->expires, expires);
    STORE(s->ack_deadline, 0);
    STORE(s->shape, w->shape);
    STORE(s->origin, w->origin);
    if (w->expires && !(atomic_load_explicit(&q->header->flags, memory_order_relaxed) & SHMQ_FLAG_TTL))
        atomic_fetch_or_explicit(&q->header->flags, SHMQ_FLAG_TTL, memory_order_relaxed);
    uint32_t overflow = shmq_overflow(q);
    int r;
    if (w->due) r = make_delayed(q, w, due);
    else if (overflow) r = make_ready_within(q, w, overflow);
    else r = shmq_make_ready(q, w->slot, w->ctl, w->shape);
    if (r != SHMQ_OK) return r;
    count_publish(q, w); /* before the bell: who is killed is most likely in its system call, behind what it woke */
    if (w->due) {
        SHMQ_COUNT(q, delayed, 1);
        shmq_bell_supervisor(q);
        return SHMQ_OK;
    }
    if (expires) shmq_may_expire(q, expires);
    if (overflow) r = shmq_trim(q);
    shmq_bell_ring(q, SHMQ_CONSUMERS);
    return r;
}

int shmq_publish(struct shmq_queue *q, const struct shmq_draft *d, const void *body) {
    struct shmq_write w;
    int r = shmq_write_begin(q, d, &w);
    if (r != SHMQ_OK) return r;
    if (SHMQ_BROKEN(COMMIT_BEFORE_BODY)) r = shmq_write_commit(q, &w);
    if (d->body_bytes) memcpy(w.body, body, d->body_bytes);
    return SHMQ_BROKEN(COMMIT_BEFORE_BODY) ? r : shmq_write_commit(q, &w);
}
