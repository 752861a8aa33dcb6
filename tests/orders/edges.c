/* edges.c - what is published by each release, for ThreadSanitizer: two threads that share nothing but one word of the core. The first
 * writes something plain and then makes it known by that word; the second reads the word, then what is plain. A release made relaxed is a
 * race then, which the sanitizer reports.
 *
 *     edges NAME
 *
 * Plain are the bodies of messages, and, standing for memory that the kernel must have made before anybody touches it, one word for each
 * page of the segment. Where other words would order the two threads as well (references, bits), they are kept out of the way:
 * the sweep finds a message without its reference, the claimer a slot without its bit, as behind a death. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 50u
#define WORDS 8u /* of a body: the sanitizer remembers four accesses to each 8 bytes, so bodies are not read and written by bytes */
#define PAGES 4096u
#define PATIENCE_NS UINT64_C(20000000000)

static struct world w;
static uint64_t there[PAGES]; /* plain on purpose; eight bytes each: of smaller ones the sanitizer would remember four of eight */

static void make_pages(off_t offset, off_t bytes)
{
    for (uint64_t page = (uint64_t)offset / SHMQ_PAGE; page <= (uint64_t)(offset + bytes - 1) / SHMQ_PAGE && page < PAGES; page++)
        there[page] = 1;
}

static void touch_pages(const struct shmq_queue *q, const void *at, uint64_t bytes)
{
    uint64_t offset = (uint64_t)((const uint8_t *)at - q->base);
    for (uint64_t page = offset / SHMQ_PAGE; page <= (offset + bytes - 1) / SHMQ_PAGE; page++)
        EQ(there[page], 1);
}

static void wait_a_little(uint64_t *until)
{
    if (!*until)
        *until = shmq_now() + PATIENCE_NS;
    CHECK(shmq_now() < *until);
    sched_yield();
}

static int publish_words(struct shmq_queue *q, uint64_t id, int64_t ttl_ns)
{
    struct shmq_write write;
    int r = shmq_write_begin(q, &(struct shmq_draft){.body_bytes = WORDS * 8, .ttl_ns = ttl_ns}, &write);
    if (r != SHMQ_OK)
        return r;
    for (uint32_t i = 0; i < WORDS; i++)
        ((uint64_t *)(void *)write.body)[i] = id + i;
    return shmq_write_commit(q, &write);
}

static void read_words(const struct shmq_delivery *d, uint64_t id)
{
    for (uint32_t i = 0; i < WORDS; i++)
        EQ(((const uint64_t *)(const void *)d->body)[i], id + i);
}

/* ---- READY: body written -> body read by who finds the message by its control word ---- */
static void *publish_expired(void *q)
{
    for (uint64_t id = 1, until = 0; id <= ROUNDS;)
        if (publish_words(q, id, 0) == SHMQ_OK)
            id++;
        else
            wait_a_little(&until);
    return NULL;
}

static void *bury_and_read(void *q)
{
    for (uint64_t id = 1, until = 0; id <= ROUNDS;) {
        uint32_t slot;
        uint64_t ctl;
        struct shmq_delivery d;
        CHECK(shmq_expire_due(q, UINT64_MAX, 1) >= 0);
        if (shmq_pop(q, SHMQ_DEAD, &slot, &ctl) != SHMQ_OK) {
            wait_a_little(&until);
            continue;
        }
        EQ(shmq_describe(q, slot, ctl, &d), SHMQ_OK);
        read_words(&d, id++);
        EQ(shmq_settle_dead(q, slot, ctl), SHMQ_OK);
    }
    return NULL;
}

/* ---- FREE: body read -> body written by who claims the slot by its control word ---- */
static void *read_and_ack(void *argument)
{
    struct shmq_queue *q = argument;
    q->layout.bitmap += 1024; /* its hints go nowhere */
    q->layout.summary += 1024;
    for (uint64_t id = 1, until = 0; id <= ROUNDS;) {
        struct shmq_delivery d;
        if (shmq_take(q, &d) != SHMQ_OK) {
            wait_a_little(&until);
            continue;
        }
        read_words(&d, id++);
        EQ(shmq_ack(q, &d), SHMQ_OK);
    }
    return NULL;
}

static void *publish_anew(void *q)
{
    for (uint64_t id = 1, until = 0; id <= ROUNDS;)
        if (publish_words(q, id, -1) == SHMQ_OK)
            id++;
        else
            wait_a_little(&until);
    return NULL;
}

