/* support.c - see support.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ID_BYTES 24u /* a body of at least this size says its id and its length */

/* ---- assertions ---- */
static const char *running = "";
static int tests_run;

void fail(const char *file, int line, const char *what, long long a, long long b)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: in %s: %s (%lld, %lld)\n", file, line, running, what, a, b);
    abort();
}

void run(const char *name, void (*test)(void))
{
    running = name;
    fallocate_left = -1;
    after_fallocate = NULL;
    test();
    tests_run++;
}

int done(void)
{
    printf("%d tests\n", tests_run);
    return 0;
}

/* ---- the seam: this definition goes before the C library's ---- */
_Atomic int64_t fallocate_left = -1;
void (*after_fallocate)(off_t offset, off_t bytes);

int posix_fallocate(int fd, off_t offset, off_t bytes)
{
    if (fallocate_left >= 0 && fallocate_left-- <= 0) {
        fallocate_left = 0;
        return ENOSPC;
    }
    if (fallocate(fd, 0, offset, bytes) < 0)
        return errno;
    if (after_fallocate)
        after_fallocate(offset, bytes);
    return 0;
}

/* ---- a segment and its handles ---- */
void world_open(struct world *w, uint32_t handles, struct shmq_geometry geometry)
{
    struct shmq_layout layout;
    memset(w, 0, sizeof *w);
    w->geometry = geometry;
    w->handles = handles;
    EQ(shmq_layout_of(&geometry, &layout), 0);
    w->fd = memfd_create("shmq-test", MFD_CLOEXEC);
    CHECK(w->fd >= 0);
    EQ(ftruncate(w->fd, (off_t)layout.bytes), 0);
    for (uint32_t i = 0; i < handles; i++)
        EQ(shmq_attach(&w->q[i], w->fd, &geometry, i + 1, 7, i == 0, false), 0);
    w->now = shmq_now();
}

void world_limit(struct world *w, uint32_t overflow, uint64_t length, uint64_t bytes)
{
    struct shmq_header *h = w->q[0].header;
    atomic_store(&h->max_length, length);
    atomic_store(&h->max_bytes, bytes);
    atomic_store(&h->overflow, overflow);
}

void world_abandon(struct world *w)
{
    for (uint32_t i = 0; i < w->handles; i++)
        shmq_detach(&w->q[i]);
    close(w->fd);
}

void world_close(struct world *w)
{
    world_is_clean(w);
    world_abandon(w);
}

struct shmq_heal_report world_heal(struct world *w)
{
    struct shmq_heal_report look, sum = {0};
    for (int i = 0; i < 2; i++) {
        EQ(shmq_heal_step(&w->q[0], w->now += LATER, true, &look), 0);
        sum.bits += look.bits;
        sum.references += look.references;
        sum.suspects = look.suspects;
        sum.rescan |= look.rescan;
    }
    return sum;
}

static void say(void *context, const char *what)
{
    (void)context;
    fprintf(stderr, "%s: %s\n", running, what);
}

int world_faults(struct world *w)
{
    return shmq_check(&w->q[0], say, NULL);
}

void world_is_clean(struct world *w)
{
    world_heal(w);
    EQ(world_faults(w), 0);
}

uint32_t world_count(struct world *w, enum shmq_state state)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < shmq_slots_committed(&w->q[0]); i++)
        n += shmq_ctl_state(shmq_load(&shmq_slot_at(&w->q[0], i)->ctl)) == state;
    return n;
}

/* ---- messages ---- */
void body_fill(uint8_t *body, uint64_t bytes, uint64_t id)
{
    uint64_t state = id, words[3] = {id, bytes, ~id};
    uint64_t head = bytes < ID_BYTES ? 0 : ID_BYTES;
    memcpy(body, words, head);
    for (uint64_t i = head; i < bytes; i++)
        body[i] = (uint8_t)(chance(&state) >> 56);
}

bool body_is(const uint8_t *body, uint64_t bytes, uint64_t id)
{
    uint64_t state = id, words[3] = {id, bytes, ~id};
    uint64_t head = bytes < ID_BYTES ? 0 : ID_BYTES;
    if (memcmp(body, words, head) != 0)
        return false;
    for (uint64_t i = head; i < bytes; i++)
        if (body[i] != (uint8_t)(chance(&state) >> 56))
            return false;
    return true;
}

int publish_draft(struct shmq_queue *q, uint64_t id, struct shmq_draft draft)
{
    struct shmq_write w;
    int r = shmq_write_begin(q, &draft, &w);
    if (r != SHMQ_OK)
        return r;
    body_fill(w.body, draft.body_bytes, id);
    return shmq_write_commit(q, &w);
}

int publish_sized(struct shmq_queue *q, uint64_t id, uint32_t level, uint64_t bytes)
{
    return publish_draft(q, id, (struct shmq_draft){.body_bytes = bytes, .level = level, .ttl_ns = -1});
}

void publish(struct shmq_queue *q, uint64_t id)
{
    EQ(publish_sized(q, id, 0, ID_BYTES), SHMQ_OK);
}

void publish_together(struct shmq_queue *q, uint64_t from, uint64_t to)
{
    struct shmq_draft draft = {.envelope = "", .body_bytes = ID_BYTES, .ttl_ns = -1};
    struct shmq_write writes[64];
    CHECK(to - from < 64);
    for (uint64_t id = from; id <= to; id++) {
        EQ(shmq_write_begin(q, &draft, &writes[id - from]), SHMQ_OK);
        body_fill(writes[id - from].body, ID_BYTES, id);
    }
    for (uint64_t id = from; id <= to; id++)
        EQ(shmq_write_commit(q, &writes[id - from]), SHMQ_OK);
}

uint64_t taken_id(const struct shmq_delivery *d)
{
    uint64_t id;
    CHECK(d->body_bytes >= ID_BYTES);
    memcpy(&id, d->body, sizeof id);
    CHECK(body_is(d->body, d->body_bytes, id));
    return id;
}

uint64_t take(struct shmq_queue *q, struct shmq_delivery *d)
{
    int r = shmq_take(q, d);
    if (r == SHMQ_EMPTY)
        return 0;
    EQ(r, SHMQ_OK);
    return taken_id(d);
}

uint64_t take_ack(struct shmq_queue *q)
{
    struct shmq_delivery d;
    uint64_t id = take(q, &d);
    if (id)
        EQ(shmq_ack(q, &d), SHMQ_OK);
    return id;
}

void nack(struct shmq_queue *q, const struct shmq_delivery *d)
{
    EQ(shmq_requeue(q, d->slot, d->ctl, false), SHMQ_OK);
}

/* ---- chance: splitmix64 ---- */
uint64_t chance(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t seed_of(void)
{
    const char *given = getenv("SHMQ_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (shmq_now() & 0xffffffff);
    printf("SHMQ_TEST_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}
