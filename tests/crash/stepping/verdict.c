/* verdict.c - the end of each experiment: the child is dead, or came to its end in a world that had moved on. Reap, heal and drain are
 * repeated until nothing changes; then every message must have been settled as often as it should, nothing may be left, and all
 * slots and granules must be free. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stepping.h"
#include "support.h"

#include <poll.h>
#include <string.h>

#define LATER_NS UINT64_C(200000000) /* beyond the second look */
#define ROUNDS_MAX 30

static struct shmq_queue *supervisor(struct stage *st)
{
    return &st->q[SUPERVISOR];
}

static uint64_t id_at(struct stage *st, uint32_t slot, uint64_t ctl)
{
    struct shmq_delivery d;
    uint64_t id;
    if (shmq_describe(supervisor(st), slot, ctl, &d) != SHMQ_OK)
        fault(st, "a message cannot be described", slot, ctl);
    memcpy(&id, d.body, sizeof id);
    if (!body_is(d.body, d.body_bytes, id))
        fault(st, "a torn body", slot, id);
    ledger_find(st, id);
    return id;
}

/* ---- the supervisor ---- */
static bool settle_dead(struct stage *st, uint32_t slot, uint64_t ctl)
{
    uint64_t id = id_at(st, slot, ctl);
    if (shmq_settle_dead(supervisor(st), slot, ctl) != SHMQ_OK)
        return false;
    judge_settled(st, id);
    return true;
}

static bool take_up(struct stage *st)
{
    bool changed = false;
    uint32_t slot;
    uint64_t ctl;
    while (shmq_pop(supervisor(st), SHMQ_DEAD, &slot, &ctl) == SHMQ_OK)
        changed |= settle_dead(st, slot, ctl);
    while (shmq_pop(supervisor(st), SHMQ_DELAYED, &slot, &ctl) == SHMQ_OK)
        changed |= shmq_fire(supervisor(st), slot, ctl, UINT64_MAX) == SHMQ_OK;
    for (slot = 0; slot < shmq_slots_high(supervisor(st)); slot++) { /* those that no ring leads to */
        ctl = shmq_load(&shmq_slot_at(supervisor(st), slot)->ctl);
        if (shmq_ctl_state(ctl) == SHMQ_DEAD)
            changed |= settle_dead(st, slot, ctl);
        if (shmq_ctl_state(ctl) == SHMQ_DELAYED)
            changed |= shmq_fire(supervisor(st), slot, ctl, UINT64_MAX) == SHMQ_OK;
    }
    return changed;
}

static bool heal(struct stage *st)
{
    struct shmq_heal_report report;
    bool changed = false;
    for (int look = 0; look < 2; look++) {
        if (shmq_heal_step(supervisor(st), st->now += LATER_NS, true, &report))
            fault(st, "the healer failed", 0, 0);
        changed |= report.bits || report.references || report.rescan;
    }
    return changed;
}

static bool drain(struct stage *st)
{
    struct shmq_delivery d;
    bool changed = false;
    while (judge_take(st, 1, &d) == SHMQ_OK) {
        uint64_t id = judge_body(st, &d);
        if (shmq_ack(&st->q[1], &d) != SHMQ_OK)
            fault(st, "ack failed", id, d.ctl);
        judge_settled(st, id);
        changed = true;
    }
    return changed;
}

/* Beside those who are stopped; what they have swapped and not counted is not corrected. */
void verdict_heals_beside(struct stage *st)
{
    if (!shmq_overflow(supervisor(st)))
        return;
    st->phase = "the healer beside who is stopped";
    heal(st);
    judge_invariants(st);
}

/* ---- the end ---- */
static void say(void *context, const char *what)
{
    fault(context, what, 0, 0);
}

