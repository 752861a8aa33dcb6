/* scenes.c - who does what, and in which state. Rings have 4 entries and slots are few. */
#include "interleaved.h"

#include <fcntl.h>
#include <string.h>

#define MESSAGE(me, n) ((uint64_t)(me) * 128 + (n)) /* never 0 */

/* ---- operations, of a process on its own handle ---- */
static struct shmq_queue *mine(unsigned me)
{
    return &stage.q[me];
}

static int publish_as(unsigned me, unsigned n, struct shmq_draft d)
{
    uint64_t id = MESSAGE(me, n);
    struct shmq_write w;
    struct glimpse before;
    ledger.message[id].expect = MAYBE;
    glimpse_take(&before);
    int r = shmq_write_begin(mine(me), &d, &w);
    if (r == SHMQ_OK) {
        body_fill(w.body, 24, id);
        POINT();
        body_fill(w.body, d.body_bytes, id);
        r = shmq_write_commit(mine(me), &w);
    } else if (r == SHMQ_FULL && !d.level) {
        judge_full(&before);
    }
    if (r != SHMQ_OK && r != SHMQ_FULL && r != SHMQ_REFUSED)
        fault("a publish failed", r, (long long)id);
    bool refused_and_dead = r == SHMQ_REFUSED && shmq_overflow(mine(me)) == SHMQ_REFUSES_DEAD;
    ledger.message[id].expect = r == SHMQ_OK || refused_and_dead ? MUST : NEVER;
    return r;
}

static void publish_one(unsigned me)
{
    publish_as(me, 1, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1});
}

static void publish_two(unsigned me)
{
    publish_one(me);
    publish_as(me, 2, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1});
}

static void publish_high(unsigned me)
{
    publish_as(me, 1, (struct shmq_draft){.body_bytes = 24, .level = stage.geometry.levels - 1, .ttl_ns = -1});
}

static void publish_mortal(unsigned me)
{
    publish_as(me, 1, (struct shmq_draft){.body_bytes = 24, .ttl_ns = INT64_C(3600000000000) + 1000000 * (me % 2)});
}

static void publish_large(unsigned me)
{
    publish_as(me, 1, (struct shmq_draft){.body_bytes = 900, .ttl_ns = -1});
}

/* Takes one and looks at its body: its id, or 0 when there was none, or it was taken back. */
static uint64_t take_one(unsigned me, struct shmq_delivery *d)
{
    struct glimpse before;
    glimpse_take(&before);
    int r = shmq_take(mine(me), d);
    if (r == SHMQ_EMPTY) {
        judge_nothing(&before);
        return 0;
    }
    if (r != SHMQ_OK)
        fault("a take failed", r, me);
    judge_delivery(&before, d);
    POINT();
    bool was_open = seam_is_open;
    seam_is_open = false;
    uint64_t id = shmq_is_current(mine(me), d) ? judge_body(d) : 0;
    seam_is_open = was_open;
    return id;
}

static void settle(unsigned me, const struct shmq_delivery *d, uint64_t id)
{
    int r = shmq_ack(mine(me), d);
    if (r == SHMQ_OK)
        judge_settled(id);
    else if (r != SHMQ_STALE)
        fault("an ack failed", r, (long long)id);
}

static void take_and_ack(unsigned me)
{
    struct shmq_delivery d;
    uint64_t id = take_one(me, &d);
    if (id)
        settle(me, &d, id);
}

static void take_and_ack_twice(unsigned me)
{
    take_and_ack(me);
    take_and_ack(me);
}

static void take_and_nack(unsigned me)
{
    struct shmq_delivery d;
    if (take_one(me, &d) && shmq_requeue(mine(me), d.slot, d.ctl, false) < 0)
        fault("a requeue failed", d.slot, me);
}

static void nack_twice(unsigned me)
{
    take_and_nack(me);
    take_and_nack(me);
}

static void nack_held(unsigned me)
{
    const struct shmq_delivery *d = &ledger.held[me];
    int r = shmq_requeue(mine(me), d->slot, d->ctl, false);
    if (r != SHMQ_OK)
        fault("a requeue failed", r, me);
}

static void nack_too_late(unsigned me)
{
    const struct shmq_delivery *d = &ledger.held[me];
    if (shmq_requeue(mine(me), d->slot, d->ctl, false) != SHMQ_STALE)
        fault("a nack that came too late was taken", d->slot, me);
}

static void ack_held(unsigned me)
{
    settle(me, &ledger.held[me], ledger.held_id[me]);
}

