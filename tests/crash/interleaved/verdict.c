/* verdict.c - the ledger of messages, what an operation may answer, and the end: reap, heal and drain until nothing changes; then every
 * message was settled as often as it should, nothing is left, and all slots are free. */
#include "interleaved.h"

#include <string.h>

#define ROUNDS_MAX 12

struct ledger ledger;

/* ---- what is there, seen from outside; never a point of an order ---- */
static void follow(struct glimpse *g, struct shmq_queue *q, struct shmq_ring r, bool returned)
{
    uint64_t front = shmq_load(&r.ends->front), back = shmq_load(&r.ends->back), ctl;
    for (uint64_t k = front; k <= back; k++) {
        uint32_t bits;
        struct shmq_part *part = shmq_ring_part(q, &r, k, &bits);
        for (uint64_t p = shmq_load(&part->head), tail = shmq_load(&part->tail); p <= tail; p++) {
            uint64_t e = shmq_load(&part->entry[shmq_entry_index(p, bits)]);
            bool full = shmq_entry_is_full(e) && shmq_entry_lap(e) == (p >> bits & 0xfffff);
            if (!full || !shmq_reference_live(q, e, SHMQ_READY, &ctl))
                continue;
            g->referenced[shmq_entry_slot(e)] = true;
            g->returned[shmq_entry_slot(e)] |= returned;
        }
    }
}

void glimpse_take(struct glimpse *g)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    bool was_open = seam_is_open;
    seam_is_open = false;
    memset(g, 0, sizeof *g);
    for (uint32_t level = 0; level < stage.geometry.levels; level++)
        if (shmq_level_committed(q, level)) {
            follow(g, q, shmq_ring_main(q, level), false);
            follow(g, q, shmq_ring_returned(q, level), true);
        }
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++)
        g->ctl[slot] = shmq_load(&shmq_slot_at(q, slot)->ctl);
    seam_is_open = was_open;
}

/* The same word twice: nobody had it in between, as deliveries and generation are counted. */
static bool all_the_while(const struct glimpse *before, const struct glimpse *now, uint32_t slot, uint32_t state)
{
    return before->ctl[slot] == now->ctl[slot] && shmq_ctl_state(now->ctl[slot]) == state;
}

static bool was_there(const struct glimpse *before, const struct glimpse *now, uint32_t slot)
{
    return all_the_while(before, now, slot, SHMQ_READY) && before->referenced[slot] && now->referenced[slot];
}

void judge_nothing(const struct glimpse *before)
{
    struct glimpse now;
    glimpse_take(&now);
    for (uint32_t slot = 0; slot < stage.geometry.slots; slot++)
        if (was_there(before, &now, slot))
            fault("nothing was found, but a message was there all the while", slot, (long long)now.ctl[slot]);
}

void judge_full(const struct glimpse *before)
{
    struct glimpse now;
    glimpse_take(&now);
    for (uint32_t slot = 0; slot < stage.geometry.slots; slot++)
        if (all_the_while(before, &now, slot, SHMQ_FREE))
            fault("\"full\", but a slot was free all the while", slot, (long long)now.ctl[slot]);
}

void judge_delivery(const struct glimpse *before, const struct shmq_delivery *d)
{
    struct glimpse now;
    glimpse_take(&now);
    if (now.ctl[d->slot] != d->ctl)
        return; /* taken back already */
    bool was_open = seam_is_open;
    seam_is_open = false;
    for (uint32_t slot = 0; slot < stage.geometry.slots; slot++) {
        if (!was_there(before, &now, slot))
            continue;
        struct shmq_slot *s = shmq_slot_at(&stage.q[AUDITOR], slot);
        uint8_t level = shmq_shape_level(shmq_load(&s->shape));
        if (level > d->level)
            fault("a message of a higher level was there all the while", slot, d->slot);
        if (level == d->level && before->returned[slot] && now.returned[slot] && shmq_load(&s->sequence) < d->sequence)
            fault("an older returned message was there all the while", slot, d->slot);
    }
    seam_is_open = was_open;
}

uint64_t judge_body(const struct shmq_delivery *d)
{
    uint64_t id;
    memcpy(&id, d->body, sizeof id);
    if (id >= IDS || !body_is(d->body, d->body_bytes, id))
        fault("a torn body", (long long)id, d->slot);
    if (ledger.message[id].expect == UNKNOWN || ledger.message[id].expect == NEVER)
        fault("a message that must not be", (long long)id, d->slot);
    if (ledger.message[id].settled)
        fault("delivered after it was settled", (long long)id, d->slot);
    return id;
}

