/* rings.h - for tests of rings: one world with two owners, looking inside its level 0, and filling and draining it. */
#ifndef SHMQ_TEST_RINGS_H
#define SHMQ_TEST_RINGS_H

#include "support.h"

static struct world w;

/* The main ring of level 0 and its current part, for looking inside. */
static inline struct shmq_ring ring_of(bool returned)
{
    return returned ? shmq_ring_returned(&w.q[0], 0) : shmq_ring_main(&w.q[0], 0);
}

static inline struct shmq_part *part_at(bool returned, uint64_t k, uint32_t *bits)
{
    struct shmq_ring r = ring_of(returned);
    return shmq_ring_part(&w.q[0], &r, k, bits);
}

static inline shmq_word *entry_at(struct shmq_part *part, uint64_t position, uint32_t bits)
{
    return &part->entry[shmq_entry_index(position, bits)];
}

static inline void set(shmq_word *word, uint64_t value)
{
    atomic_store(word, value);
}

static inline void fill(uint64_t from, uint64_t to)
{
    for (uint64_t id = from; id <= to; id++)
        publish(&w.q[0], id);
}

static inline void drain(uint64_t from, uint64_t to)
{
    for (uint64_t id = from; id <= to; id++)
        EQ(take_ack(&w.q[1]), id);
    EQ(take_ack(&w.q[1]), 0);
}

#endif
