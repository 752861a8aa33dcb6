/* preempted.c - see preempted.h: mostly a yield, now and then a sleep that lets others do a great deal. */
#include "preempted.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define FIRST UINT64_C(0x243f6a8885a308d3)

_Thread_local uint64_t preempted_state = FIRST;
uint32_t preempted_once_in = 30;

__attribute__((constructor)) static void read_environment(void)
{
    const char *given = getenv("SHMQ_PREEMPT");
    if (given && atoi(given) > 0)
        preempted_once_in = (uint32_t)atoi(given);
}

void preempted_now(void)
{
    static _Atomic uint64_t threads;
    static _Thread_local uint64_t mine;
    if (!mine) /* each thread its own series */
        preempted_state ^= (mine = 1 + atomic_fetch_add(&threads, 1)) * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t r = preempted_state >> 40;
    struct timespec t = {.tv_nsec = 1000 * (long)(r % 300)};
    if (r % 64 == 0)
        nanosleep(&t, NULL);
    else
        sched_yield();
}
