/* test_share.c - a queue that has more than its fair share of memory: it does not grow, and all that needs no memory goes on. */
#include "support.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FIRST 64u /* slots that are committed with the queue */

static struct world w;

static void open_sized(uint32_t slots, uint64_t arena_bytes)
{
    struct shmq_geometry g = sized(slots, 64);
    g.arena_bytes = arena_bytes;
    world_open(&w, 3, g);
    int producers = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK);
    for (uint32_t i = 0; i < w.handles; i++)
        w.q[i].bell[SHMQ_PRODUCERS] = producers;
}

static void close_it(void)
{
    close(w.q[0].bell[SHMQ_PRODUCERS]);
    world_close(&w);
}

static void fill(uint32_t messages)
{
    for (uint64_t id = 1; id <= messages; id++)
        publish(&w.q[0], id);
}

static void a_stopped_queue_takes_what_it_has_room_for(void)
{
    open_sized(1024, 0);
    shmq_set_share(&w.q[2], 1, 2);
    fill(FIRST);
    for (uint32_t i = 0; i < 3; i++)
        EQ(publish_sized(&w.q[i % 2], 99, 0, 24), SHMQ_STOPPED);
    EQ(shmq_load(&w.q[2].header->stops), 3);
    EQ(shmq_load(&w.q[2].header->slots_committed) & 0xffffffffu, FIRST);
    EQ(take_ack(&w.q[1]), 1);
    publish(&w.q[0], FIRST + 1);
    EQ(publish_sized(&w.q[0], 99, 0, 24), SHMQ_STOPPED);
    for (uint64_t id = 2; id <= FIRST + 1; id++)
        EQ(take_ack(&w.q[1]), id);
    close_it();
}

static void a_queue_at_its_capacity_is_full_and_not_stopped(void)
{
    open_sized(FIRST, 0);
    shmq_set_share(&w.q[2], 1, 2);
    fill(FIRST);
    EQ(publish_sized(&w.q[0], 99, 0, 24), SHMQ_FULL);
    EQ(shmq_load(&w.q[2].header->stops), 0);
    close_it();
}

static void large_bodies_are_stopped_where_their_memory_would_be_new(void)
{
    struct shmq_delivery d;
    open_sized(1024, 8u << 20);
    EQ(publish_sized(&w.q[0], 1, 0, 40000), SHMQ_OK);
    shmq_set_share(&w.q[2], 1, 2);
    uint64_t id = 1;
    while (publish_sized(&w.q[0], id + 1, 0, 40000) == SHMQ_OK)
        id++;
    EQ(publish_sized(&w.q[0], 99, 0, 40000), SHMQ_STOPPED);
    EQ(publish_sized(&w.q[0], 99, 0, 200000), SHMQ_STOPPED);
    EQ(publish_sized(&w.q[0], id + 1, 0, 24), SHMQ_OK); /* lives in its slot */
    EQ(take(&w.q[1], &d), 1);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    EQ(publish_sized(&w.q[0], id + 2, 0, 40000), SHMQ_OK);
    for (uint64_t next = 2; next <= id + 2; next++)
        EQ(take_ack(&w.q[1]), next);
    close_it();
}

static void requeues_need_no_room(void)
{
    struct shmq_delivery d[FIRST];
    open_sized(1024, 0);
    fill(FIRST);
    shmq_set_share(&w.q[2], 1, 2);
    for (uint32_t i = 0; i < FIRST; i++)
        EQ(take(&w.q[1], &d[i]), i + 1);
    for (uint32_t i = FIRST; i-- > 0;)
        nack(&w.q[1], &d[i]);
    for (uint64_t id = 1; id <= FIRST; id++)
        EQ(take_ack(&w.q[1]), id);
    close_it();
}

