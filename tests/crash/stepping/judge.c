/* judge.c - what must hold while the child is stopped (CORE-PROTOCOL's invariants, by looking at the segment from outside), and the
 * work that others then do at once: publish, take, ack. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stepping.h"
#include "support.h"

#include <string.h>
#include <time.h>

#define SLOTS_MAX 512u

/* ---- which slots the rings lead to ---- */
struct survey {
    uint8_t in_main[SLOTS_MAX], in_returned[SLOTS_MAX];
    uint32_t visible, hidden, free;
    int top;                                  /* highest level with a visible message */
    uint64_t lowest_returned[SHMQ_LEVELS_MAX]; /* sequence; UINT64_MAX: none */
};

static void follow(struct stage *st, const struct shmq_ring *r, uint8_t *in)
{
    struct shmq_queue *q = &st->q[SUPERVISOR];
    uint64_t front = shmq_load(&r->ends->front), back = shmq_load(&r->ends->back);
    if (front > back || back > r->last)
        fault(st, "front and back of a series", front, back);
    for (uint64_t k = front; k <= back; k++) {
        uint32_t bits;
        struct shmq_part *part = shmq_ring_part(q, r, k, &bits);
        uint64_t head = shmq_load(&part->head), tail = shmq_load(&part->tail), size = UINT64_C(1) << bits, ctl;
        if (tail < head || tail - head > size + 1)
            fault(st, "tail behind head, or too far before it", head, tail);
        for (uint64_t p = head; p <= tail; p++) {
            uint64_t e = shmq_load(&part->entry[shmq_entry_index(p, bits)]);
            if (shmq_entry_is_full(e) && shmq_entry_lap(e) == (p >> bits & 0xfffff) && shmq_reference_live(q, e, SHMQ_READY, &ctl))
                in[shmq_entry_slot(e)] = 1;
        }
    }
}

static void look_around(struct stage *st, struct survey *s)
{
    struct shmq_queue *q = &st->q[SUPERVISOR];
    memset(s, 0, sizeof *s);
    s->top = -1;
    for (uint32_t level = 0; level < SHMQ_LEVELS_MAX; level++)
        s->lowest_returned[level] = UINT64_MAX;
    for (uint32_t level = 0; level < q->geometry.levels; level++) {
        if (!shmq_level_committed(q, level))
            continue;
        struct shmq_ring main = shmq_ring_main(q, level), returned = shmq_ring_returned(q, level);
        follow(st, &main, s->in_main);
        follow(st, &returned, s->in_returned);
    }
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        struct shmq_slot *at = shmq_slot_at(q, slot);
        uint64_t ctl = shmq_load(&at->ctl), sequence = shmq_load(&at->sequence);
        uint8_t level = shmq_shape_level(shmq_load(&at->shape));
        s->free += shmq_ctl_state(ctl) == SHMQ_FREE;
        if (shmq_ctl_state(ctl) != SHMQ_READY)
            continue;
        bool visible = s->in_main[slot] || s->in_returned[slot];
        s->hidden += !visible;
        uint64_t expires = shmq_load(&at->expires);
        if (expires && expires <= shmq_now())
            continue; /* is found, but not delivered */
        s->visible += visible;
        if (visible && level > s->top)
            s->top = level;
        if (s->in_returned[slot] && sequence < s->lowest_returned[level])
            s->lowest_returned[level] = sequence;
    }
}

uint32_t judge_unreferenced(struct stage *st)
{
    struct survey s;
    look_around(st, &s);
    return s.hidden;
}

/* ---- invariants ---- */
static void check_owner(struct stage *st, uint32_t slot, uint64_t ctl)
{
    uint32_t state = shmq_ctl_state(ctl), owner = shmq_ctl_owner(ctl);
    bool owned = state == SHMQ_WRITING || state == SHMQ_UNACKED || state == SHMQ_ACKED;
    if (state >= SHMQ_STATES)
        fault(st, "a slot is in no state", slot, ctl);
    if (owned && (owner < 1 || owner > HANDLES))
        fault(st, "a slot is owned by nobody we know", slot, ctl);
    if (!owned && state != SHMQ_DEAD && owner)
        fault(st, "a slot that belongs to nobody has an owner", slot, ctl);
}