static void delay_held(unsigned me)
{
    const struct shmq_delivery *d = &ledger.held[me];
    int r = shmq_delay(mine(me), d->slot, d->ctl, shmq_now());
    if (r != SHMQ_OK)
        fault("a delay failed", r, me);
}

static void take_keep_release(unsigned me)
{
    struct shmq_delivery d;
    uint64_t id = take_one(me, &d);
    if (!id || shmq_ack_keep(mine(me), &d) != SHMQ_OK)
        return;
    judge_settled(id);
    POINT();
    if (!body_is(d.body, d.body_bytes, id))
        fault("a body changed under a view", (long long)id, d.slot);
    if (shmq_release(mine(me), &d) != SHMQ_OK)
        fault("a release failed", (long long)id, d.slot);
}

/* ---- what a supervisor does ---- */
static void lose_session(unsigned me) /* of process 0, which lives */
{
    struct shmq_counts counts;
    if (shmq_reap(mine(me), NULL, 1, false, true, &counts))
        fault("the reaper failed", 0, 0);
}

static void heal(unsigned me)
{
    struct shmq_heal_report report;
    for (int look = 0; look < 2; look++)
        if (shmq_heal_step(mine(me), shmq_now() + LATER * (unsigned)look, true, &report))
            fault("the healer failed", 0, 0);
}

static void bury_slot_0(unsigned me)
{
    uint64_t ctl = shmq_load(&shmq_slot_at(mine(me), 0)->ctl);
    if (shmq_ctl_state(ctl) == SHMQ_READY)
        shmq_bury(mine(me), 0, ctl, SHMQ_EXPIRED);
}

static void expire_all(unsigned me)
{
    if (shmq_expire_from(mine(me), shmq_now(), 0, SLOTS_MAX) < 0)
        fault("the look for what is expired failed", 0, 0);
}

static void purge(unsigned me)
{
    for (uint64_t id = 0; id < IDS; id++) /* what is there, or begun, may be gone then; what begins from here on may not */
        ledger.message[id].purged |= ledger.message[id].expect != UNKNOWN;
    int64_t purged = shmq_purge(mine(me), shmq_now());
    if (purged < 0)
        fault("the purge failed", purged, 0);
}

static void take_up_delayed(unsigned me)
{
    uint32_t slot;
    uint64_t ctl;
    while (shmq_pop(mine(me), SHMQ_DELAYED, &slot, &ctl) == SHMQ_OK)
        if (shmq_fire(mine(me), slot, ctl, UINT64_MAX) != SHMQ_OK)
            fault("a delayed message does not fire", slot, 0);
}

/* ---- sleepers ---- */
/* Sleeps until there may be something. False: for good. */
static bool sleep_at(unsigned me, enum shmq_side side)
{
    struct shmq_queue *q = mine(me);
    bool registered = true;
    shmq_bell_register(q, side);
    while (registered && !shmq_bell_look(q, side)) {
        if (!wait_for_token(me, side))
            return false;
        registered = !shmq_bell_token(q, side);
    }
    if (registered)
        shmq_bell_leave(q, side);
    return true;
}

static void sleep_and_take(unsigned me)
{
    struct shmq_delivery d;
    uint64_t id;
    while (!(id = take_one(me, &d)))
        if (!sleep_at(me, SHMQ_CONSUMERS))
            return;
    settle(me, &d, id);
}

static void cancel(unsigned me) /* in the middle of going to sleep */
{
    shmq_bell_register(mine(me), SHMQ_CONSUMERS);
    shmq_bell_look(mine(me), SHMQ_CONSUMERS);
    shmq_bell_leave(mine(me), SHMQ_CONSUMERS);
}

static void sleep_at_new_bells(unsigned me) /* of a new broker: it says so first */
{
    atomic_store(&mine(me)->header->epoch, mine(me)->bell_epoch);
    sleep_and_take(me);
}

static void publish_or_sleep(unsigned me)
{
    for (unsigned n = 1; publish_as(me, n, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1}) == SHMQ_FULL; n++)
        if (!sleep_at(me, SHMQ_PRODUCERS))
            return;
}

/* ---- states ---- */
static void nothing(void) {}

static void ready(unsigned n) /* n messages, by processes 0, 1, 0, .. */
{
    for (unsigned i = 0; i < n; i++)
        publish_as(i % 2, 8 + i, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1});
}

