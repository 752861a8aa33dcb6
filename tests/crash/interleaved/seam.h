/* seam.h - included before all else in a build of the core: a process may lose its turn before each load and each swap of a shared word.
 * Statistics and other relaxed additions are no such points, nor are the relaxed stores to a slot that is being written. */
#ifndef SHMQ_INTERLEAVED_SEAM_H
#define SHMQ_INTERLEAVED_SEAM_H

#include <stdatomic.h>
#include <stdbool.h>

extern bool seam_is_open; /* while a process of a scene is at work */
void seam_point(const char *file, int line);
#define SEAM() (seam_is_open ? seam_point(__FILE__, __LINE__) : (void)0)
#define SEAM_UNLESS_RELAXED(order) ((order) != memory_order_relaxed ? SEAM() : (void)0)

#undef atomic_load_explicit
#define atomic_load_explicit(word, order)                                                                              \
    (SEAM(), __extension__({                                                                                           \
         __auto_type at_ = (word);                                                                                     \
         __typeof__((void)0, *at_) got_;                                                                               \
         __atomic_load(at_, &got_, order);                                                                             \
         got_;                                                                                                         \
     }))
#undef atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_strong_explicit(word, from, to, success, failure)                                      \
    (SEAM(), __extension__({                                                                                           \
         __auto_type at_ = (word);                                                                                     \
         __typeof__((void)0, *at_) to_ = (to);                                                                         \
         __atomic_compare_exchange(at_, (from), &to_, 0, success, failure);                                            \
     }))
#undef atomic_fetch_add_explicit
#define atomic_fetch_add_explicit(word, by, order) (SEAM_UNLESS_RELAXED(order), __atomic_fetch_add((word), (by), (order)))
#undef atomic_fetch_sub_explicit
#define atomic_fetch_sub_explicit(word, by, order) (SEAM_UNLESS_RELAXED(order), __atomic_fetch_sub((word), (by), (order)))
#undef atomic_fetch_or_explicit
#define atomic_fetch_or_explicit(word, bits, order) (SEAM_UNLESS_RELAXED(order), __atomic_fetch_or((word), (bits), (order)))
#undef atomic_fetch_and_explicit
#define atomic_fetch_and_explicit(word, bits, order) (SEAM_UNLESS_RELAXED(order), __atomic_fetch_and((word), (bits), (order)))

#endif