static void check_time(struct stage *st, uint32_t slot, uint64_t ctl)
{
    uint64_t due = shmq_load(&shmq_slot_at(&st->q[SUPERVISOR], slot)->due);
    if (shmq_ctl_state(ctl) == SHMQ_DELAYED && !shmq_stamp_fits(due, ctl))
        fault(st, "a delayed message without its time", slot, due);
}

static void check_granules(struct stage *st, uint32_t slot, uint64_t ctl, uint64_t place)
{
    struct shmq_queue *q = &st->q[SUPERVISOR];
    uint32_t t = shmq_place_tier(place) - 1, start = shmq_place_start(place), end = start + shmq_place_count(place);
    const shmq_word *owners = (const shmq_word *)(void *)(q->base + q->layout.tier[t].owners);
    uint64_t mine = (uint64_t)(slot + 1) << 40 | (uint64_t)shmq_ctl_generation(ctl) << 12;
    if (end > shmq_tier_committed(q, t))
        fault(st, "granules outside committed memory", slot, place);
    for (uint32_t i = start; i < end; i++)
        if (shmq_load(&owners[i]) != mine)
            fault(st, "a granule of a message belongs to another", slot, shmq_load(&owners[i]));
}

/* Where heads are dropped never more is counted than is ready, or one would be dropped for nothing; where publishes are refused never
 * less, or there would be one too many. */
static void check_depth(struct stage *st)
{
    struct shmq_queue *q = &st->q[SUPERVISOR];
    int64_t ready = 0, bytes = 0, counted = (int64_t)shmq_load(&q->header->depth[0]), sum = (int64_t)shmq_load(&q->header->depth[1]);
    if (!shmq_overflow(q))
        return;
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        if (shmq_ctl_state(shmq_load(&shmq_slot_at(q, slot)->ctl)) != SHMQ_READY)
            continue;
        ready++;
        bytes += shmq_shape_body(shmq_load(&shmq_slot_at(q, slot)->shape));
    }
    if (shmq_refuses(shmq_overflow(q)) ? counted < ready || sum < bytes : counted > ready || sum > bytes)
        fault(st, "what is ready is miscounted to the wrong side", (uint64_t)counted, (uint64_t)ready);
}

void judge_invariants(struct stage *st)
{
    struct shmq_queue *q = &st->q[SUPERVISOR];
    uint64_t ids[SLOTS_MAX];
    uint32_t n = 0;
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        struct shmq_delivery d;
        uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl), place = shmq_load(&shmq_slot_at(q, slot)->place), id;
        check_owner(st, slot, ctl);
        check_time(st, slot, ctl);
        if (shmq_ctl_state(ctl) == SHMQ_FREE || shmq_ctl_state(ctl) == SHMQ_WRITING)
            continue;
        if (shmq_describe(q, slot, ctl, &d) != SHMQ_OK)
            fault(st, "a message cannot be described", slot, ctl);
        memcpy(&id, d.body, sizeof id);
        if (!body_is(d.body, d.body_bytes, id))
            fault(st, "a torn body", slot, id);
        if (shmq_place_tier(place))
            check_granules(st, slot, ctl, place);
        for (uint32_t i = 0; i < n; i++)
            if (ids[i] == id)
                fault(st, "a message in two slots", slot, id);
        ids[n++] = id;
    }
    check_depth(st);
    uint32_t own = st->children == 1 && st->scene->kind == TAKES ? 0 : st->children; /* a taker makes nothing READY */
    if (judge_unreferenced(st) > own)
        fault(st, "more than the children's own messages without a reference", judge_unreferenced(st), own);
}

/* ---- settled and delivered ---- */
void judge_settled(struct stage *st, uint64_t id)
{
    struct entry *e = ledger_find(st, id);
    if (e->settled++)
        fault(st, "settled twice", id, 0);
    if (e->expect == NEVER)
        fault(st, "a message that must not be", id, 0);
}