static void who_waits_is_rung_when_it_may_grow_again(void)
{
    open_sized(1024, 0);
    shmq_set_share(&w.q[2], 1, 2);
    fill(FIRST);
    EQ(publish_sized(&w.q[0], 99, 0, 24), SHMQ_STOPPED);
    shmq_bell_register(&w.q[0], SHMQ_PRODUCERS);
    CHECK(!shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
    shmq_set_share(&w.q[2], 3, 4); /* another share is no news */
    CHECK(!shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
    CHECK(!shmq_bell_token(&w.q[0], SHMQ_PRODUCERS));
    shmq_set_share(&w.q[2], 0, 0);
    CHECK(shmq_bell_token(&w.q[0], SHMQ_PRODUCERS));
    CHECK(shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
    publish(&w.q[0], FIRST + 1);
    for (uint64_t id = 1; id <= FIRST + 1; id++)
        EQ(take_ack(&w.q[1]), id);
    close_it();
}

static void who_looks_after_it_may_grow_again_does_not_sleep(void)
{
    open_sized(1024, 0);
    shmq_set_share(&w.q[2], 1, 2);
    fill(FIRST);
    EQ(publish_sized(&w.q[0], 99, 0, 24), SHMQ_STOPPED);
    shmq_set_share(&w.q[2], 0, 0);
    shmq_bell_register(&w.q[0], SHMQ_PRODUCERS);
    CHECK(shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
    shmq_bell_leave(&w.q[0], SHMQ_PRODUCERS);
    close_it();
}

#define ROUNDS 1000u

static _Atomic uint32_t begun, ended;

static void *let_go(void *unused)
{
    (void)unused;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        while (atomic_load(&begun) != round)
            ;
        for (volatile uint32_t i = 0; i < round % 499; i++)
            ;
        shmq_set_share(&w.q[2], 0, 0);
        atomic_store(&ended, round);
    }
    return NULL;
}

static void who_is_stopped_just_before_it_may_grow_again_does_not_sleep(void)
{
    pthread_t thread;
    uint32_t stopped = 0;
    EQ(pthread_create(&thread, NULL, let_go, NULL), 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        open_sized(1024, 0);
        fill(FIRST);
        shmq_set_share(&w.q[2], 1, 2);
        atomic_store(&begun, round);
        int r = publish_sized(&w.q[0], 99, 0, 24);
        while (atomic_load(&ended) != round)
            sched_yield();
        CHECK(r == SHMQ_OK || shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
        stopped += r == SHMQ_STOPPED;
        close_it();
    }
    EQ(pthread_join(thread, NULL), 0);
    CHECK(stopped > 0);
}

static void growing_rings_the_supervisor(void)
{
    uint64_t rung = 0;
    open_sized(1024, 8u << 20);
    int bell = w.q[0].supervisor_bell = eventfd(0, EFD_NONBLOCK);
    fill(FIRST);
    EQ(read(bell, &rung, sizeof rung), -1);
    publish(&w.q[0], FIRST + 1);
    EQ(read(bell, &rung, sizeof rung), 8);
    EQ(rung, 1);
    EQ(publish_sized(&w.q[0], FIRST + 2, 0, 40000), SHMQ_OK);
    EQ(read(bell, &rung, sizeof rung), 8);
    for (uint64_t id = 1; id <= FIRST + 2; id++)
        EQ(take_ack(&w.q[1]), id);
    close(bell);
    w.q[0].supervisor_bell = -1;
    close_it();
}

static void what_it_has_is_what_the_file_system_says(void)
{
    open_sized(1024, 8u << 20);
    int64_t before = shmq_memory_bytes(&w.q[0]);
    CHECK(before > 0);
    EQ(publish_sized(&w.q[0], 1, 0, 1 << 20), SHMQ_OK);
    CHECK(shmq_memory_bytes(&w.q[0]) >= before + (1 << 20));
    EQ(take_ack(&w.q[1]), 1);
    close_it();
}

int main(void)
{
    RUN(a_stopped_queue_takes_what_it_has_room_for);
    RUN(a_queue_at_its_capacity_is_full_and_not_stopped);
    RUN(large_bodies_are_stopped_where_their_memory_would_be_new);
    RUN(requeues_need_no_room);
    RUN(who_waits_is_rung_when_it_may_grow_again);
    RUN(who_looks_after_it_may_grow_again_does_not_sleep);
    RUN(who_is_stopped_just_before_it_may_grow_again_does_not_sleep);
    RUN(growing_rings_the_supervisor);
    RUN(what_it_has_is_what_the_file_system_says);
    return done();
}
