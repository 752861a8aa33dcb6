/* support.h - what the C tests share: assertions, a segment with several handles, messages whose bodies prove themselves, and a seam
 * in posix_fallocate. A program runs its tests with RUN and ends at the first fault. */
#ifndef SHMQ_TESTS_SUPPORT_H
#define SHMQ_TESTS_SUPPORT_H

#include "shmq_core.h"

#include <stdio.h>
#include <sys/types.h>

#define HANDLES_MAX 8u
#define LATER UINT64_C(200000000) /* beyond the healer's second look */

/* ---- assertions ---- */
_Noreturn void fail(const char *file, int line, const char *what, long long a, long long b);
#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition, 0, 0))
#define EQ(actual, expected)                                                                                           \
    do {                                                                                                               \
        long long eq_a = (long long)(actual), eq_b = (long long)(expected);                                            \
        if (eq_a != eq_b)                                                                                              \
            fail(__FILE__, __LINE__, #actual " == " #expected, eq_a, eq_b);                                            \
    } while (0)
#define RUN(test) run(#test, test)
void run(const char *name, void (*test)(void));
int done(void); /* prints how many tests ran */

/* ---- a segment and its handles ---- */
struct world {
    struct shmq_geometry geometry;
    struct shmq_queue q[HANDLES_MAX]; /* owners 1, 2, .. */
    uint32_t handles;
    int fd;
    uint64_t now; /* the healer's clock: runs ahead of the real one */
};
void world_open(struct world *w, uint32_t handles, struct shmq_geometry geometry);
void world_close(struct world *w); /* after a check that nothing is wrong */
void world_abandon(struct world *w);
void world_limit(struct world *w, uint32_t overflow, uint64_t length, uint64_t bytes); /* as in the header: 0, or the limit + 1 */
struct shmq_heal_report world_heal(struct world *w); /* two looks, far enough apart */
int world_faults(struct world *w);                   /* shmq_check, said aloud */
void world_is_clean(struct world *w);                /* heal, then no faults */
uint32_t world_count(struct world *w, enum shmq_state state);
static inline struct shmq_geometry sized(uint32_t slots, uint32_t ring_entries)
{
    return (struct shmq_geometry){.levels = 1, .slots = slots, .inline_bytes = 64, .ring_entries = ring_entries};
}

/* ---- messages: a body is made from its id and checked when it is delivered ---- */
void body_fill(uint8_t *body, uint64_t bytes, uint64_t id);
bool body_is(const uint8_t *body, uint64_t bytes, uint64_t id);
int publish_sized(struct shmq_queue *q, uint64_t id, uint32_t level, uint64_t bytes);
int publish_draft(struct shmq_queue *q, uint64_t id, struct shmq_draft draft);
void publish(struct shmq_queue *q, uint64_t id);        /* level 0, 24 bytes; must be OK */
void publish_together(struct shmq_queue *q, uint64_t from, uint64_t to); /* all begin before the first commits; 64 at most */
uint64_t taken_id(const struct shmq_delivery *d);       /* fails when the body is not whole */
uint64_t take(struct shmq_queue *q, struct shmq_delivery *d); /* its id; 0: empty; anything else fails */
uint64_t take_ack(struct shmq_queue *q);
void nack(struct shmq_queue *q, const struct shmq_delivery *d);

/* ---- chance, by a seed that is printed ---- */
uint64_t seed_of(void); /* $SHMQ_TEST_SEED, else from the clock; printed once */
uint64_t chance(uint64_t *state);
static inline uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)((chance(state) >> 33) % n);
}

/* ---- the seam: every posix_fallocate of the program ---- */
extern _Atomic int64_t fallocate_left;                   /* that many more succeed, then ENOSPC; negative: no limit */
extern void (*after_fallocate)(off_t offset, off_t bytes); /* NULL, or called behind each one that succeeded */

#endif
