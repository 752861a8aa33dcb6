/* stats.c - statistics that readers read for free: counters in shards by owner, and log-linear histograms (8 buckets per power of
 * two of nanoseconds). A busy handle records one operation in 16, with weight 16. */
#include "shmq_core.h"

#define ALWAYS 1024u
#define EVERY 16u

uint32_t shmq_sample(struct shmq_queue *q) {
    if (q->ops++ < ALWAYS) return 1;
    return q->ops % EVERY ? 0 : EVERY;
}

static uint32_t bucket_of(uint64_t ns) {
    if (ns < 8) return (uint32_t)ns;
    uint32_t e = 63u - (uint32_t)__builtin_clzll(ns), b = (e - 2) * 8 + (uint32_t)(ns >> (e - 3) & 7);
    return b < SHMQ_BUCKETS ? b : SHMQ_BUCKETS - 1;
}

uint64_t shmq_bucket_bound(uint32_t bucket) {
    if (bucket < 8) return bucket;
    uint32_t e = bucket / 8 + 2;
    return ((uint64_t)(8 + bucket % 8 + 1) << (e - 3)) - 1;
}

void shmq_record(struct shmq_queue *q, int which, uint64_t ns, uint32_t weight) {
    atomic_fetch_add_explicit(&q->header->histogram[which][bucket_of(ns)], weight, memory_order_relaxed);
}

void shmq_tally_sum(struct shmq_queue *q, uint64_t out[16]) {
    for (uint32_t f = 0; f < 16; f++) out[f] = 0;
    for (uint32_t i = 0; i < SHMQ_SHARDS; i++) {
        const shmq_word *words = &q->header->tally[i].published;
        for (uint32_t f = 0; f < 16; f++) out[f] += atomic_load_explicit(&words[f], memory_order_relaxed);
    }
}

static uint64_t acked_of(const uint64_t t[16]) {
    uint64_t freed = t[4], purged = t[8], settled = t[9], aborted = t[10], views = t[14], released = t[15];
    return freed - purged - settled - aborted - released + views;
}

void shmq_gauges_of(const uint64_t t[16], uint64_t out[SHMQ_GAUGES]) {
    uint64_t published = t[0], delivered = t[2], requeued = t[5], dead = t[6], expired = t[7], purged = t[8];
    uint64_t settled = t[9], delayed = t[11], fired = t[12], held = t[13];
    out[SHMQ_GAUGE_READY] = published - delayed + fired + requeued - delivered - expired - purged;
    out[SHMQ_GAUGE_UNACKED] = delivered - requeued - dead - held - acked_of(t);
    out[SHMQ_GAUGE_DELAYED] = delayed + held - fired;
    out[SHMQ_GAUGE_DEAD] = dead + expired - settled;
}

static uint64_t at_least_zero(int64_t n) { return n < 0 ? 0 : (uint64_t)n; }

void shmq_stats(struct shmq_queue *q, struct shmq_stats *out) {
    const struct shmq_header *h = q->header;
    uint64_t t[16], gauge[SHMQ_GAUGES];
    shmq_tally_sum(q, t);
    shmq_gauges_of(t, gauge);
    for (uint32_t i = 0; i < SHMQ_GAUGES; i++) gauge[i] = at_least_zero((int64_t)(gauge[i] + shmq_load(&h->adjust[i])));
    *out = (struct shmq_stats){.published = t[0], .bytes_in = t[1], .delivered = t[2], .bytes_out = t[3],
                               .acked = at_least_zero((int64_t)acked_of(t)), .requeued = t[5], .dead = t[6], .expired = t[7],
                               .purged = t[8], .settled = t[9], .aborted = t[10], .fired = t[12],
                               .ready = gauge[SHMQ_GAUGE_READY], .unacked = gauge[SHMQ_GAUGE_UNACKED],
                               .delayed = gauge[SHMQ_GAUGE_DELAYED], .dead_pending = gauge[SHMQ_GAUGE_DEAD],
                               .arena_used = at_least_zero((int64_t)shmq_load(&h->arena_used)),
                               .slots_committed = (uint32_t)shmq_load(&h->slots_committed), .slots_high = shmq_load(&h->slots_high)};
    for (uint32_t i = 0; i < SHMQ_TIERS; i++)
        out->arena_committed += (uint64_t)(uint32_t)shmq_load(&h->tier[i].committed) << q->layout.tier[i].shift;
}
