/* limits.c - states of queues that have limits, or put off what comes back. What is dropped is dead, and so is settled in the end. */
#include "stepping.h"

static void limit(struct stage *st, uint32_t overflow, uint64_t length, uint64_t bytes)
{
    struct shmq_header *h = st->q[0].header;
    atomic_store(&h->overflow, overflow);
    atomic_store(&h->max_length, length ? length + 1 : 0);
    atomic_store(&h->max_bytes, bytes ? bytes + 1 : 0);
}

static uint64_t ready(struct stage *st)
{
    return shmq_load(&st->q[0].header->depth[0]);
}

void at_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 2, 0);
    stage_puts(st, 2);
}

void at_its_length_free(struct stage *st) /* what is dropped is free at once */
{
    limit(st, SHMQ_DROPS, 2, 0);
    stage_puts(st, 2);
}

void returned_at_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 100, 0);
    returned(st);
    limit(st, SHMQ_DROPS_DEAD, ready(st), 0);
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

void has_room_for_one(struct stage *st)
{
    limit(st, SHMQ_REFUSES, 3, 0);
    stage_puts(st, 2);
}

void refuses_dead(struct stage *st)
{
    limit(st, SHMQ_REFUSES_DEAD, 2, 0);
    stage_puts(st, 2);
}

void due_at_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 100, 0);
    dead_and_delayed_pending(st);
    limit(st, SHMQ_DROPS_DEAD, ready(st), 0);
}

void due_where_refused(struct stage *st)
{
    limit(st, SHMQ_REFUSES, 100, 0);
    dead_and_delayed_pending(st);
    limit(st, SHMQ_REFUSES, ready(st), 0);
}

void expired_at_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 100, 0);
    one_expired(st);
    limit(st, SHMQ_DROPS_DEAD, ready(st), 0);
}

void expired_where_refused(struct stage *st)
{
    limit(st, SHMQ_REFUSES, 100, 0);
    one_expired(st);
    limit(st, SHMQ_REFUSES, ready(st), 0);
}

void miscounted(struct stage *st) /* as deaths leave it */
{
    limit(st, SHMQ_DROPS_DEAD, 3, 0);
    lost_references(st);
    atomic_store(&st->q[0].header->depth[0], 0);
    atomic_store(&st->q[0].header->depth[1], 0);
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

void held_by_a_dead_one_at_its_length(struct stage *st)
{
    limit(st, SHMQ_DROPS_DEAD, 2, 0);
    held_by_a_dead_one(st);
}

void held_by_a_dead_one_to_try_later(struct stage *st)
{
    held_by_a_dead_one(st);
    atomic_store(&st->q[0].header->retry, SHMQ_RETRY_FAILED);
    atomic_store(&st->q[0].header->retry_min, 1000000);
}

void seen_to_try_later(struct stage *st)
{
    unacked_and_seen(st);
    atomic_store(&st->q[0].header->retry, SHMQ_RETRY_FAILED);
    atomic_store(&st->q[0].header->retry_min, 1000000);
}

void aged_returned(struct stage *st) /* the lowest level stands highest, and one of it came back */
{
    returned(st);
    atomic_store(&st->q[0].header->ageing, UINT64_C(1) << 50);
}

void held_to_try_later(struct stage *st)
{
    struct shmq_header *h = st->q[0].header;
    held_to_delay(st);
    atomic_store(&h->retry, SHMQ_RETRY_FAILED | SHMQ_RETRY_RETURNED);
    atomic_store(&h->retry_min, 1000000);
}
