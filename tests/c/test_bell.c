/* test_bell.c - bells: no token without a sleeper, none lost with one, whatever the order of steps in one thread. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_barrier_t */
#endif
#include "support.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct world w;

static void open_bells(void)
{
    world_open(&w, 3, sized(8, 4));
    int consumers = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK), producers = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK);
    for (uint32_t i = 0; i < 3; i++) {
        w.q[i].bell[SHMQ_CONSUMERS] = consumers;
        w.q[i].bell[SHMQ_PRODUCERS] = producers;
    }
}

static void close_bells(void)
{
    CHECK(!shmq_bell_token(&w.q[0], SHMQ_CONSUMERS));
    CHECK(!shmq_bell_token(&w.q[0], SHMQ_PRODUCERS));
    close(w.q[0].bell[SHMQ_CONSUMERS]);
    close(w.q[0].bell[SHMQ_PRODUCERS]);
    world_close(&w);
}

static uint32_t registered(enum shmq_side side)
{
    return (uint32_t)shmq_load(&w.q[0].header->registered[side][0]);
}

static void without_a_sleeper_nothing_is_written(void)
{
    open_bells();
    publish(&w.q[0], 1);
    EQ(take_ack(&w.q[1]), 1);
    close_bells();
}

static void each_publish_wakes_one_sleeper(void)
{
    open_bells();
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    shmq_bell_register(&w.q[2], SHMQ_CONSUMERS);
    EQ(registered(SHMQ_CONSUMERS), 2);
    publish(&w.q[0], 1);
    EQ(registered(SHMQ_CONSUMERS), 1);
    CHECK(shmq_bell_token(&w.q[1], SHMQ_CONSUMERS));
    CHECK(!shmq_bell_token(&w.q[2], SHMQ_CONSUMERS));
    publish(&w.q[0], 2);
    CHECK(shmq_bell_token(&w.q[2], SHMQ_CONSUMERS));
    EQ(registered(SHMQ_CONSUMERS), 0);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[2]), 2);
    close_bells();
}

static void what_was_there_before_the_registration_is_seen_by_the_look(void)
{
    open_bells();
    publish(&w.q[0], 1);
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    CHECK(shmq_bell_look(&w.q[1], SHMQ_CONSUMERS));
    shmq_bell_leave(&w.q[1], SHMQ_CONSUMERS);
    EQ(registered(SHMQ_CONSUMERS), 0);
    EQ(take_ack(&w.q[1]), 1);
    CHECK(!shmq_bell_look(&w.q[1], SHMQ_CONSUMERS));
    close_bells();
}

static void who_leaves_beside_a_token_passes_it_on(void)
{
    open_bells();
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    publish(&w.q[0], 1); /* the token is written, the registration gone */
    shmq_bell_register(&w.q[2], SHMQ_CONSUMERS);
    EQ(registered(SHMQ_CONSUMERS), 1);
    shmq_bell_leave(&w.q[1], SHMQ_CONSUMERS); /* takes back the other's registration: its token is there */
    EQ(registered(SHMQ_CONSUMERS), 0);
    CHECK(shmq_bell_token(&w.q[2], SHMQ_CONSUMERS));
    EQ(take_ack(&w.q[2]), 1);
    close_bells();
}

static void who_leaves_with_the_last_token_looks_and_rings_for_another(void)
{
    open_bells();
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    publish(&w.q[0], 1);
    shmq_bell_leave(&w.q[1], SHMQ_CONSUMERS); /* reads its token; nobody sleeps, so none is written */
    EQ(take_ack(&w.q[2]), 1);
    close_bells();
}