void judge_settled(uint64_t id)
{
    if (ledger.message[id].settled++)
        fault("settled twice", (long long)id, 0);
}

/* Nobody can go on by himself, and this one sleeps. */
void judge_asleep(enum shmq_side side)
{
    struct glimpse now;
    glimpse_take(&now);
    for (uint32_t slot = 0; slot < shmq_slots_committed(&stage.q[AUDITOR]); slot++)
        if (side == SHMQ_CONSUMERS ? now.referenced[slot] : shmq_ctl_state(now.ctl[slot]) == SHMQ_FREE)
            fault("somebody sleeps beside what he waits for", slot, (long long)now.ctl[slot]);
}

/* ---- the end ---- */
static bool drain(void)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    struct shmq_delivery d;
    bool changed = false;
    int r;
    while ((r = shmq_take(q, &d)) == SHMQ_OK) {
        uint64_t id = judge_body(&d);
        if (shmq_ack(q, &d) != SHMQ_OK)
            fault("the auditor's ack was refused", (long long)id, d.slot);
        judge_settled(id);
        changed = true;
    }
    if (r != SHMQ_EMPTY)
        fault("the auditor's take failed", r, 0);
    return changed;
}

static bool take_up(void) /* the dead and the delayed, as a supervisor does that begins anew */
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    bool changed = false;
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl);
        struct shmq_delivery d;
        if (shmq_ctl_state(ctl) == SHMQ_DELAYED)
            changed |= shmq_fire(q, slot, ctl, UINT64_MAX) == SHMQ_OK;
        if (shmq_ctl_state(ctl) != SHMQ_DEAD)
            continue;
        if (shmq_describe(q, slot, ctl, &d))
            fault("a dead message cannot be described", slot, 0);
        judge_settled(judge_body(&d));
        shmq_settle_dead(q, slot, ctl);
        changed = true;
    }
    return changed;
}

static void say(void *context, const char *what)
{
    (void)context;
    fault(what, 0, 0);
}

static void nothing_is_left(bool somebody_died)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    struct shmq_stats stats;
    struct {
        uint64_t id;
        unsigned messages;
    } lost = {0}; /* dropped, if heads are free at once */
    for (uint64_t id = 0; id < IDS; id++) {
        const struct message *m = &ledger.message[id];
        if (m->expect != MUST || m->settled || m->purged)
            continue;
        lost.id = id;
        lost.messages++;
    }
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl);
        if (shmq_ctl_state(ctl) != SHMQ_FREE)
            fault("a slot is not free at the end", slot, (long long)ctl);
    }
    shmq_check(q, say, NULL);
    shmq_stats(q, &stats);
    if (shmq_overflow(q) && (shmq_load(&q->header->depth[0]) || shmq_load(&q->header->depth[1])))
        fault("what is ready is miscounted at the end", (long long)shmq_load(&q->header->depth[0]), (long long)shmq_load(&q->header->depth[1]));
    bool drops = (shmq_overflow(q) & 0xfu) == SHMQ_DROPS;
    if (lost.messages > (drops ? stats.purged + somebody_died : 0))
        fault("a message was lost", (long long)lost.id, lost.messages);
    if (stats.ready || stats.unacked || stats.arena_used)
        fault("a gauge is not zero at the end", (long long)(stats.ready + stats.unacked), (long long)stats.arena_used);
}

/* Where there is a limit: no more is ready than may be, and nothing was dropped or refused for which there was room. What a death leaves
 * miscounted may cost a publish its room. */
static void judge_length(bool somebody_died)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    uint64_t length = shmq_load(&q->header->max_length), ready = 0;
    struct shmq_stats stats;
    if (!length)
        return;
    shmq_stats(q, &stats);
    uint64_t left_out = stats.purged, stayed = stats.acked;
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl);
        bool too_many = shmq_ctl_state(ctl) == SHMQ_DEAD && shmq_ctl_owner(ctl) == SHMQ_MAXLEN;
        ready += shmq_ctl_state(ctl) == SHMQ_READY;
        left_out += too_many;
        stayed += shmq_ctl_state(ctl) != SHMQ_FREE && !too_many;
    }
    bool purged = false; /* by a scene: nobody knows which of those were left out */
    for (uint64_t id = 0; id < IDS; id++) {
        left_out += ledger.message[id].expect == NEVER;
        purged |= ledger.message[id].purged;
    }
    if (ready > length - 1)
        fault("more is ready than may be", (long long)ready, (long long)length - 1);
    if (!somebody_died && !purged && left_out && stayed < length - 1)
        fault("dropped or refused though there was room", (long long)stayed, (long long)length - 1);
}

