/* test_stats.c - histogram buckets, sampling, and counters that agree with what happened. */
#include "support.h"

static struct world w;

static uint32_t bucket_hit(uint64_t ns)
{
    uint32_t hit = SHMQ_BUCKETS;
    shmq_record(&w.q[0], 0, ns, 1);
    for (uint32_t b = 0; b < SHMQ_BUCKETS; b++)
        if (atomic_exchange(&w.q[0].header->histogram[0][b], 0))
            hit = b;
    return hit;
}

static void bounds_of_buckets_rise(void)
{
    for (uint32_t b = 1; b < SHMQ_BUCKETS; b++)
        CHECK(shmq_bucket_bound(b) > shmq_bucket_bound(b - 1));
}

static void each_time_falls_into_the_bucket_that_bounds_it(void)
{
    uint64_t state = 5;
    world_open(&w, 1, sized(8, 4));
    for (uint32_t b = 0; b + 1 < SHMQ_BUCKETS; b++) {
        EQ(bucket_hit(shmq_bucket_bound(b)), b);
        EQ(bucket_hit(shmq_bucket_bound(b) + 1), b + 1);
    }
    for (int i = 0; i < 1000; i++) {
        uint64_t ns = chance(&state) >> (24 + below(&state, 40));
        uint32_t b = bucket_hit(ns);
        CHECK(ns <= shmq_bucket_bound(b) && (b == 0 || ns > shmq_bucket_bound(b - 1)));
        CHECK(b < 16 || shmq_bucket_bound(b) - ns <= ns / 8); /* within an eighth */
    }
    EQ(bucket_hit(UINT64_MAX), SHMQ_BUCKETS - 1);
    world_close(&w);
}

static void samples_weigh_what_they_stand_for(void)
{
    uint64_t weight = 0;
    world_open(&w, 1, sized(8, 4));
    for (int i = 0; i < 160000; i++)
        weight += shmq_sample(&w.q[0]);
    CHECK(weight > 159900 && weight < 160100);
    world_close(&w);
}

static void counters_agree_with_what_happened(void)
{
    struct shmq_stats s;
    struct shmq_delivery d;
    struct shmq_write write;
    struct shmq_geometry g = sized(64, 4);
    g.arena_bytes = 1 << 20;
    world_open(&w, 3, g);
    for (uint64_t id = 1; id <= 10; id++)
        EQ(publish_sized(&w.q[id % 3], id, 0, 24 + id * 100), SHMQ_OK);
    EQ(publish_draft(&w.q[0], 11, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1, .delay_ns = 1}), SHMQ_OK);
    EQ(shmq_write_begin(&w.q[0], &(struct shmq_draft){.body_bytes = 24, .ttl_ns = -1}, &write), SHMQ_OK);
    shmq_write_abort(&w.q[0], &write);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take(&w.q[1], &d), 2);
    nack(&w.q[1], &d);
    EQ(take(&w.q[2], &d), 2);
    EQ(shmq_ack_keep(&w.q[2], &d), SHMQ_OK);
    EQ(take(&w.q[2], &d), 3);
    EQ(shmq_bury(&w.q[2], d.slot, d.ctl, SHMQ_REJECTED), SHMQ_OK);
    EQ(take(&w.q[2], &d), 4);
    EQ(shmq_delay(&w.q[2], d.slot, d.ctl, 7), SHMQ_OK);
    EQ(take(&w.q[1], &d), 5);
    shmq_stats(&w.q[0], &s);
    EQ(s.published, 11);
    EQ(s.bytes_in, 11 * 24 + 5500);
    EQ(s.delivered, 6);
    EQ(s.acked, 2);
    EQ(s.requeued, 1);
    EQ(s.dead, 1);
    EQ(s.dead_pending, 1);
    EQ(s.aborted, 1);
    EQ(s.ready, 5);
    EQ(s.unacked, 1);
    EQ(s.delayed, 2);
    EQ(shmq_purge(&w.q[0], UINT64_MAX), 5);
    shmq_stats(&w.q[0], &s);
    EQ(s.purged, 5);
    EQ(s.ready, 0);
    EQ(s.acked, 2);
    struct shmq_stats before = s;
    world_heal(&w); /* corrections of what is right change nothing */
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, before.ready);
    EQ(s.unacked, before.unacked);
    EQ(s.arena_used, before.arena_used);
    world_abandon(&w);
}

int main(void)
{
    RUN(bounds_of_buckets_rise);
    RUN(each_time_falls_into_the_bucket_that_bounds_it);
    RUN(samples_weigh_what_they_stand_for);
    RUN(counters_agree_with_what_happened);
    return done();
}