static void one_ready(void) { ready(1); }
static void two_ready(void) { ready(2); }
static void three_ready(void) { ready(3); }
static void four_ready(void) { ready(4); }
static void all_committed_in_use(void) { ready(64); } /* the next publish commits more slots */

static void limit(uint32_t overflow, uint64_t length)
{
    atomic_store(&stage.q[0].header->max_length, length + 1);
    atomic_store(&stage.q[0].header->overflow, overflow);
}

static void short_one(void) /* as long as it may be: its head is dropped */
{
    limit(SHMQ_DROPS_DEAD, 2);
    ready(2);
}

static void short_and_free(void) /* and is free at once */
{
    limit(SHMQ_DROPS, 2);
    ready(2);
}

static void last_one_only(void)
{
    limit(SHMQ_DROPS, 1);
    ready(1);
}


static void miscount(int64_t by) /* as deaths leave it */
{
    ledger.miscounted = by;
    atomic_fetch_add(&stage.q[0].header->depth[0], (uint64_t)by);
    atomic_fetch_add(&stage.q[0].header->depth[1], (uint64_t)by * 24);
}

static void short_and_miscounted(void)
{
    limit(SHMQ_DROPS_DEAD, 4);
    ready(2);
    miscount(-1);
}

static void refusing_and_miscounted(void)
{
    limit(SHMQ_REFUSES, 5);
    ready(2);
    miscount(1);
}

static void drops_wide(void) /* room for two */
{
    limit(SHMQ_DROPS_DEAD, 4);
    ready(2);
}

static void refuses_wide(void)
{
    limit(SHMQ_REFUSES, 5);
    ready(2);
}

static void refuses_and_taken_back(void) /* 0 does not know it */
{
    refuses_wide();
    ledger.held_id[0] = take_one(0, &ledger.held[0]);
    lose_session(AUDITOR);
}

static void delayed_and_miscounted(void)
{
    short_and_miscounted();
    ledger.held_id[0] = take_one(0, &ledger.held[0]);
    delay_held(0);
}

static void refusing(void) /* room for one */
{
    limit(SHMQ_REFUSES, 2);
    ready(1);
}

static void refusing_dead(void)
{
    limit(SHMQ_REFUSES_DEAD, 2);
    ready(1);
}

static void short_and_held(void)
{
    limit(SHMQ_DROPS_DEAD, 2);
    ready(2);
    ledger.held_id[0] = take_one(0, &ledger.held[0]);
}

static void large_ready(void)
{
    publish_as(0, 8, (struct shmq_draft){.body_bytes = 900, .ttl_ns = -1});
    publish_as(1, 9, (struct shmq_draft){.body_bytes = 900, .ttl_ns = -1});
}

static void hold(unsigned me)
{
    if (!(ledger.held_id[me] = take_one(me, &ledger.held[me])))
        fault("cannot prepare: take", me, 0);
}

static void one_held(void) /* and one ready */
{
    ready(2);
    hold(0);
}

static void two_held(void)
{
    ready(2);
    hold(0);
    hold(1);
}

static void old_bells(void) /* 0 and 1 have those of an earlier broker, which nobody hears */
{
    static int deaf = -1;
    if (deaf < 0)
        deaf = open("/dev/null", O_WRONLY);
    for (unsigned i = 0; i < OWNERS; i++) {
        stage.q[i].bell_epoch = i > 1;
        if (i <= 1)
            stage.q[i].bell[SHMQ_CONSUMERS] = stage.q[i].bell[SHMQ_PRODUCERS] = deaf;
    }
}

static void bells_of_old(void)
{
    old_bells();
    atomic_store(&stage.q[0].header->epoch, 1);
}

static void bells_of_old_full(void)
{
    bells_of_old();
    two_held();
}

static void bury_and_settle(uint32_t slot)
{
    struct shmq_queue *q = &stage.q[AUDITOR];
    struct shmq_delivery d;
    uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl);
    if (shmq_describe(q, slot, ctl, &d) || shmq_bury(q, slot, ctl, SHMQ_EXPIRED) || shmq_pop(q, SHMQ_DEAD, &slot, &ctl))
        fault("cannot prepare: bury", slot, 0);
    judge_settled(judge_body(&d));
    shmq_settle_dead(q, slot, ctl);
}

static void stale_behind_head(void) /* the largest main ring is full: a live head, stale ones behind it */
{
    ready(4);
    for (uint32_t slot = 1; slot < 4; slot++)
        bury_and_settle(slot);
}

