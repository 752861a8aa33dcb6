/* test_sleep.c - sleepers and ringers at once: nobody sleeps beside a ready message, and no producer beside a free slot, whoever
 * cancels, times out, or passes a token on. A queue of few slots, so that both sides sleep all the time. */
#include "support.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PRODUCERS 2u
#define CONSUMERS 3u
#define TOO_LONG_MS 3000

static struct world w;
static uint64_t seed, per_producer = 20000;
static _Atomic uint64_t consumed, sleeps, cancelled, passed;

static bool is_over(void)
{
    return atomic_load(&consumed) == PRODUCERS * per_producer;
}

/* Sleeps once, as CORE-PROTOCOL section 4 says; may give up at any point. */
static void sleep_once(struct shmq_queue *q, enum shmq_side side, uint64_t *state)
{
    struct pollfd p = {.fd = q->bell[side], .events = POLLIN};
    uint32_t mood = below(state, 16);
    shmq_bell_register(q, side);
    if (shmq_bell_look(q, side) || mood == 0) { /* found something, or cancelled */
        shmq_bell_leave(q, side);
        atomic_fetch_add(&cancelled, mood == 0);
        return;
    }
    atomic_fetch_add(&sleeps, 1);
    for (;;) {
        int ready = poll(&p, 1, mood == 1 ? (int)below(state, 2) : TOO_LONG_MS);
        if (ready == 0) {
            bool something = shmq_bell_look(q, side) && mood != 1 && !is_over();
            shmq_bell_leave(q, side);
            if (something)
                fail(__FILE__, __LINE__, "slept beside what it waits for", side, (long long)*state);
            return;
        }
        if (!shmq_bell_token(q, side)) /* somebody else had it; the registration stands */
            continue;
        if (mood == 2 && shmq_bell_look(q, side)) { /* its prefetch is full: pass it on */
            shmq_bell_ring(q, side);
            atomic_fetch_add(&passed, 1);
        }
        return;
    }
}

static void *produce(void *argument)
{
    struct shmq_queue *q = argument;
    uint64_t state = seed + q->owner;
    for (uint64_t n = 1; n <= per_producer;) {
        int r = publish_sized(q, (uint64_t)q->owner << 32 | n, 0, 24);
        if (r == SHMQ_OK)
            n++;
        else
            sleep_once(q, SHMQ_PRODUCERS, &state);
    }
    return NULL;
}

static void *consume(void *argument)
{
    struct shmq_queue *q = argument;
    uint64_t state = seed + q->owner;
    while (!is_over()) {
        if (take_ack(q))
            atomic_fetch_add(&consumed, 1);
        else
            sleep_once(q, SHMQ_CONSUMERS, &state);
    }
    shmq_bell_ring_all(q, SHMQ_CONSUMERS);
    return NULL;
}

static void nobody_sleeps(uint32_t levels, uint32_t slots)
{
    pthread_t thread[PRODUCERS + CONSUMERS];
    struct shmq_geometry g = sized(slots, 4);
    g.levels = levels;
    world_open(&w, PRODUCERS + CONSUMERS, g);
    int bell[SHMQ_SIDES] = {eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK), eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK)};
    consumed = sleeps = cancelled = passed = 0;
    for (uint32_t i = 0; i < PRODUCERS + CONSUMERS; i++) {
        w.q[i].bell[0] = bell[0];
        w.q[i].bell[1] = bell[1];
        EQ(pthread_create(&thread[i], NULL, i < PRODUCERS ? produce : consume, &w.q[i]), 0);
    }
    for (uint32_t i = 0; i < PRODUCERS + CONSUMERS; i++)
        pthread_join(thread[i], NULL);
    printf("%u slots: %llu sleeps, %llu cancelled, %llu passed on\n", slots, (unsigned long long)sleeps,
           (unsigned long long)cancelled, (unsigned long long)passed);
    EQ(consumed, PRODUCERS * per_producer);
    for (int side = 0; side < SHMQ_SIDES; side++)
        close(bell[side]);
    world_close(&w);
}

static void nobody_sleeps_beside_the_only_slot(void)
{
    nobody_sleeps(1, 1);
}

static void nobody_sleeps_beside_a_few(void)
{
    nobody_sleeps(1, 5);
}

static void nobody_sleeps_behind_gates(void)
{
    nobody_sleeps(40, 3);
}

int main(int argc, char **argv)
{
    seed = seed_of();
    if (argc > 1)
        per_producer = strtoull(argv[1], NULL, 0);
    RUN(nobody_sleeps_beside_the_only_slot);
    RUN(nobody_sleeps_beside_a_few);
    RUN(nobody_sleeps_behind_gates);
    return done();
}
