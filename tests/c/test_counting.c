/* test_counting.c - how a process says that it counts what is ready, and when the healer counts anew. */
#include "support.h"

static struct world w;

static void open_world(void)
{
    world_open(&w, 3, sized(32, 4));
}

static int64_t depth(void)
{
    return (int64_t)shmq_load(&w.q[0].header->depth[0]);
}

static void miscount(int64_t messages)
{
    atomic_store(&w.q[0].header->depth[0], (uint64_t)messages);
    atomic_store(&w.q[0].header->depth[1], (uint64_t)messages * 24);
}

static void what_somebody_is_counting_is_not_corrected(void)
{
    struct shmq_counts counts;
    open_world();
    world_limit(&w, SHMQ_DROPS_DEAD, 4 + 1, 0);
    publish(&w.q[0], 1);
    miscount(0); /* the second one stands before its count: */
    struct shmq_counting counting = shmq_counting_begin(&w.q[1], SHMQ_DROPS_DEAD);
    world_heal(&w);
    EQ(depth(), 0);
    miscount(1); /* and has counted */
    shmq_counting_end(counting);
    world_heal(&w);
    EQ(depth(), 1);
    miscount(0);
    shmq_counting_begin(&w.q[1], SHMQ_DROPS_DEAD);
    EQ(shmq_reap(&w.q[2], NULL, w.q[1].owner, true, true, &counts), SHMQ_OK); /* a lost session: it lives, and will count */
    world_heal(&w);
    EQ(depth(), 0);
    EQ(shmq_reap(&w.q[2], NULL, w.q[1].owner, true, false, &counts), SHMQ_OK); /* dead: it never will */
    world_heal(&w);
    EQ(depth(), 1);
    EQ(take_ack(&w.q[2]), 1);
    world_close(&w);
}

static void who_was_taken_for_dead_empties_nobody_elses_word(void)
{
    struct shmq_counts counts;
    uint64_t times;
    open_world();
    struct shmq_counting counting = shmq_counting_begin(&w.q[1], SHMQ_DROPS);
    EQ(shmq_reap(&w.q[2], NULL, w.q[1].owner, true, false, &counts), SHMQ_OK);
    struct shmq_counting other = shmq_counting_begin(&w.q[1], SHMQ_DROPS);
    EQ(other.word == counting.word, true);
    shmq_counting_end(counting);
    EQ(shmq_counting_rests(&w.q[0], &times), false);
    shmq_counting_end(other);
    EQ(shmq_counting_rests(&w.q[0], &times), true);
    EQ(times, 2);
    world_close(&w);
}

enum { MANY = 20000 }; /* slots: a pass of the healer takes two steps */

static void begin_a_pass(void) /* over a queue that is counted rightly */
{
    struct shmq_heal_report report;
    world_open(&w, 3, sized(MANY, 4));
    world_limit(&w, SHMQ_REFUSES, MANY + 1, 0);
    for (uint64_t id = 1; id <= 17000; id++)
        publish(&w.q[0], id);
    EQ(shmq_heal_step(&w.q[0], shmq_now(), false, &report), SHMQ_OK);
    EQ(report.passes, 0);
}

static void end_the_pass(void)
{
    struct shmq_heal_report report;
    EQ(shmq_heal_step(&w.q[0], shmq_now(), false, &report), SHMQ_OK);
    EQ(report.passes, 1);
}

/* As a nack that comes too late counts, and one that publishes: each is through, or has not begun, when the pass ends. */
static void counts_that_cancel_each_other_in_a_pass_are_seen(void)
{
    begin_a_pass();
    struct shmq_counting one = shmq_counting_begin(&w.q[1], SHMQ_REFUSES);
    shmq_depth_comes(&w.q[1], UINT64_C(24) << 32);
    struct shmq_delivery d;
    EQ(take(&w.q[2], &d), 1); /* of a slot that the pass has looked at */
    shmq_depth_goes(&w.q[1], UINT64_C(24) << 32);
    shmq_depth_comes(&w.q[1], UINT64_C(24) << 32);
    shmq_counting_end(one);
    EQ(depth(), 17000);
    end_the_pass();
    EQ(depth(), 17000); /* 16999 are ready: the second one has counted, and is about to publish */
    world_abandon(&w);
}

static void a_reap_in_a_pass_is_seen(void)
{
    struct shmq_counts counts;
    begin_a_pass();
    shmq_counting_begin(&w.q[1], SHMQ_REFUSES);
    shmq_depth_comes(&w.q[1], UINT64_C(24) << 32); /* and dies; */
    EQ(shmq_reap(&w.q[2], NULL, w.q[1].owner, true, false, &counts), SHMQ_OK);
    struct shmq_delivery d;
    EQ(take(&w.q[2], &d), 1);
    EQ(depth(), 17000);
    end_the_pass();
    EQ(depth(), 17000); /* not 17000 by the census, which would be one too few if the dead one had published: another pass knows */
    struct shmq_heal_report report;
    EQ(shmq_heal_step(&w.q[0], shmq_now(), true, &report), SHMQ_OK);
    EQ(depth(), 16999);
    world_abandon(&w);
}

/* One was killed between its count and its swap; then each refusal is a message, and the queue is never at rest for long. */
static void a_wrong_count_is_corrected_though_there_is_traffic(void)
{
    struct shmq_draft d = {.body_bytes = 24, .ttl_ns = -1};
    uint64_t body[3] = {1}, ctl;
    uint32_t refused = 0, slot;
    open_world();
    world_limit(&w, SHMQ_REFUSES_DEAD, 1 + 1, 0);
    miscount(1);
    for (int n = 0; n < 10; n++) {
        struct shmq_heal_report report;
        struct shmq_delivery delivery;
        refused += shmq_publish(&w.q[0], &d, body) == SHMQ_REFUSED;
        while (shmq_pop(&w.q[2], SHMQ_DEAD, &slot, &ctl) == SHMQ_OK)
            EQ(shmq_settle_dead(&w.q[2], slot, ctl), SHMQ_OK);
        if (shmq_take(&w.q[1], &delivery) == SHMQ_OK)
            EQ(shmq_ack(&w.q[1], &delivery), SHMQ_OK);
        EQ(shmq_heal_step(&w.q[2], shmq_now(), false, &report), SHMQ_OK);
    }
    EQ(refused, 1);
    world_close(&w);
}

static void more_may_count_than_there_are_words(void)
{
    struct shmq_counting counting[SHMQ_COUNTING];
    open_world();
    world_limit(&w, SHMQ_DROPS_DEAD, 4 + 1, 0);
    for (uint32_t n = 0; n < SHMQ_COUNTING; n++) {
        counting[n] = shmq_counting_begin(&w.q[n % 2], SHMQ_DROPS_DEAD);
        EQ(counting[n].word != NULL, true);
    }
    EQ(shmq_counting_begin(&w.q[2], SHMQ_DROPS_DEAD).word == NULL, true);
    publish(&w.q[2], 1);
    EQ(take_ack(&w.q[2]), 1);
    for (uint32_t n = 0; n < SHMQ_COUNTING; n++)
        shmq_counting_end(counting[n]);
    world_close(&w);
}

int main(void)
{
    RUN(what_somebody_is_counting_is_not_corrected);
    RUN(who_was_taken_for_dead_empties_nobody_elses_word);
    RUN(counts_that_cancel_each_other_in_a_pass_are_seen);
    RUN(a_reap_in_a_pass_is_seen);
    RUN(a_wrong_count_is_corrected_though_there_is_traffic);
    RUN(more_may_count_than_there_are_words);
    return done();
}