static void stale_at_head(void) /* full: two stale, two live */
{
    ready(4);
    bury_and_settle(0);
    bury_and_settle(1);
}

static void returned_in_reverse(void) /* two in the returned ring, the older behind; one in main */
{
    ready(3);
    hold(0);
    hold(1);
    nack_held(1);
    nack_held(0);
}

static void returned_full(void) /* the returned ring's 4 entries were used twice over; 0 and 1 hold one each */
{
    ready(2);
    for (int n = 0; n < 2; n++) {
        hold(0);
        hold(1);
        nack_held(0);
        nack_held(1);
    }
    hold(0);
    hold(1);
}

/* In the returned ring the newest at its head, two marks, and the next one behind: a take gathers. */
static void gap(unsigned given_back)
{
    static const unsigned order[] = {3, 0, 1, 4, 2};
    struct shmq_delivery d[5];
    stale_max = 2;
    ready(5);
    for (unsigned i = 0; i < 5; i++)
        take_one(0, &d[i]);
    for (unsigned i = 0; i < given_back; i++)
        shmq_requeue(mine(0), d[order[i]].slot, d[order[i]].ctl, false);
    take_and_ack_twice(1);
    ledger.held[0] = d[2];
    ledger.held_id[0] = judge_body(&d[2]);
}

static void gap_in_ring(void) { gap(4); } /* 0 holds one */
static void gap_in_rings(void) { gap(5); } /* the oldest is in the next ring */