static void all_slots_can_be_claimed(struct stage *st)
{
    static uint64_t ctl[512];
    static uint32_t slot[512];
    uint32_t n = 0, all = st->q[0].geometry.slots;
    while (n < all && shmq_slot_claim(&st->q[1 + n % OTHERS], &slot[n], &ctl[n]) == SHMQ_OK)
        n++;
    if (n != all)
        fault(st, "slots leaked", all - n, 0);
    while (n--)
        if (shmq_slot_free(&st->q[1], slot[n], ctl[n], NULL) != SHMQ_OK)
            fault(st, "a slot cannot be freed", slot[n], ctl[n]);
}

static void all_granules_are_free(struct stage *st)
{
    struct shmq_queue *q = supervisor(st);
    for (uint32_t t = 0; t < SHMQ_TIERS; t++) {
        const shmq_word *owners = (const shmq_word *)(void *)(q->base + q->layout.tier[t].owners);
        uint32_t slot;
        for (uint32_t i = 0; i < shmq_tier_committed(q, t); i++)
            if (shmq_arena_owner_live(q, shmq_load(&owners[i]), &slot))
                fault(st, "a granule leaked", i, shmq_load(&owners[i]));
    }
}

static void everything_is_as_it_should_be(struct stage *st)
{
    struct shmq_stats s;
    struct shmq_queue *q = supervisor(st);
    shmq_stats(q, &s);
    uint64_t dropped = (shmq_overflow(q) & 0xfu) == SHMQ_DROPS ? s.purged + st->children : 0; /* a child may have died uncounted */
    for (uint32_t i = 0; i < st->ledger.n; i++) {
        struct entry *e = &st->ledger.entry[i];
        if (e->expect == MUST && !e->settled && !dropped--)
            fault(st, "a message was lost", e->id, shmq_load(&shmq_slot_at(q, e->slot < 512 ? e->slot : 0)->ctl));
    }
    for (uint32_t slot = 0; slot < shmq_slots_committed(q); slot++)
        if (shmq_ctl_state(shmq_load(&shmq_slot_at(q, slot)->ctl)) != SHMQ_FREE)
            fault(st, "a slot is not free at the end", slot, shmq_load(&shmq_slot_at(q, slot)->ctl));
    st->phase = "the check at the end";
    shmq_check(q, say, st);
    shmq_stats(q, &s);
    if (s.ready || s.unacked || s.arena_used)
        fault(st, "a gauge is not zero at the end (ready or unacked, arena)", s.ready + s.unacked, s.arena_used);
    if (s.delayed || s.dead_pending)
        fault(st, "a gauge is not zero at the end (delayed, dead)", s.delayed, s.dead_pending);
    if (shmq_overflow(q) && (shmq_load(&q->header->depth[0]) || shmq_load(&q->header->depth[1])))
        fault(st, "what is ready is miscounted at the end", shmq_load(&q->header->depth[0]), shmq_load(&q->header->depth[1]));
    all_granules_are_free(st);
    all_slots_can_be_claimed(st);
}

/* A sleeper was registered when the stage was set, and a message is there: so must be a token. After a death, when the supervisor has
 * rung; without one, in any case. */
static void sleepers_wake(struct stage *st, bool supervisor_rings)
{
    if (!st->scene->sleepers)
        return;
    for (int side = 0; side < SHMQ_SIDES && supervisor_rings; side++)
        shmq_bell_ring_all(supervisor(st), (enum shmq_side)side);
    shmq_bell_ring_unheard(supervisor(st)); /* it comes round */
    struct pollfd p = {.fd = st->bell[SHMQ_CONSUMERS], .events = POLLIN};
    if (shmq_may_have(&st->q[1]) && poll(&p, 1, 0) != 1)
        fault(st, "a sleeper beside a ready message", 0, 0);
}

static void finish(struct stage *st)
{
    int rounds = 0;
    for (bool changed = true; changed; rounds++) {
        if (rounds == ROUNDS_MAX)
            fault(st, "no end of healing and draining", 0, 0);
        changed = heal(st);
        sleepers_wake(st, true);
        judge_invariants(st);
        changed |= drain(st);
        changed |= take_up(st);
    }
    everything_is_as_it_should_be(st);
}