/* Where there is a limit: counted is what is ready, or as wrong as when the order began. A death leaves too few where heads are dropped, and
 * too many where publishes are refused. */
static void judge_depth(bool somebody_died)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    int64_t off = (int64_t)shmq_load(&q->header->depth[0]), bytes = (int64_t)shmq_load(&q->header->depth[1]);
    if (!shmq_overflow(q))
        return;
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        const struct shmq_slot *s = shmq_slot_at(q, slot);
        if (shmq_ctl_state(shmq_load(&s->ctl)) != SHMQ_READY)
            continue;
        off--;
        bytes -= shmq_shape_body(shmq_load(&s->shape));
    }
    bool wrong_side = shmq_refuses(shmq_overflow(q)) ? off < 0 || bytes < 0 : off > 0 || bytes > 0;
    if (wrong_side || (!somebody_died && off && off != ledger.miscounted))
        fault("what is ready is miscounted", off, bytes);
}

/* Who made it ready named its time, unless he died before that: then the slow sweep finds it. */
static void judge_first_expiry(void)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    uint64_t known = shmq_load(&q->header->expiry);
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        struct shmq_slot *s = shmq_slot_at(q, slot);
        uint64_t expires = shmq_load(&s->expires);
        if (shmq_ctl_state(shmq_load(&s->ctl)) == SHMQ_READY && expires && (!known || known > expires))
            fault("nobody knows when a message expires", slot, (long long)known);
    }
}

void judge_end(bool somebody_died)
{
    if (!somebody_died)
        judge_first_expiry();
    judge_length(somebody_died);
    judge_depth(somebody_died);
    struct shmq_heal_report report;
    bool changed = true;
    for (unsigned round = 0; changed; round++) {
        if (round == ROUNDS_MAX)
            fault("no end of healing and draining", 0, 0);
        changed = drain();
        changed |= take_up();
        for (unsigned look = 0; look < 2; look++) {
            if (shmq_heal_step(&stage.q[AUDITOR], shmq_now() + LATER * (2 * round + look), true, &report))
                fault("the healer failed", 0, 0);
            changed |= report.references || report.bits;
        }
    }
    nothing_is_left(somebody_died);
}

/* ---- one is stopped, all others are through or asleep ---- */
static bool is_somewhere(uint64_t id)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++) {
        uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl), there;
        struct shmq_delivery d;
        if (shmq_ctl_state(ctl) == SHMQ_FREE || shmq_ctl_state(ctl) == SHMQ_WRITING || shmq_describe(q, slot, ctl, &d))
            continue;
        memcpy(&there, d.body, sizeof there);
        if (there == id)
            return true;
    }
    return false;
}

/* What is gone, the stopped one has freed and could not say so: one at most. When it lives, the end of this order shows that it was so. */
static void note_what_it_settled(void)
{
    unsigned gone = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        struct message *m = &ledger.message[id];
        if (m->expect != MUST || m->settled || m->purged || is_somewhere(id))
            continue;
        if ((shmq_overflow(&stage.q[AUDITOR]) & 0xfu) == SHMQ_DROPS)
            continue; /* dropped, by whomever */
        m->settled = 1;
        if (++gone > 1)
            fault("more is gone than the stopped one can have settled", (long long)id, gone);
    }
}

void judge_stopped(unsigned stopped, bool takes_back)
{
    struct shmq_counts counts;
    struct glimpse now;
    uint32_t hidden = 0;
    glimpse_take(&now);
    for (uint32_t slot = 0; slot < stage.geometry.slots; slot++)
        hidden += shmq_ctl_state(now.ctl[slot]) == SHMQ_READY && !now.referenced[slot];
    if (hidden > 1)
        fault("more than the stopped one's own message without a reference", hidden, stopped);
    note_what_it_settled();
    (void)drain(); /* while it is stopped */
    if (shmq_reap(&stage.q[AUDITOR], NULL, stopped + 1, false, false, &counts))
        fault("the reaper failed", stopped, 0);
    if (takes_back && shmq_reap(&stage.q[AUDITOR], NULL, 1, false, true, &counts)) /* the dead one may have been at it */
        fault("the reaper failed", 0, 0);
    judge_end(true);
}
