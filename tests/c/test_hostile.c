/* test_hostile.c - a peer that writes what it likes: words of a segment are replaced by others, at rest and while the core is at work.
 * No operation may crash, read or write outside the segment (which stands between guard pages), or go on for long. What it answers
 * is its own affair. $SHMQ_TEST_SEED repeats a run; an argument is the number of rounds. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define GUARD (UINT64_C(64) << 20)
#define LONG_NS UINT64_C(1000000000) /* of one operation, of this thread's time */
#define MIB (UINT64_C(1) << 20)

static struct world w;
static struct shmq_queue pristine[HANDLES_MAX];
static uint8_t *image;
static uint64_t words; /* of the segment that may be changed: all but the bodies of the arena */
static uint64_t seed, slowest_ns, damaged, rounds_done;
static const char *doing;

static uint64_t cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the segment between guard pages ---- */
static void guard(struct shmq_queue *q)
{
    uint64_t bytes = (q->layout.bytes + SHMQ_PAGE - 1) & ~(uint64_t)(SHMQ_PAGE - 1);
    uint8_t *room = mmap(NULL, bytes + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(room != MAP_FAILED);
    void *there = mremap(q->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, room + GUARD);
    CHECK(there == room + GUARD);
    q->base = there;
    q->header = there;
}

static void furnish(void)
{
    struct shmq_delivery d;
    uint32_t levels = w.geometry.levels;
    for (uint64_t id = 1; id <= 14; id++)
        EQ(publish_sized(&w.q[id % 3], id, (uint32_t)id % levels, id % 4 ? 24 : 3000), SHMQ_OK);
    EQ(publish_draft(&w.q[0], 15, (struct shmq_draft){.body_bytes = 24, .ttl_ns = -1, .delay_ns = 1}), SHMQ_OK);
    EQ(publish_draft(&w.q[0], 16, (struct shmq_draft){.body_bytes = 24, .ttl_ns = 1}), SHMQ_OK);
    for (int i = 0; i < 6; i++) {
        EQ(shmq_take(&w.q[1], &d), SHMQ_OK);
        if (i == 1)
            nack(&w.q[1], &d);
        if (i == 2)
            EQ(shmq_bury(&w.q[1], d.slot, d.ctl, SHMQ_REJECTED), SHMQ_OK);
        if (i == 3)
            EQ(shmq_ack_keep(&w.q[1], &d), SHMQ_OK);
    }
}

static void open_guarded(uint32_t levels, uint32_t slots, uint32_t ring_entries)
{
    struct shmq_geometry g = sized(slots, ring_entries);
    g.levels = levels;
    g.arena_bytes = 1 * MIB;
    world_open(&w, 3, g);
    for (uint32_t i = 0; i < 3; i++)
        guard(&w.q[i]);
    furnish();
    words = (w.q[0].layout.tier[0].data + 4 * SHMQ_PAGE) / 8; /* all up to the first bodies of the arena */
    image = malloc(words * 8);
    CHECK(image != NULL);
    memcpy(image, w.q[0].base, words * 8);
    memcpy(pristine, w.q, sizeof pristine);
}

static void put_back(void)
{
    memcpy(w.q[0].base, image, words * 8);
    for (uint32_t i = 0; i < 3; i++) {
        shmq_heal_forget(&w.q[i]);
        free(w.q[i].timing);
    }
    memcpy(w.q, pristine, sizeof pristine);
}

static void close_guarded(void)
{
    put_back();
    free(image);
    world_abandon(&w);
}

/* ---- what a hostile peer writes ---- */
static uint64_t some_value(uint64_t *state, uint64_t old)
{
    static const uint64_t favourites[] = {0, 1, 2, 3, 4, 63, 64, UINT32_MAX, UINT64_MAX, INT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 32) - 2};
    switch (below(state, 8)) {
    case 0:
        return chance(state);
    case 1:
        return old ^ UINT64_C(1) << below(state, 64);
    case 2:
        return favourites[below(state, sizeof favourites / sizeof *favourites)];
    case 3:
        return old + below(state, 9) - 4;
    case 4:
        return atomic_load((shmq_word *)(void *)w.q[0].base + below(state, (uint32_t)words)); /* another word */
    case 5:
        return shmq_entry_full(below(state, 4), below(state, 3), below(state, 40));
    case 6:
        return shmq_ctl(below(state, 3), below(state, 5), below(state, 3), 0, below(state, 9));
    default:
        return old & chance(state);
    }
}

