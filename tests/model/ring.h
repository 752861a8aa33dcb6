/* ring.h - claim, publish, take, ack and requeue on one ring that never grows: words, states and processes of the model.
 *
 * The steps (ring.c) are those of shmq/core/slot.c, publish.c, ring.c and deliver.c. Producers find the ring full now and then: they clear
 * what is stale at its head, or leave their reference to the healer. A taker may also take from the middle, as from a returned ring.
 * What is judged is in ring_judge.c. */
#ifndef SHMQ_MODEL_RING_H
#define SHMQ_MODEL_RING_H

#include "explore.h"

#include <stdalign.h>

#define SIZE 2u /* entries */
#define SLOTS_MAX 3u
#define MESSAGES_MAX 4u
#define PROCESSES 4u

/* ---- words ---- */
enum { FREE, WRITING, READY, UNACKED };
/* control word: generation 6 | deliveries 2 | owner 4 | state 4 */
static inline uint16_t word_of(unsigned generation, unsigned deliveries, unsigned owner, unsigned state)
{
    return (uint16_t)((generation & 63) << 10 | (deliveries & 3) << 8 | owner << 4 | state);
}
static inline unsigned state_of(uint16_t w) { return w & 15; }
static inline unsigned owner_of(uint16_t w) { return w >> 4 & 15; }
static inline unsigned generation_of(uint16_t w) { return w >> 10; }
static inline unsigned deliveries_of(uint16_t w) { return w >> 8 & 3; }

/* entry: lap 6 | generation 6 | slot 3 | full 1; a mark is FULL of slot 7 */
#define MARK 7u
static inline uint16_t empty_of(unsigned lap) { return (uint16_t)((lap & 63) << 10); }
static inline uint16_t full_of(unsigned lap, unsigned generation, unsigned slot)
{
    return (uint16_t)((lap & 63) << 10 | (generation & 63) << 4 | slot << 1 | 1);
}
static inline bool is_full(uint16_t e) { return e & 1; }
static inline unsigned lap_of(uint16_t e) { return e >> 10; }
static inline bool is_live(uint16_t e, uint16_t w) { return state_of(w) == READY && generation_of(w) == (e >> 4 & 63); }

/* ---- a state ---- */
enum at {
    BITS, TAKE_BIT, SEE_SLOT, CLAIM, LOOK_AT_SLOTS, WRITE, COMMIT, /* producers */
    SEE_TAIL, SEE_ENTRY, PUT, MOVE_TAIL, HELP_TAIL, TAIL_AGAIN,           /* enqueue */
    SEE_HEAD, SEE_FRONT, HEAD_AGAIN, HELP_HEAD, SEE_MESSAGE,              /* look */
    TAKE, SEE_SECOND, SEE_SECOND_MESSAGE, TAKE_SECOND, SEE_HEAD_SECOND, MARK_SECOND,
    SEE_TAIL_FOR_CLEAR, TAIL_FOR_CLEAR, CLEAR, SEE_CLEARED, MOVE_HEAD,    /* clear */
    READ, SETTLE, SET_BIT, END
};
enum role { PRODUCER, TAKER, MIDDLE_TAKER, NACKER, NOBODY };
struct process {
    uint8_t at, role, left, slot, message; /* left: operations still to do; message: + 1 */
    uint8_t position, looked, then, nacked, free_all_along; /* then: behind a clearing; free_all_along: set of slots */
    bool finds_full, found_nothing, was_empty, spare; /* was_empty: at some moment of this look */
    uint16_t entry, word, second;
};
struct state {
    uint16_t ctl[SLOTS_MAX], entry[SIZE];
    uint8_t body[SLOTS_MAX], holds[SLOTS_MAX]; /* message + 1: as written, and as it should be */
    uint8_t bits, head, tail, slots;
    uint8_t committed, to_healer, delivered, settled; /* sets of messages */
    uint8_t published[2];                             /* by each producer */
    bool ordered;                                     /* first deliveries must be */
    alignas(8) struct process p[PROCESSES + 1]; /* the last one is the auditor */
};
#define STATE_BYTES sizeof(struct state)

enum { GENERATION_KEPT = 1, DELIVERY_WITHOUT_SWAP = 2, COMMIT_BEFORE_BODY = 4, FULL_FROM_HINTS = 8, TAIL_NOT_HELPED = 16,
       HALF_DONE_TAKE_UNSEEN = 32, HEAD_MOVED_BLINDLY = 64, FREE_BEFORE_READ = 128, CLEAR_BEFORE_TAIL = 256 };
extern uint32_t ring_broken;
extern uint64_t ring_seen; /* bit n: a step at n was done */
static inline bool is_broken(uint32_t what) { return ring_broken & what; }

static inline unsigned lap(unsigned position) { return position / SIZE & 63; }
static inline unsigned bit(unsigned n) { return 1u << n; }
static inline unsigned producer_of(unsigned message) { return message / 2; }

void ring_next_operation(struct state *s, struct process *p);
void ring_step(struct state *s, unsigned me); /* `me` is not at END */
const char *ring_doing(const void *state, unsigned process);

#endif
