/* test_stress.c - three producers, three consumers and a supervisor at once, each with a handle of its own, on rings of 4 to 8 entries
 * with many more slots. Every message is settled exactly once, bodies are whole, first deliveries of a producer keep their
 * order, and at the end nothing is left. Consumers do what consumers may: ack, nack, fail, reject, delay, keep views, lose
 * their session. The seed is printed; $SHMQ_TEST_SEED repeats its choices (not its schedule). $SHMQ_TEST_MESSAGES: at most so many
 * of each producer, where everything is slow. */
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define PRODUCERS 3u
#define CONSUMERS 3u
#define HELD_MAX 6u
#define MESSAGES_MAX 200000u
#define PATIENCE_NS UINT64_C(60000000000)
#define DELAYED 0x80u /* a flag of ours: no order is promised */
#define SUPERVISOR (PRODUCERS + CONSUMERS)

static struct world w;
static uint64_t per_producer, most = MESSAGES_MAX; /* messages */
static uint64_t round_seed;
static _Atomic uint8_t settled[PRODUCERS][MESSAGES_MAX + 1];
static _Atomic uint64_t settled_sum, sessions_lost, stale, requeued, dead, delayed, producers_done;

/* id = producer * 2^32 + its sequence */
static void settle_once(uint64_t id)
{
    EQ(atomic_fetch_add(&settled[id >> 32][id & 0xffffffff], 1), 0);
    atomic_fetch_add(&settled_sum, 1);
}

/* ---- producers ---- */
static struct shmq_draft some_draft(uint64_t *state)
{
    uint32_t kind = below(state, 100);
    struct shmq_draft d = {.body_bytes = 24 + below(state, 40), .level = below(state, w.geometry.levels), .ttl_ns = -1};
    if (kind < 12)
        d.body_bytes = 65 + below(state, 3000);
    if (kind == 12)
        d.body_bytes = (64 << 10) + 1 + below(state, 5000);
    if (kind >= 13 && kind < 16) {
        d.delay_ns = 1 + below(state, 1000000);
        d.flags = DELAYED;
    }
    if (kind >= 16 && kind < 19)
        d.ttl_ns = below(state, 100000);
    return d;
}

static void *produce(void *argument)
{
    struct shmq_queue *q = argument;
    uint64_t me = q->owner - 1, state = round_seed + me;
    uint64_t start = shmq_now();
    for (uint64_t n = 1; n <= per_producer;) {
        struct shmq_draft draft = some_draft(&state);
        struct shmq_write write;
        int r = shmq_write_begin(q, &draft, &write);
        if (r == SHMQ_FULL) {
            CHECK(shmq_now() - start < PATIENCE_NS);
            sched_yield();
            continue;
        }
        EQ(r, SHMQ_OK);
        if (below(&state, 50) == 0) {
            shmq_write_abort(q, &write);
            continue;
        }
        body_fill(write.body, draft.body_bytes, me << 32 | n);
        EQ(shmq_write_commit(q, &write), SHMQ_OK);
        n++;
    }
    atomic_fetch_add(&producers_done, 1);
    return NULL;
}

/* ---- consumers ---- */
struct consumer {
    struct shmq_queue *q;
    struct shmq_delivery held[HELD_MAX];
    uint64_t id[HELD_MAX], last_first[PRODUCERS][SHMQ_LEVELS_MAX], state;
    uint32_t n;
};

static void outcome_of(int r, uint64_t id, _Atomic uint64_t *counter)
{
    CHECK(r == SHMQ_OK || r == SHMQ_STALE); /* stale: the session was lost meanwhile */
    if (r == SHMQ_STALE)
        atomic_fetch_add(&stale, 1);
    else if (counter)
        atomic_fetch_add(counter, 1);
    else
        settle_once(id);
}