/* name, state, who, levels, slots, takes back */
const struct scene scenes[] = {
    {"publish, take", nothing, {publish_one, publish_one, take_and_ack, take_and_ack}, 1, 2, false},
    {"publish twice, take twice", nothing, {publish_two, NULL, take_and_ack_twice, NULL}, 1, 2, false},
    {"take, full", two_ready, {publish_one, publish_one, take_and_ack, take_and_ack}, 1, 2, false},
    {"growth", four_ready, {publish_one, publish_one, take_and_ack_twice, NULL}, 1, 8, false},
    {"growth, take", three_ready, {publish_two, NULL, take_and_ack_twice, take_and_ack_twice}, 1, 8, false},
    {"spill", stale_behind_head, {publish_one, publish_one, take_and_ack, NULL}, 1, 4, false},
    {"spill, stale at the head", stale_at_head, {publish_one, publish_one, take_and_nack, NULL}, 1, 4, false},
    {"nack", two_held, {nack_held, nack_held, take_and_ack_twice, NULL}, 1, 4, false},
    {"returned", returned_in_reverse, {publish_one, take_and_nack, take_and_ack, NULL}, 1, 4, false},
    {"returned, from the middle", returned_in_reverse, {take_and_nack, nack_twice, take_and_ack, NULL}, 1, 4, false},
    {"rotation", returned_full, {nack_held, nack_held, take_and_ack, NULL}, 1, 2, false},
    {"rotation, nacks", returned_full, {nack_held, nack_held, nack_twice, NULL}, 1, 2, false},
    {"gather", gap_in_rings, {take_and_ack, take_and_ack, take_and_nack, NULL}, 1, 8, false},
    {"gather, nacks", gap_in_rings, {take_and_nack, nack_twice, take_and_ack, publish_one}, 1, 8, false},
    {"gather, rotation", gap_in_ring, {nack_held, take_and_ack_twice, take_and_nack, NULL}, 1, 8, false},
    {"gather, lost session", gap_in_ring, {take_and_nack, lose_session, take_and_nack, NULL}, 1, 8, true},
    {"gather, heal", gap_in_rings, {take_and_ack, heal, nack_twice, NULL}, 1, 8, false},
    {"priorities", two_ready, {publish_high, publish_high, take_and_ack_twice, NULL}, 2, 4, false},
    {"gates", nothing, {publish_high, publish_one, take_and_ack_twice, NULL}, 20, 4, false},
    {"gates, nack", one_held, {nack_held, publish_high, take_and_ack_twice, NULL}, 20, 4, false},
    {"large", large_ready, {publish_large, publish_large, take_and_ack, NULL}, 1, 4, false},
    {"views", two_ready, {publish_one, take_keep_release, take_and_ack, NULL}, 1, 2, false},
    {"more slots", all_committed_in_use, {publish_one, publish_one, take_and_ack, NULL}, 1, 72, false},
    {"lost session", one_held, {ack_held, lose_session, take_and_ack, NULL}, 1, 2, true},
    {"lost session, nack", one_held, {take_and_ack, lose_session, take_and_ack, publish_one}, 1, 3, true},
    {"delay", one_held, {delay_held, take_up_delayed, take_and_ack, NULL}, 1, 3, false},
    {"expire", two_ready, {publish_one, bury_slot_0, take_and_ack, NULL}, 1, 3, false},
    {"first expiry", nothing, {publish_mortal, publish_mortal, expire_all, NULL}, 1, 4, false},
    {"drops the head", short_one, {publish_one, publish_one, take_and_ack, NULL}, 1, 6, false},
    {"drops the head, takers", short_one, {publish_one, NULL, take_and_ack, take_and_ack}, 1, 6, false},
    {"drops the head, nack", short_and_held, {nack_held, publish_one, take_and_ack, NULL}, 1, 6, false},
    {"drops the head, publishers", short_one, {publish_one, publish_one, publish_one, NULL}, 1, 8, false},
    {"drops the head, free", short_and_free, {publish_one, publish_one, take_and_ack, NULL}, 1, 6, false},
    {"drops the head, last one only", last_one_only, {publish_one, publish_one, take_and_nack, NULL}, 1, 6, false},
    {"drops the head, expire", short_one, {publish_one, bury_slot_0, take_and_ack, NULL}, 1, 6, false},
    {"refuses", refusing, {publish_one, publish_one, take_and_ack, NULL}, 1, 6, false},
    {"refuses, expire", refusing, {publish_two, bury_slot_0, take_and_ack, NULL}, 1, 6, false},
    {"refuses, dead", refusing_dead, {publish_one, publish_one, publish_one, NULL}, 1, 6, false},
    {"purge", two_ready, {publish_one, purge, take_and_ack, NULL}, 1, 3, false},
    {"purge, returned", returned_in_reverse, {take_and_nack, purge, take_and_ack, NULL}, 1, 4, false},
    {"heal", one_ready, {publish_one, heal, take_and_ack_twice, NULL}, 1, 3, false},
    {"heal, nack", one_held, {nack_held, heal, take_and_ack, NULL}, 1, 3, false},
    {"heal, miscounted", short_and_miscounted, {publish_one, NULL, take_and_ack, heal}, 1, 6, false},
    {"heal, miscounted, nack", short_and_miscounted, {publish_one, heal, take_and_nack, NULL}, 1, 6, false},
    {"heal, miscounted, refuses", refusing_and_miscounted, {publish_one, NULL, take_and_ack, heal}, 1, 6, false},
    {"heal, a nack too late", refuses_and_taken_back, {nack_too_late, publish_one, heal, NULL}, 1, 8, true},
    {"heal, refuses, expire", refuses_wide, {bury_slot_0, publish_one, heal, NULL}, 1, 8, false},
    {"heal, refuses, purge", refuses_wide, {purge, publish_one, heal, NULL}, 1, 8, false},
    {"heal, refuses, takers", refuses_wide, {take_and_ack, take_and_ack, publish_one, heal}, 1, 8, false},
    {"heal, drops, purge", drops_wide, {purge, publish_one, heal, NULL}, 1, 8, false},
    {"heal, drops, takers", drops_wide, {take_and_ack, take_and_ack, take_and_ack, heal}, 1, 8, false},
    {"heal, miscounted, delayed", delayed_and_miscounted, {take_up_delayed, take_and_ack, heal, publish_one}, 1, 8, false},
    {"sleepers", nothing, {publish_one, publish_one, sleep_and_take, sleep_and_take}, 1, 4, false},
    {"sleepers, one cancels", nothing, {publish_one, cancel, sleep_and_take, NULL}, 1, 4, false},
    {"sleepers, gates", nothing, {publish_high, sleep_and_take, sleep_and_take, NULL}, 20, 4, false},
    {"sleepers, nack", one_held, {nack_held, take_and_nack, sleep_and_take, NULL}, 1, 4, false},
    {"sleepers, bells of old", bells_of_old, {publish_one, publish_one, sleep_and_take, sleep_and_take}, 1, 4, false},
    {"sleepers, new bells", old_bells, {publish_one, publish_one, sleep_at_new_bells, NULL}, 1, 4, false},
    {"producers asleep, bells of old", bells_of_old_full, {ack_held, ack_held, publish_or_sleep, publish_or_sleep}, 1, 2, false},
    {"producers asleep", two_ready, {publish_or_sleep, publish_or_sleep, take_and_ack, take_and_ack}, 1, 2, false},
};
const unsigned scenes_count = sizeof scenes / sizeof *scenes;