static void an_ack_wakes_a_blocked_producer(void)
{
    struct shmq_delivery d;
    open_bells();
    for (uint64_t id = 1; id <= 8; id++)
        publish(&w.q[0], id);
    EQ(publish_sized(&w.q[0], 9, 0, 24), SHMQ_FULL);
    shmq_bell_register(&w.q[0], SHMQ_PRODUCERS);
    CHECK(!shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
    EQ(take(&w.q[1], &d), 1);
    CHECK(!shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    CHECK(shmq_bell_look(&w.q[0], SHMQ_PRODUCERS));
    CHECK(shmq_bell_token(&w.q[0], SHMQ_PRODUCERS));
    EQ(publish_sized(&w.q[0], 9, 0, 24), SHMQ_OK);
    for (uint64_t id = 2; id <= 9; id++)
        EQ(take_ack(&w.q[1]), id);
    close_bells();
}

static void open_large(struct world *large)
{
    uint64_t id = 0;
    world_open(large, 3, (struct shmq_geometry){.levels = 1, .slots = 64, .inline_bytes = 64, .ring_entries = 4, .arena_bytes = 1 << 20});
    while (publish_sized(&large->q[0], ++id, 0, 200000) == SHMQ_OK)
        ;
    CHECK(id > 4);
}

static void a_full_arena_lets_its_producer_sleep(void)
{
    struct world large;
    open_large(&large);
    CHECK(!shmq_bell_look(&large.q[0], SHMQ_PRODUCERS)); /* the slot it claimed and gave up again is no room */
    EQ(take_ack(&large.q[1]), 1);
    CHECK(shmq_bell_look(&large.q[0], SHMQ_PRODUCERS));
    world_abandon(&large);
}

static void producers_of_a_full_arena_let_each_other_sleep(void)
{
    struct world large;
    open_large(&large);
    EQ(publish_sized(&large.q[2], 99, 0, 300000), SHMQ_FULL);
    CHECK(!shmq_bell_look(&large.q[0], SHMQ_PRODUCERS)); /* what the other claimed and gave up again is no room */
    CHECK(!shmq_bell_look(&large.q[2], SHMQ_PRODUCERS));
    EQ(take_ack(&large.q[1]), 1);
    EQ(publish_sized(&large.q[2], 99, 0, 700000), SHMQ_FULL);
    CHECK(shmq_bell_look(&large.q[0], SHMQ_PRODUCERS)); /* too little for one is enough for another */
    CHECK(!shmq_bell_look(&large.q[2], SHMQ_PRODUCERS));
    EQ(publish_sized(&large.q[0], 98, 0, 200000), SHMQ_OK);
    world_abandon(&large);
}

static struct shmq_queue *shared;
static void *fails_to_publish_much(void *unused)
{
    (void)unused;
    EQ(publish_sized(shared, 99, 0, 700000), SHMQ_FULL);
    CHECK(!shmq_bell_look(shared, SHMQ_PRODUCERS));
    return NULL;
}

static void in_another_thread(void *(*work)(void *))
{
    pthread_t thread;
    EQ(pthread_create(&thread, NULL, work, NULL), 0);
    EQ(pthread_join(thread, NULL), 0);
}

static void threads_of_one_handle_sleep_for_their_own_need(void)
{
    struct world large;
    open_large(&large);
    shared = &large.q[0];
    CHECK(!shmq_bell_look(shared, SHMQ_PRODUCERS));
    EQ(take_ack(&large.q[1]), 1);
    in_another_thread(fails_to_publish_much);
    CHECK(shmq_bell_look(shared, SHMQ_PRODUCERS)); /* too little for that one is enough for us */
    EQ(publish_sized(shared, 98, 0, 200000), SHMQ_OK);
    world_abandon(&large);
}

static void a_thread_that_lacks_granules_does_not_hide_slots(void)
{
    struct world large;
    uint64_t id = 100;
    open_large(&large);
    shared = &large.q[0];
    while (publish_sized(shared, ++id, 0, 24) == SHMQ_OK)
        ;
    CHECK(!shmq_bell_look(shared, SHMQ_PRODUCERS));
    EQ(take_ack(&large.q[1]), 1);
    in_another_thread(fails_to_publish_much);
    CHECK(shmq_bell_look(shared, SHMQ_PRODUCERS));
    EQ(publish_sized(shared, id, 0, 24), SHMQ_OK);
    world_abandon(&large);
}

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t all_have_failed;
static void *fails_and_lives_on(void *unused)
{
    pthread_mutex_lock(&turn);
    fails_to_publish_much(unused);
    pthread_mutex_unlock(&turn);
    pthread_barrier_wait(&all_have_failed);
    return NULL;
}

static void more_threads_than_are_remembered_may_find_no_room(void)
{
    enum { THREADS = 2 * SHMQ_LACKS };
    pthread_t thread[THREADS];
    struct world large;
    open_large(&large);
    shared = &large.q[0];
    EQ(pthread_barrier_init(&all_have_failed, NULL, THREADS), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        EQ(pthread_create(&thread[i], NULL, fails_and_lives_on, NULL), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        EQ(pthread_join(thread[i], NULL), 0);
    CHECK(!shmq_bell_look(shared, SHMQ_PRODUCERS)); /* ours is forgotten: that of the last one counts */
    EQ(take_ack(&large.q[1]), 1);
    CHECK(shmq_bell_look(shared, SHMQ_PRODUCERS));
    world_abandon(&large);
}

/* The last slot was another's for a moment, who found no room for its body. */
static void a_slot_given_up_is_room_for_who_found_none(void)
{
    struct world large;
    struct shmq_write held;
    uint32_t slot;
    uint64_t ctl, id = 100;
    open_large(&large);
    EQ(shmq_slot_claim(&large.q[2], &slot, &ctl), SHMQ_OK);
    while (publish_sized(&large.q[0], ++id, 0, 24) == SHMQ_OK)
        ;
    CHECK(!shmq_bell_look(&large.q[0], SHMQ_PRODUCERS));
    held = (struct shmq_write){.slot = slot, .ctl = ctl};
    shmq_write_abort(&large.q[2], &held);
    EQ(shmq_write_begin(&large.q[2], &(struct shmq_draft){.body_bytes = 300000, .ttl_ns = -1}, &held), SHMQ_FULL);
    CHECK(shmq_bell_look(&large.q[0], SHMQ_PRODUCERS));
    world_abandon(&large);
}

static void who_has_no_bell_leaves_the_registrations(void)
{
    open_bells();
    int bell = w.q[0].bell[SHMQ_CONSUMERS];
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    w.q[0].bell[SHMQ_CONSUMERS] = -1; /* it was closed: what it still holds is given back without one */
    publish(&w.q[0], 1);
    EQ(registered(SHMQ_CONSUMERS), 1);
    publish(&w.q[2], 2);
    CHECK(shmq_bell_token(&w.q[1], SHMQ_CONSUMERS));
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 2);
    w.q[0].bell[SHMQ_CONSUMERS] = bell;
    close_bells();
}

static void old_bells_use_up_no_registration_and_are_rung_for(void)
{
    struct shmq_queue old;
    int deaf = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK), supervisor = eventfd(0, EFD_NONBLOCK);
    uint64_t rung = 0;
    open_bells();
    old = w.q[0];
    old.bell[SHMQ_CONSUMERS] = old.bell[SHMQ_PRODUCERS] = deaf;
    old.supervisor_bell = supervisor;
    atomic_store(&w.q[0].header->epoch, 1);
    for (uint32_t i = 0; i < 3; i++)
        w.q[i].bell_epoch = 1;

    publish(&old, 1); /* nobody is asleep */
    shmq_bell_ring_unheard(&w.q[2]);
    EQ(read(supervisor, &rung, sizeof rung), -1);
    EQ(take_ack(&w.q[1]), 1);

    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    publish(&old, 2);
    publish(&old, 3);
    EQ(registered(SHMQ_CONSUMERS), 2);
    EQ(read(supervisor, &rung, sizeof rung), sizeof rung);
    EQ(rung, 1); /* once */
    CHECK(shmq_bell_token(&old, SHMQ_CONSUMERS)); /* where they were kept somebody hears this one */
    CHECK(!shmq_bell_token(&w.q[1], SHMQ_CONSUMERS));

    shmq_bell_ring_unheard(&old); /* nor would it be heard */
    EQ(registered(SHMQ_CONSUMERS), 2);
    shmq_bell_ring_unheard(&w.q[2]);
    EQ(registered(SHMQ_CONSUMERS), 0);
    CHECK(shmq_bell_token(&w.q[1], SHMQ_CONSUMERS));
    CHECK(shmq_bell_token(&w.q[1], SHMQ_CONSUMERS));
    CHECK(!shmq_bell_token(&w.q[1], SHMQ_PRODUCERS));

    shmq_bell_register(&w.q[0], SHMQ_PRODUCERS);
    EQ(take_ack(&old), 2);
    shmq_bell_ring_unheard(&w.q[2]);
    CHECK(shmq_bell_token(&w.q[0], SHMQ_PRODUCERS));
    EQ(take_ack(&w.q[1]), 3);
    close_bells();
    close(deaf);
    close(supervisor);
}

static void a_deleted_queue_lets_nobody_sleep(void)
{
    open_bells();
    atomic_store(&w.q[0].header->flags, SHMQ_FLAG_DELETED);
    CHECK(shmq_bell_look(&w.q[1], SHMQ_CONSUMERS));
    CHECK(shmq_bell_look(&w.q[1], SHMQ_PRODUCERS));
    EQ(publish_sized(&w.q[0], 1, 0, 24), SHMQ_DELETED);
    close_bells();
}

static void ringing_all_wakes_everybody(void)
{
    open_bells();
    for (int i = 0; i < 5; i++)
        shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
    shmq_bell_ring_all(&w.q[0], SHMQ_CONSUMERS);
    EQ(registered(SHMQ_CONSUMERS), 0);
    for (int i = 0; i < 5; i++)
        CHECK(shmq_bell_token(&w.q[1], SHMQ_CONSUMERS));
    close_bells();
}

static void counts_that_nobody_can_have_reached_are_borne(void)
{
    static const uint64_t words[] = {INT32_MAX, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 31};
    open_bells();
    for (int i = 0; i < 4; i++) {
        atomic_store(&w.q[0].header->registered[SHMQ_CONSUMERS][0], words[i]);
        shmq_bell_register(&w.q[1], SHMQ_CONSUMERS);
        shmq_bell_leave(&w.q[1], SHMQ_CONSUMERS);
        publish(&w.q[0], 1);
        EQ(take_ack(&w.q[1]), 1);
        shmq_bell_ring_all(&w.q[0], SHMQ_CONSUMERS);
        while (shmq_bell_token(&w.q[1], SHMQ_CONSUMERS))
            ;
    }
    close_bells();
}

int main(void)
{
    RUN(without_a_sleeper_nothing_is_written);
    RUN(each_publish_wakes_one_sleeper);
    RUN(what_was_there_before_the_registration_is_seen_by_the_look);
    RUN(who_leaves_beside_a_token_passes_it_on);
    RUN(who_leaves_with_the_last_token_looks_and_rings_for_another);
    RUN(an_ack_wakes_a_blocked_producer);
    RUN(a_full_arena_lets_its_producer_sleep);
    RUN(producers_of_a_full_arena_let_each_other_sleep);
    RUN(threads_of_one_handle_sleep_for_their_own_need);
    RUN(a_thread_that_lacks_granules_does_not_hide_slots);
    RUN(more_threads_than_are_remembered_may_find_no_room);
    RUN(a_slot_given_up_is_room_for_who_found_none);
    RUN(who_has_no_bell_leaves_the_registrations);
    RUN(old_bells_use_up_no_registration_and_are_rung_for);
    RUN(a_deleted_queue_lets_nobody_sleep);
    RUN(ringing_all_wakes_everybody);
    RUN(counts_that_nobody_can_have_reached_are_borne);
    return done();
}