/* ---- memory: made -> touched ---- */
static void *commit_level(void *q)
{
    EQ(shmq_commit_level(q, 69), SHMQ_OK);
    return NULL;
}

static void *touch_level(void *q)
{
    uint64_t until = 0;
    while (!shmq_level_committed(q, 69))
        wait_a_little(&until);
    touch_pages(q, shmq_ring_main(q, 69).ends, w.q[0].layout.level_stride);
    return NULL;
}

static void *commit_slots(void *q)
{
    EQ(shmq_commit_slots(q), SHMQ_OK);
    return NULL;
}

static void *touch_slots(void *q)
{
    uint64_t until = 0;
    while (shmq_slots_committed(q) == 64)
        wait_a_little(&until);
    touch_pages(q, shmq_slot_at(q, 64), 64 * w.q[0].layout.slot_stride);
    return NULL;
}

static void *publish_large(void *q)
{
    EQ(publish_sized(q, 1, 0, 3000), SHMQ_OK);
    return NULL;
}

static void *touch_granules(void *q)
{
    uint64_t until = 0;
    while (!shmq_tier_committed(q, 0))
        wait_a_little(&until);
    touch_pages(q, ((struct shmq_queue *)q)->base + w.q[0].layout.tier[0].data, SHMQ_PAGE);
    return NULL;
}

static void *publish_five(void *q) /* into a ring of four */
{
    for (uint64_t id = 1; id <= 5; id++)
        publish(q, id);
    return NULL;
}

static void *touch_next_ring(void *argument)
{
    struct shmq_queue *q = argument;
    struct shmq_ring r = shmq_ring_main(q, 0);
    uint64_t until = 0, back;
    uint32_t bits;
    while ((back = shmq_load(&r.ends->back)) == 0)
        wait_a_little(&until);
    touch_pages(q, shmq_ring_part(q, &r, back, &bits), sizeof(struct shmq_part) + 8 * 8);
    return NULL;
}

/* ---- the segment: laid out -> attached ---- */
static struct shmq_queue late;

static void *create(void *q)
{
    struct shmq_queue *first = q;
    shmq_detach(first);
    EQ(shmq_attach(first, w.fd, &w.geometry, 1, 8, true, false), 0);
    return NULL;
}

static void *attach(void *unused)
{
    uint64_t until = 0;
    while (shmq_attach(&late, w.fd, &w.geometry, 2, 8, false, false))
        wait_a_little(&until);
    touch_pages(&late, shmq_ring_main(&late, 0).ends, late.layout.level_stride);
    touch_pages(&late, shmq_slot_at(&late, 0), 64 * late.layout.slot_stride);
    shmq_detach(&late);
    return unused;
}

/* ---- the edges ---- */
static const struct edge {
    const char *name;
    void *(*first)(void *), *(*second)(void *);
    uint32_t levels, slots;
} edges[] = {
    {"READY", publish_expired, bury_and_read, 1, 1},  {"FREE", read_and_ack, publish_anew, 1, 1},
    {"LEVELS", commit_level, touch_level, 70, 8},     {"SLOTS", commit_slots, touch_slots, 1, 200},
    {"TIERS", publish_large, touch_granules, 1, 8},   {"BACK", publish_five, touch_next_ring, 1, 8},
    {"MAGIC", create, attach, 1, 200},
};

static void try_edge(const struct edge *e)
{
    pthread_t first, second;
    struct shmq_geometry g = sized(e->slots, 4);
    g.levels = e->levels;
    g.arena_bytes = 1 << 20;
    world_open(&w, 2, g);
    memset(there, 0, sizeof there);
    if (e->first == create) /* an empty file again */
        EQ(ftruncate(w.fd, 0) + ftruncate(w.fd, (off_t)w.q[0].layout.bytes), 0);
    after_fallocate = make_pages;
    EQ(pthread_create(&second, NULL, e->second, &w.q[1]), 0);
    EQ(pthread_create(&first, NULL, e->first, &w.q[0]), 0);
    pthread_join(first, NULL);
    pthread_join(second, NULL);
    after_fallocate = NULL;
    world_abandon(&w);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        if (argc == 2 && strcmp(argv[1], edges[i].name) == 0) {
            try_edge(&edges[i]);
            return 0;
        }
    fprintf(stderr, "edges READY|FREE|LEVELS|SLOTS|TIERS|BACK|MAGIC\n");
    return 2;
}
