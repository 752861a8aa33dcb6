/* preempted.h - included before all else in a build of the core: a thread may lose the processor before each of its loads and swaps of a
 * shared word, so that few processors meet the interleavings of many. */
#ifndef SHMQ_PREEMPTED_H
#define SHMQ_PREEMPTED_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdatomic.h>
#include <stdint.h>

extern _Thread_local uint64_t preempted_state;
extern uint32_t preempted_once_in; /* $SHMQ_PREEMPT: accesses */
void preempted_now(void);

static inline void preempted(void)
{
    uint64_t x = preempted_state;
    x ^= x << 13;
    x ^= x >> 7;
    preempted_state = x ^= x << 17;
    if ((uint32_t)(x >> 20) % preempted_once_in == 0)
        preempted_now();
}

#undef atomic_load_explicit
#define atomic_load_explicit(word, order)                                                                              \
    (preempted(), __extension__({                                                                                      \
         __auto_type at_ = (word);                                                                                     \
         __typeof__((void)0, *at_) got_;                                                                               \
         __atomic_load(at_, &got_, order);                                                                             \
         got_;                                                                                                         \
     }))
#undef atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_strong_explicit(word, from, to, success, failure)                                      \
    (preempted(), __extension__({                                                                                      \
         __auto_type at_ = (word);                                                                                     \
         __typeof__((void)0, *at_) to_ = (to);                                                                         \
         __atomic_compare_exchange(at_, (from), &to_, 0, success, failure);                                            \
     }))

#endif
