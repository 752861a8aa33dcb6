/* limits.c - states of queues that have limits, or put off what comes back. What is dropped is dead, and so is settled in the end. */
#include "stepping.h"

static void limit(struct stage *st, uint32_t overflow, uint64_t length, uint64_t bytes)
{
    struct shmq_header *h = st->q[0].header;
    atomic_store(&h->overflow, overflow);
    atomic_store(&h->max_length, length ? length + 1 : 0);
    atomic_store(&h->max_bytes, bytes ? bytes + 1 : 0);
}

void at_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 2, 0);
    stage_puts(st, 2);
}

void below_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 100, 100000);
    stage_puts(st, 2);
}

void at_its_bytes(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 0, 24 * 3);
    every_level(st);
}

void drops_highest(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD | SHMQ_DROPS_HIGHEST, 3, 0);
    every_level(st);
}

void refuses(struct stage *st)
{
    limit(st, SHMQ_REFUSES, 2, 0);
    stage_puts(st, 2);
}

void refuses_dead(struct stage *st)
{
    limit(st, SHMQ_REFUSES_DEAD, 2, 0);
    stage_puts(st, 2);
}

void aged(struct stage *st) /* so slowly that levels still decide */
{
    every_level(st);
    atomic_store(&st->q[0].header->ageing, UINT64_C(1) << 50);
}

void held_at_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 2, 0);
    stage_puts(st, 2);
    stage_hold(st);
    stage_puts(st, 1);
}

void held_refuses(struct stage *st)
{
    limit(st, SHMQ_REFUSES, 2, 0);
    stage_puts(st, 2);
    stage_hold(st);
}

void held_to_try_later(struct stage *st)
{
    struct shmq_header *h = st->q[0].header;
    held_to_delay(st);
    atomic_store(&h->retry, SHMQ_RETRY_FAILED | SHMQ_RETRY_RETURNED);
    atomic_store(&h->retry_min, 1000000);
}