static void reap(struct stage *st, bool lost_session)
{
    struct shmq_counts counts;
    for (int twice = 0; twice < 2; twice++) /* idempotent */
        if (shmq_reap(supervisor(st), NULL, CHILD + 1, !st->scene->limit, lost_session, &counts) ||
            (!lost_session && shmq_reap(supervisor(st), NULL, DEAD_ONE + 1, true, false, &counts)) ||
            (!lost_session && shmq_reap(supervisor(st), NULL, SECOND + 1, true, false, &counts)))
            fault(st, "the reaper failed", 0, 0);
}

/* Where there is always traffic nobody corrects a charge that is too high: it would refuse bodies for ever. */
static void nothing_is_charged_for_what_is_gone(struct stage *st)
{
    struct shmq_queue *q = supervisor(st);
    uint64_t charged = 0, used = shmq_load(&q->header->arena_used);
    for (uint32_t i = 0; i < shmq_slots_high(q); i++) {
        struct shmq_slot *s = shmq_slot_at(q, i);
        uint64_t place = shmq_load(&s->place);
        if (shmq_ctl_state(shmq_load(&s->ctl)) != SHMQ_FREE && shmq_place_tier(place))
            charged += (uint64_t)shmq_place_count(place) << q->layout.tier[shmq_place_tier(place) - 1].shift;
    }
    if ((int64_t)used > (int64_t)charged)
        fault(st, "the arena is charged for what is gone", used, charged);
}

void verdict_killed(struct stage *st)
{
    st->phase = "reap, heal and drain after the death";
    reap(st, false);
    nothing_is_charged_for_what_is_gone(st);
    sleepers_wake(st, true);
    finish(st);
}

/* ---- the world moves on ---- */
static void purge(struct stage *st)
{
    struct shmq_queue *q = supervisor(st);
    uint64_t ctl[512], id[512];
    uint32_t high = shmq_slots_high(q);
    for (uint32_t slot = 0; slot < high; slot++) {
        ctl[slot] = shmq_load(&shmq_slot_at(q, slot)->ctl);
        id[slot] = shmq_ctl_state(ctl[slot]) == SHMQ_READY ? id_at(st, slot, ctl[slot]) : 0;
    }
    if (shmq_purge(q, UINT64_MAX) < 0)
        fault(st, "the purge failed", 0, 0);
    for (uint32_t slot = 0; slot < high; slot++) {
        if (!id[slot])
            continue;
        if (shmq_load(&shmq_slot_at(q, slot)->ctl) == ctl[slot])
            fault(st, "a purge left a ready message", slot, id[slot]);
        judge_settled(st, id[slot]);
    }
}

/* Rings that are empty go on by 2^20 laps: their entries look as they did. */
static void lap(struct stage *st)
{
    struct shmq_queue *q = supervisor(st);
    for (uint32_t n = 0; n < 2 * q->geometry.levels; n++) {
        if (!shmq_level_committed(q, n / 2))
            continue;
        struct shmq_ring r = n & 1 ? shmq_ring_returned(q, n / 2) : shmq_ring_main(q, n / 2);
        uint32_t bits;
        uint64_t k = shmq_load(&r.ends->front);
        struct shmq_part *part = shmq_ring_part(q, &r, k, &bits);
        uint64_t head = shmq_load(&part->head), tail = shmq_load(&part->tail);
        if (head != tail || k != shmq_load(&r.ends->back) || shmq_ring_may_have(q, &r))
            continue;
        atomic_store(&part->head, head + (UINT64_C(1) << (20 + bits)));
        atomic_store(&part->tail, head + (UINT64_C(1) << (20 + bits)));
    }
}

static struct shmq_delivery kept[LEDGER_MAX]; /* by others, while the child goes on */
static uint32_t kept_n;

