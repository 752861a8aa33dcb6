/* test_returned.c - the returned ring and its window: whatever stays at its head, a take passes few stale references, and what moves out of
 * the way of head keeps the order. */
#include "rings.h"

#define NEWEST (SHMQ_WINDOW - 1u)
#define OLDER 3000u
#define PASSED_MAX (2 * SHMQ_WINDOW)

static struct shmq_delivery held[OLDER + NEWEST];

static void take_all(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        EQ(take(&w.q[1], &held[i]), i + 1);
}

static void nack_from(uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        nack(&w.q[1], &held[i]);
}

/* Stale references from the head of the series to the last live one of the window. */
static uint32_t stale_in_window(void)
{
    struct shmq_ring r = ring_of(true);
    uint32_t live = 0, stale = 0, passed = 0;
    uint64_t ctl;
    for (uint64_t k = shmq_load(&r.ends->front); k <= shmq_load(&r.ends->back); k++) {
        uint32_t bits;
        struct shmq_part *part = part_at(true, k, &bits);
        for (uint64_t p = shmq_load(&part->head); p < shmq_load(&part->tail) && live < SHMQ_WINDOW; p++) {
            bool is_live = shmq_reference_live(&w.q[0], shmq_load(entry_at(part, p, bits)), SHMQ_READY, &ctl);
            live += is_live;
            stale += !is_live;
            passed = is_live ? stale : passed;
        }
    }
    return passed;
}

static void open_grown(uint32_t n) /* a returned ring that has held n, and is empty */
{
    world_open(&w, 2, sized(n, 64));
    fill(1, n);
    take_all(n);
    nack_from(0, n);
    take_all(n);
}

static void older_ones_behind_the_newest_are_taken_past_few_marks(void)
{
    open_grown(OLDER + NEWEST);
    nack_from(OLDER, OLDER + NEWEST);
    nack_from(0, OLDER);
    for (uint64_t id = 1; id <= OLDER + NEWEST; id++) {
        EQ(take_ack(&w.q[1]), id);
        CHECK(stale_in_window() <= PASSED_MAX);
    }
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void one_that_is_nacked_for_ever_passes_few_marks(void)
{
    struct shmq_delivery poison;
    open_grown(OLDER + NEWEST);
    nack_from(1, 1 + NEWEST);
    nack_from(0, 1);
    for (int times = 0; times < 2000; times++) {
        EQ(take(&w.q[1], &poison), 1);
        nack(&w.q[1], &poison);
        CHECK(stale_in_window() <= PASSED_MAX);
    }
    EQ(shmq_load(&ring_of(true).ends->back), shmq_load(&ring_of(true).ends->front));
    nack_from(1 + NEWEST, OLDER + NEWEST);
    drain(1, OLDER + NEWEST);
    world_close(&w);
}

static void what_expired_between_is_passed_once(void)
{
    struct shmq_delivery d;
    open_grown(OLDER + NEWEST);
    nack_from(OLDER, OLDER + NEWEST);
    nack_from(0, OLDER);
    for (uint32_t i = 0; i < OLDER - 1; i++)
        set(&shmq_slot_at(&w.q[0], held[i].slot)->expires, 1);
    EQ(take(&w.q[1], &d), OLDER); /* buries all that have expired */
    CHECK(stale_in_window() <= PASSED_MAX);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    EQ(world_count(&w, SHMQ_DEAD), OLDER - 1);
    for (uint64_t id = OLDER + 1; id <= OLDER + NEWEST; id++)
        EQ(take_ack(&w.q[1]), id);
    world_abandon(&w);
}

/* The model: references in the order in which they were given back; the lowest of the first SHMQ_WINDOW is next. */
static void the_lowest_of_the_window_is_taken_always(void)
{
    enum { MESSAGES = 400, ROUNDS = 20000 };
    static uint32_t order[MESSAGES], out[MESSAGES];
    uint32_t in_ring = 0, outside = MESSAGES;
    uint64_t state = seed_of();
    world_open(&w, 2, sized(MESSAGES, 65536));
    fill(1, MESSAGES);
    take_all(MESSAGES);
    for (uint32_t i = 0; i < MESSAGES; i++)
        out[i] = i;
    for (uint32_t n = 0; n < ROUNDS; n++) {
        bool filling = n / 1000 % 2 == 0;
        if (outside && below(&state, 8) < (filling ? 5 : 3)) {
            uint32_t which = below(&state, outside), i = out[which];
            out[which] = out[--outside];
            nack(&w.q[1], &held[i]);
            order[in_ring++] = i;
            continue;
        }
        uint32_t at = 0;
        for (uint32_t i = 1; i < in_ring && i < SHMQ_WINDOW; i++)
            at = order[i] < order[at] ? i : at;
        if (!in_ring)
            continue;
        out[outside++] = order[at];
        EQ(take(&w.q[1], &held[order[at]]), order[at] + 1);
        for (in_ring--; at < in_ring; at++)
            order[at] = order[at + 1];
        CHECK(stale_in_window() <= PASSED_MAX);
    }
    for (uint32_t i = 0; i < outside; i++)
        EQ(shmq_ack(&w.q[1], &held[out[i]]), SHMQ_OK);
    while (take_ack(&w.q[1]))
        continue;
    world_close(&w);
}

int main(void)
{
    RUN(older_ones_behind_the_newest_are_taken_past_few_marks);
    RUN(one_that_is_nacked_for_ever_passes_few_marks);
    RUN(what_expired_between_is_passed_once);
    RUN(the_lowest_of_the_window_is_taken_always);
    return done();
}