/* Words of the header, rings and slots are hit far more often than their share of the segment. */
static uint64_t some_place(uint64_t *state)
{
    const struct shmq_layout *l = &w.q[0].layout;
    uint64_t part[][2] = {
        {0, sizeof(struct shmq_header)},
        {offsetof(struct shmq_header, flags), offsetof(struct shmq_header, tally)},
        {l->dead, l->levels},
        {l->levels, l->levels + w.geometry.levels * l->level_stride},
        {l->levels, l->levels + 2 * l->level_stride},
        {l->summary, l->bitmap + 64},
        {l->slots, l->slots + 20 * l->slot_stride},
        {l->slots, l->slots + 20 * l->slot_stride},
        {l->tier[0].owners, l->tier[0].owners + 512},
        {l->tier[1].owners, l->tier[1].owners + 64},
        {0, words * 8},
    };
    uint32_t i = below(state, sizeof part / sizeof *part);
    return part[i][0] / 8 + below(state, (uint32_t)((part[i][1] - part[i][0]) / 8));
}

static void scribble(uint64_t *state, uint32_t n)
{
    while (n--) {
        shmq_word *word = (shmq_word *)(void *)w.q[0].base + some_place(state);
        atomic_store(word, some_value(state, atomic_load(word)));
    }
}

/* ---- everything the core does ---- */
static void read_all(const struct shmq_queue *q, const struct shmq_delivery *d)
{
    uint64_t sum = 0;
    CHECK(d->body >= q->base && d->body + d->body_bytes <= q->base + q->layout.bytes);
    CHECK(d->envelope >= d->body && d->envelope + d->envelope_bytes <= q->base + q->layout.bytes);
    for (uint64_t i = 0; i < d->body_bytes; i += 64)
        sum += d->body[i];
    for (uint64_t i = 0; i < d->envelope_bytes; i += 64)
        sum += d->envelope[i];
    *(volatile uint64_t *)&sum;
}

static int publish_some(struct shmq_queue *q, uint64_t *state)
{
    static const uint64_t sizes[] = {0, 24, 64, 65, 3000, 70000, 900000};
    struct shmq_draft d = {.body_bytes = sizes[below(state, 7)], .level = below(state, 300), .ttl_ns = below(state, 3) ? -1 : 0};
    d.delay_ns = below(state, 5) == 0;
    struct shmq_write write;
    int r = shmq_write_begin(q, &d, &write);
    if (r != SHMQ_OK)
        return r;
    CHECK(write.body >= q->base && write.body + d.body_bytes <= q->base + q->layout.bytes);
    memset(write.body, 0x5a, d.body_bytes);
    if (below(state, 4))
        return shmq_write_commit(q, &write);
    shmq_write_abort(q, &write);
    return SHMQ_OK;
}

static int take_some(struct shmq_queue *q, uint64_t *state)
{
    struct shmq_delivery d;
    int r = shmq_take(q, &d);
    if (r != SHMQ_OK)
        return r;
    read_all(q, &d);
    switch (below(state, 7)) {
    case 0:
        return shmq_requeue(q, d.slot, d.ctl, below(state, 2));
    case 1:
        return shmq_bury(q, d.slot, d.ctl, SHMQ_REJECTED);
    case 2:
        return shmq_delay(q, d.slot, d.ctl, chance(state));
    case 3:
        r = shmq_touch(q, d.slot, d.ctl, chance(state));
        return r;
    case 4:
        r = shmq_ack_keep(q, &d);
        return r ? r : shmq_release(q, &d);
    default:
        return shmq_ack(q, &d);
    }
}

static int supervise_some(struct shmq_queue *q, uint64_t *state)
{
    static uint8_t live[8192];
    struct shmq_counts counts;
    struct shmq_heal_report report;
    struct shmq_delivery d;
    uint32_t slot;
    uint64_t ctl;
    int r;
    switch (below(state, 8)) {
    case 0:
        return shmq_reap(q, below(state, 2) ? live : NULL, below(state, 4), below(state, 2), below(state, 2), &counts);
    case 1:
        return shmq_purge(q, below(state, 2) ? UINT64_MAX : 0) < 0 ? SHMQ_DAMAGED : SHMQ_OK;
    case 2:
        return shmq_expire_due(q, UINT64_MAX, 1 + below(state, 100)) < 0 ? SHMQ_DAMAGED : SHMQ_OK;
    case 3:
        return shmq_overdue(q, 0, w.now += LATER, 1 + below(state, 100)) < 0 ? SHMQ_DAMAGED : SHMQ_OK;
    case 4:
        r = shmq_pop(q, SHMQ_DEAD, &slot, &ctl);
        if (r == SHMQ_OK && shmq_describe(q, slot, ctl, &d) == SHMQ_OK)
            read_all(q, &d);
        return r == SHMQ_OK ? shmq_settle_dead(q, slot, ctl) : r;
    case 5:
        r = shmq_pop(q, SHMQ_DELAYED, &slot, &ctl);
        return r == SHMQ_OK ? shmq_fire(q, slot, ctl, UINT64_MAX) : r;
    case 6:
        return (int)(shmq_arena_shrink(q) & 0);
    default:
        return shmq_heal_step(q, w.now += LATER, below(state, 2), &report);
    }
}