static void settle_one(struct consumer *c)
{
    uint32_t i = below(&c->state, c->n), kind = below(&c->state, 100);
    struct shmq_delivery *d = &c->held[i];
    uint64_t id = c->id[i];
    if (kind < 60) {
        outcome_of(shmq_ack(c->q, d), id, NULL);
    } else if (kind < 70) {
        int r = shmq_ack_keep(c->q, d);
        outcome_of(r, id, NULL);
        if (r == SHMQ_OK) {
            EQ(taken_id(d), id);
            EQ(shmq_release(c->q, d), SHMQ_OK);
        }
    } else if (kind < 90) {
        outcome_of(shmq_requeue(c->q, d->slot, d->ctl, kind & 1), id, &requeued);
    } else if (kind < 95) {
        outcome_of(shmq_bury(c->q, d->slot, d->ctl, SHMQ_REJECTED), id, &dead);
    } else {
        outcome_of(shmq_delay(c->q, d->slot, d->ctl, shmq_now() + below(&c->state, 500000)), id, &delayed);
    }
    c->held[i] = c->held[--c->n];
    c->id[i] = c->id[c->n];
}

static bool take_one(struct consumer *c)
{
    struct shmq_delivery *d = &c->held[c->n];
    int r = shmq_take(c->q, d);
    if (r == SHMQ_EMPTY)
        return false;
    EQ(r, SHMQ_OK);
    uint64_t id;
    __builtin_memcpy(&id, d->body, sizeof id);
    bool whole = body_is(d->body, d->body_bytes, id);
    if (!shmq_is_current(c->q, d)) { /* the session was lost while we read: drop it */
        atomic_fetch_add(&stale, 1);
        return true;
    }
    CHECK(whole);
    if (shmq_ctl_deliveries(d->ctl) == 1 && !(d->flags & DELAYED)) {
        uint64_t *last = &c->last_first[id >> 32][d->level], n = id & 0xffffffff;
        if (*last >= n)
            fail(__FILE__, __LINE__, "first deliveries of a producer out of order", (long long)*last, (long long)n);
        *last = n;
    }
    c->id[c->n++] = id;
    return true;
}

static void *consume(void *argument)
{
    struct consumer c = {.q = argument};
    uint64_t start = shmq_now();
    c.state = round_seed + c.q->owner;
    while (atomic_load(&settled_sum) < PRODUCERS * per_producer) {
        CHECK(shmq_now() - start < PATIENCE_NS);
        bool room = c.n < HELD_MAX, more = room && below(&c.state, 3) && take_one(&c);
        if (!more && c.n)
            settle_one(&c);
        else if (!more)
            sched_yield();
    }
    while (c.n)
        settle_one(&c);
    return NULL;
}

/* ---- the supervisor ---- */
struct waiting { /* delayed ones taken up */
    uint64_t ctl;
    uint32_t slot;
};

static void settle_dead(struct shmq_queue *q, uint32_t slot, uint64_t ctl)
{
    struct shmq_delivery d;
    EQ(shmq_describe(q, slot, ctl, &d), SHMQ_OK);
    uint64_t id = taken_id(&d);
    if (shmq_settle_dead(q, slot, ctl) == SHMQ_OK)
        settle_once(id);
}

static void rescan(struct shmq_queue *q)
{
    for (uint32_t slot = 0; slot < shmq_slots_high(q); slot++) {
        uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl);
        if (shmq_ctl_state(ctl) == SHMQ_DEAD)
            settle_dead(q, slot, ctl);
        if (shmq_ctl_state(ctl) == SHMQ_DELAYED)
            shmq_fire(q, slot, ctl, shmq_now());
    }
}