/* What had a place when the stage was set and is freed or acked now, the child has settled. */
void judge_note_child(struct stage *st)
{
    for (uint32_t i = 0; i < st->ledger0.n; i++) {
        struct entry *e = &st->ledger.entry[i];
        if (e->slot == SHMQ_NO_SLOT || e->settled)
            continue;
        uint64_t ctl = shmq_load(&shmq_slot_at(&st->q[SUPERVISOR], e->slot)->ctl);
        if (shmq_ctl_generation(ctl) != shmq_ctl_generation(e->ctl) || shmq_ctl_state(ctl) == SHMQ_ACKED)
            judge_settled(st, e->id);
    }
}

uint64_t judge_body(struct stage *st, const struct shmq_delivery *d)
{
    uint64_t id;
    memcpy(&id, d->body, sizeof id);
    if (d->body_bytes < 24 || !body_is(d->body, d->body_bytes, id))
        fault(st, "a torn body was delivered", id, d->slot);
    if (ledger_find(st, id)->settled)
        fault(st, "delivered after it was settled", id, d->ctl);
    return id;
}

void judge_delivery(struct stage *st, const struct shmq_delivery *d)
{
    uint64_t id = judge_body(st, d);
    uint32_t producer = (uint32_t)(id / 1000);
    if (shmq_ctl_deliveries(d->ctl) != 1 || ledger_find(st, id)->loose)
        return;
    uint64_t *last = &st->ledger.last_first[producer][d->level];
    if (*last > id)
        fault(st, "first deliveries of a producer out of order", id, *last);
    *last = id;
}

int judge_take(struct stage *st, uint32_t handle, struct shmq_delivery *d)
{
    struct survey s;
    look_around(st, &s);
    int r = shmq_take(&st->q[handle], d);
    if (r == SHMQ_EMPTY && s.visible)
        fault(st, "nothing was found though a message is ready and referenced", s.visible, 0);
    if (r == SHMQ_EMPTY)
        return r;
    if (r != SHMQ_OK)
        fault(st, "take failed", (uint64_t)(int64_t)r, 0);
    judge_delivery(st, d);
    if (d->level < s.top)
        fault(st, "a message of a higher level was ready", d->level, (uint64_t)s.top);
    if (s.lowest_returned[d->level] < d->sequence)
        fault(st, "an older returned message was ready", d->sequence, s.lowest_returned[d->level]);
    return r;
}

/* ---- the others' work ---- */
static uint64_t cpu_now(void) /* a stall is work or waiting of ours, not another process on this core */
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int publish_one(struct stage *st, uint32_t handle)
{
    struct survey s;
    int r;
    look_around(st, &s);
    struct shmq_draft d = {.body_bytes = handle == 2 ? 600 : 24, .level = handle % st->q[0].geometry.levels, .ttl_ns = -1};
    stage_publish(st, handle, d, &r);
    if (r == SHMQ_FULL && s.free)
        fault(st, "\"full\" while a slot is free", s.free, handle);
    if (r != SHMQ_OK && r != SHMQ_FULL && r != SHMQ_REFUSED)
        fault(st, "publish failed", (uint64_t)(int64_t)r, handle);
    return r;
}

static void work(struct stage *st, uint32_t handle)
{
    struct shmq_delivery d;
    int published = publish_one(st, handle), taken = judge_take(st, handle, &d);
    if (taken == SHMQ_OK) {
        uint64_t id = judge_body(st, &d);
        int acked = shmq_ack(&st->q[handle], &d);
        if (acked != SHMQ_OK)
            fault(st, "ack failed", (uint64_t)(int64_t)acked, d.ctl);
        judge_settled(st, id);
    }
    if (published == SHMQ_FULL && taken == SHMQ_OK && publish_one(st, handle) != SHMQ_OK)
        fault(st, "no room behind an ack", handle, 0);
}

void judge_others_work(struct stage *st)
{
    for (uint32_t handle = 1; handle <= OTHERS; handle++) {
        uint64_t start = cpu_now();
        work(st, handle);
        uint64_t took = cpu_now() - start;
        if (took > st->slowest_ns)
            st->slowest_ns = took;
        if (took > STALL_NS)
            fault(st, "others were held up (ns)", took, handle);
    }
}