static int look_some(struct shmq_queue *q, uint64_t *state)
{
    struct shmq_stats stats;
    switch (below(state, 6)) {
    case 0:
        return shmq_check(q, NULL, NULL) < 0 ? SHMQ_DAMAGED : SHMQ_OK;
    case 1:
        shmq_stats(q, &stats);
        return SHMQ_OK;
    case 2:
        shmq_bell_register(q, SHMQ_CONSUMERS);
        shmq_bell_look(q, SHMQ_CONSUMERS);
        shmq_bell_leave(q, SHMQ_CONSUMERS);
        return SHMQ_OK;
    case 3:
        shmq_bell_ring_all(q, SHMQ_PRODUCERS);
        return SHMQ_OK;
    default:
        shmq_may_have(q);
        return SHMQ_OK;
    }
}

static void work(uint64_t *state)
{
    static int (*const kinds[])(struct shmq_queue *, uint64_t *) = {publish_some, take_some, supervise_some, look_some};
    static const char *const names[] = {"publish", "take", "supervise", "look"};
    uint32_t kind = below(state, 4);
    uint64_t start = cpu_now();
    doing = names[kind];
    damaged += kinds[kind](&w.q[below(state, 3)], state) < 0;
    uint64_t took = cpu_now() - start;
    slowest_ns = took > slowest_ns ? took : slowest_ns;
    if (took > LONG_NS)
        fail(__FILE__, __LINE__, doing, (long long)took, (long long)*state);
}

/* ---- at rest, and at work ---- */
static uint64_t rounds = 3000;

static void words_changed_at_rest(uint32_t levels, uint32_t slots, uint32_t ring_entries)
{
    open_guarded(levels, slots, ring_entries);
    for (uint64_t n = 0; n < rounds; n++) {
        uint64_t state = seed + n;
        put_back();
        scribble(&state, 1 + below(&state, n % 3 ? 12 : 400));
        for (int i = 0; i < 24; i++)
            work(&state);
        rounds_done++;
    }
    close_guarded();
}

static void a_segment_changed_at_rest_harms_nobody(void)
{
    words_changed_at_rest(1, 32, 4);
    words_changed_at_rest(20, 100, 8);
}

static void a_segment_of_noise_harms_nobody(void)
{
    open_guarded(3, 64, 4);
    for (uint64_t n = 0; n < rounds / 30; n++) {
        uint64_t state = seed + n;
        put_back();
        for (uint64_t i = 0; i < words; i++)
            ((uint64_t *)(void *)w.q[0].base)[i] = n % 2 ? chance(&state) : some_value(&state, i);
        for (int i = 0; i < 40; i++)
            work(&state);
        rounds_done++;
    }
    close_guarded();
}

static _Atomic bool stop;

static void *keep_scribbling(void *unused)
{
    uint64_t state = seed ^ 0xabcdef;
    while (!atomic_load(&stop))
        scribble(&state, 10);
    return unused;
}

static void a_segment_changed_under_our_hands_harms_nobody(void)
{
    pthread_t peer;
    open_guarded(2, 64, 4);
    stop = false;
    EQ(pthread_create(&peer, NULL, keep_scribbling, NULL), 0);
    uint64_t end = shmq_now() + 100000 * rounds; /* 0.1 ms a round */
    for (uint64_t state = seed; shmq_now() < end; rounds_done++) {
        put_back();
        for (int i = 0; i < 50; i++)
            work(&state);
    }
    atomic_store(&stop, true);
    pthread_join(peer, NULL);
    close_guarded();
}

int main(int argc, char **argv)
{
    seed = seed_of();
    if (argc > 1)
        rounds = strtoull(argv[1], NULL, 0);
    RUN(a_segment_changed_at_rest_harms_nobody);
    RUN(a_segment_of_noise_harms_nobody);
    RUN(a_segment_changed_under_our_hands_harms_nobody);
    printf("%llu rounds, %llu operations found damage, the slowest took %llu us\n", (unsigned long long)rounds_done,
           (unsigned long long)damaged, (unsigned long long)(slowest_ns / 1000));
    return done();
}