static void *supervise(void *argument)
{
    struct shmq_queue *q = argument;
    static struct waiting list[4096];
    uint64_t state = round_seed + 99, ctl, turns = 0;
    uint32_t n = 0, slot;
    while (atomic_load(&settled_sum) < PRODUCERS * per_producer) {
        struct shmq_heal_report report;
        while (shmq_pop(q, SHMQ_DEAD, &slot, &ctl) == SHMQ_OK)
            settle_dead(q, slot, ctl);
        while (n < 4096 && shmq_pop(q, SHMQ_DELAYED, &slot, &ctl) == SHMQ_OK)
            list[n++] = (struct waiting){ctl, slot};
        for (uint32_t i = 0; i < n;)
            if (shmq_fire(q, list[i].slot, list[i].ctl, shmq_now()) == SHMQ_NOT_DUE)
                i++;
            else
                list[i] = list[--n];
        EQ(shmq_heal_step(q, shmq_now(), false, &report), 0);
        CHECK(shmq_expire_due(q, shmq_now(), 16) >= 0);
        if (report.rescan || turns++ % 256 == 0)
            rescan(q);
        if (below(&state, 200) == 0) { /* a lost session of a living consumer */
            struct shmq_counts counts;
            EQ(shmq_reap(q, NULL, PRODUCERS + 1 + below(&state, CONSUMERS), true, true, &counts), 0);
            atomic_fetch_add(&sessions_lost, 1);
        }
        sched_yield();
    }
    return NULL;
}

/* ---- rounds ---- */
static void nothing_is_left(void)
{
    struct shmq_stats s;
    world_is_clean(&w);
    EQ(world_count(&w, SHMQ_FREE), shmq_slots_committed(&w.q[0]));
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, 0);
    EQ(s.unacked, 0);
    EQ(s.arena_used, 0);
    EQ(s.published, PRODUCERS * per_producer);
    for (uint32_t p = 0; p < PRODUCERS; p++)
        for (uint64_t n = 1; n <= per_producer; n++)
            EQ(settled[p][n], 1);
}

static void storm(uint32_t levels, uint32_t slots, uint32_t ring_entries, uint64_t messages)
{
    pthread_t thread[SUPERVISOR + 1];
    struct shmq_geometry g = sized(slots, ring_entries);
    g.levels = levels;
    g.arena_bytes = 4 << 20;
    world_open(&w, SUPERVISOR + 1, g);
    per_producer = messages = messages < most ? messages : most;
    settled_sum = sessions_lost = stale = requeued = dead = delayed = producers_done = 0;
    for (uint32_t p = 0; p < PRODUCERS; p++)
        for (uint64_t n = 0; n <= messages; n++)
            settled[p][n] = 0;
    for (uint32_t i = 0; i <= SUPERVISOR; i++) {
        void *(*work)(void *) = i < PRODUCERS ? produce : i < SUPERVISOR ? consume : supervise;
        EQ(pthread_create(&thread[i], NULL, work, &w.q[i]), 0);
    }
    for (uint32_t i = 0; i <= SUPERVISOR; i++)
        pthread_join(thread[i], NULL);
    nothing_is_left();
    printf("%u levels, %u slots, rings of %u: %llu messages, %llu requeued, %llu rejected, %llu delayed, %llu stale, %llu sessions lost\n",
           levels, slots, ring_entries, (unsigned long long)(PRODUCERS * messages), (unsigned long long)requeued,
           (unsigned long long)dead, (unsigned long long)delayed, (unsigned long long)stale, (unsigned long long)sessions_lost);
    world_close(&w);
}

static void few_slots_rings_of_four(void)
{
    storm(1, 16, 4, 40000);
}

static void more_slots_than_the_first_rings_hold(void)
{
    storm(1, 200, 4, 40000);
    storm(3, 300, 8, 40000);
}

static void gated_levels(void)
{
    storm(40, 100, 4, 40000);
}

static void one_slot_for_all(void)
{
    storm(1, 2, 4, 5000);
}

int main(int argc, char **argv)
{
    const char *given = getenv("SHMQ_TEST_MESSAGES");
    round_seed = seed_of();
    if (given)
        most = strtoull(given, NULL, 0);
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 1; /* a longer run: as many rounds as it says */
    for (uint64_t n = 0; n < rounds; n++, round_seed += 1000) {
        RUN(few_slots_rings_of_four);
        RUN(more_slots_than_the_first_rings_hold);
        RUN(gated_levels);
        RUN(one_slot_for_all);
    }
    return done();
}