static void keep(struct stage *st, uint32_t most)
{
    while (kept_n < most && judge_take(st, 1 + kept_n % OTHERS, &kept[kept_n]) == SHMQ_OK)
        kept_n++;
}

void verdict_world_moves_on(struct stage *st, enum move move)
{
    int r = SHMQ_OK;
    st->phase = "the world moves on";
    if (st->scene->kind != SWEEPS)
        reap(st, true); /* its session was lost; it is alive */
    kept_n = 0;
    if (move == MOVE_PURGED)
        purge(st);
    else if (move == MOVE_HELD)
        keep(st, LEDGER_MAX);
    else
        drain(st);
    if (move == MOVE_LAPPED)
        lap(st);
    for (uint32_t n = 0; r == SHMQ_OK && n < 40; n++) { /* until every slot is used anew */
        struct shmq_draft d = {.body_bytes = n % 3 == 2 ? 600 : 24, .level = n % st->q[0].geometry.levels, .ttl_ns = -1};
        stage_publish(st, 1 + n % OTHERS, d, &r);
    }
    keep(st, kept_n + 2);
    judge_invariants(st);
    verdict_heals_beside(st);
}

/* ---- the child went on to its end ---- */
void verdict_result(struct stage *st)
{
    struct report *said = st->report;
    int r = atomic_load(&said->result);
    if (r < 0)
        fault(st, "the child's operation failed", (uint64_t)(int64_t)r, 0);
    if (st->scene->kind == PUBLISHES && st->own_id) {
        struct entry *e = ledger_find(st, st->own_id);
        e->expect = stage_has(st, r) ? MUST : NEVER;
        if (e->expect == NEVER && e->settled)
            fault(st, "a publish that failed was delivered", e->id, (uint64_t)r);
    }
    if (st->scene->kind != TAKES || r != SHMQ_OK)
        return;
    if (said->current && !said->whole)
        fault(st, "a copy that was current is torn", said->id, said->delivery.ctl);
    bool still = shmq_is_current(&st->q[CHILD], &said->delivery);
    if (still && ledger_find(st, said->id)->settled)
        fault(st, "the child was delivered what had been settled", said->id, said->delivery.ctl);
    int acked = shmq_ack(&st->q[CHILD], &said->delivery);
    if ((acked == SHMQ_OK) != still)
        fault(st, "an ack of the child's delivery", (uint64_t)acked, said->delivery.ctl);
    if (still)
        judge_settled(st, said->id);
}

/* A settling child that had not committed when the world moved on must be refused. */
static void judge_refusal(struct stage *st, bool was_its_own)
{
    int r = atomic_load(&st->report->result);
    if (st->scene->kind != SETTLES)
        return;
    if (was_its_own && r != SHMQ_STALE)
        fault(st, "a late settlement was not refused", (uint64_t)r, st->held.ctl);
    if (!was_its_own && r != SHMQ_OK && r != SHMQ_DEAD_NOW)
        fault(st, "a settlement that was done is refused", (uint64_t)r, st->held.ctl);
}

void verdict_continued(struct stage *st)
{
    st->phase = "the child went on to its end";
    judge_note_child(st);
    judge_refusal(st, st->stopped_ctl == st->held.ctl && shmq_ctl_state(st->held.ctl) == SHMQ_UNACKED); /* ACKED is nobody else's */
    verdict_result(st);
    judge_invariants(st);
    sleepers_wake(st, false);
    for (uint32_t i = 0; i < kept_n; i++) {
        uint64_t id = judge_body(st, &kept[i]);
        if (shmq_ack(&st->q[1 + i % OTHERS], &kept[i]) != SHMQ_OK)
            fault(st, "the child settled another's message", id, kept[i].ctl);
        judge_settled(st, id);
    }
    st->phase = "reap, heal and drain after its end";
    reap(st, false);
    finish(st);
}
