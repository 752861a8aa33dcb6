/* shmq_core.h - the contract of the C core: one queue in one shared-memory segment.
 *
 * A reader needs no other file to use the core. What is shared is drawn here, in shmq_shared.h and in docs/SHM_LAYOUT.md, and
 * pinned in layout.c. Rules:
 *   - every shared word is a C11 atomic; each one is loaded once into a local, checked, then used;
 *   - offsets come from the private geometry, never from the segment;
 *   - 0 = done, negative errno = fatal and passed on untouched, positive enum = a named outcome the caller handles;
 *   - nothing waits for another process; every loop is bounded by others' progress or by SHMQ_LOOP_MAX.
 *
 * Control word (the truth about one slot):
 *      63            36 35       20 19        12 11       4 3    0
 *     [ generation 28  | owner 16  | deliveries 8| failures 8|state 4]
 *   In DEAD the owner field holds the reason.
 *
 * Ring entry (a hint: where a message may be):
 *      63      44 43            24 23      1   0
 *     [ lap 20   | generation 20  | slot 23 | full 1]
 *   EMPTY(lap) = lap only; SEALED(lap) = EMPTY with slot all ones; a full entry with slot all ones is a mark: stale for ever.
 *
 * Granule owner (a hint: which message has this piece of the arena):
 *      63      40 39            12 11    0
 *     [ slot+1 24 | generation 28 | unused ]     0 = never used
 */
#ifndef SHMQ_CORE_H
#define SHMQ_CORE_H

#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shmq_break.h"

#define SHMQ_LAYOUT 3u
#define SHMQ_MAGIC UINT64_C(0x31676573716d6873) /* "shmqseg1" */
#define SHMQ_LINE 128u /* pairs of cache lines are fetched together on x86-64 */
#define SHMQ_PAGE 4096u
#define SHMQ_LEVELS_MAX 256u
#define SHMQ_SLOTS_MAX ((1u << 23) - 2u)
#define SHMQ_NO_SLOT ((1u << 23) - 1u)
#define SHMQ_BODY_BYTES_MAX (UINT64_C(1) << 30)
#define SHMQ_ENVELOPE_BYTES_MAX 65535u
#define SHMQ_TIERS 3u
#define SHMQ_RUN_MAX 1025u /* granules of one body: 1 GiB, and its envelope */
#define SHMQ_GATED_LEVELS 16u /* up to here the rings are their own gates */
#define SHMQ_GATE_LEVELS 4u /* levels behind one gate */
#define SHMQ_SHARDS 16u
#define SHMQ_BUCKETS 320u
#define SHMQ_WINDOW 128u /* live references looked at in a returned ring */
#define SHMQ_PARTS_MAX 24u /* rings of doubling size */
#define SHMQ_LOOP_MAX (1u << 25)
#define SHMQ_LACKS 16u /* threads that are remembered as blocked at one handle */
#define SHMQ_COUNTING_BITS 6u
#define SHMQ_COUNTING (1u << SHMQ_COUNTING_BITS) /* operations that may be between their swap and their count; those beyond say nothing */
#define SHMQ_SENDERS 255u /* users and groups that publish to one queue; those beyond are unknown */
#define SHMQ_SPARE 8u /* slots a producer keeps in mind after clearing their bits */
#define SHMQ_AT_ONCE_NS UINT64_C(200000000) /* for a woken consumer to take what may not wait (time to live 0) */
#define SHMQ_WARN_FAILURES 20u /* of a message, where nothing limits them */

/* ---- outcomes ---------------------------------------------------------------------------------------------------- */
enum shmq_outcome {
    SHMQ_OK = 0,
    SHMQ_FULL = 1,      /* capacity reached */
    SHMQ_NO_MEMORY = 2, /* the file system of the segment is full */
    SHMQ_TOO_LARGE = 3, /* can never fit */
    SHMQ_DELETED = 4,
    SHMQ_EMPTY = 5,     /* nothing to take */
    SHMQ_STALE = 6,     /* the control word is not what the caller holds */
    SHMQ_NOT_DUE = 7,
    SHMQ_DEAD_NOW = 8,  /* a requeue that went over the delivery limit */
    SHMQ_REFUSED = 9,   /* a length limit is reached, and its policy refuses */
    SHMQ_STOPPED = 10,  /* it would have to grow, and holds more than its fair share of memory (limit.c) */
};
#define SHMQ_DAMAGED (-EUCLEAN) /* a word in the segment fails its check */

enum shmq_state { SHMQ_FREE, SHMQ_WRITING, SHMQ_READY, SHMQ_DELAYED, SHMQ_UNACKED, SHMQ_ACKED, SHMQ_DEAD, SHMQ_STATES };
enum shmq_reason { SHMQ_REJECTED = 1, SHMQ_EXPIRED, SHMQ_MAXLEN, SHMQ_DELIVERY_LIMIT };
enum shmq_side { SHMQ_CONSUMERS, SHMQ_PRODUCERS, SHMQ_SIDES };
enum shmq_flag { SHMQ_PERSISTENT = 1 };
enum shmq_gauge { SHMQ_GAUGE_READY, SHMQ_GAUGE_UNACKED, SHMQ_GAUGE_DELAYED, SHMQ_GAUGE_DEAD, SHMQ_GAUGES };
enum shmq_overflow { /* what happens beyond max_length or max_bytes; NO_LIMIT: there is neither */
    SHMQ_NO_LIMIT,
    SHMQ_DROPS,      /* the head is dropped */
    SHMQ_DROPS_DEAD, /* the head is dead: it has somewhere to go */
    SHMQ_REFUSES,
    SHMQ_REFUSES_DEAD, /* refused, and dead */
};
#define SHMQ_DROPS_HIGHEST 0x10u /* beside SHMQ_DROPS...: heads of the highest level first, not of the lowest */
enum shmq_retry { SHMQ_RETRY_FAILED = 1, SHMQ_RETRY_RETURNED = 2 }; /* bits: which requeues are delayed */

#include "shmq_words.h"
#include "shmq_shared.h"

/* ---- private: offsets, derived from the geometry alone ----------------------------------------------------------------- */
struct shmq_tier {
    uint64_t owners, data; /* offsets */
    uint32_t granules;
    uint32_t shift; /* log2 of the granule's bytes */
};
struct shmq_layout {
    uint64_t levels, level_stride, part_bytes; /* level blocks; bytes of a first ring */
    uint64_t series, main_stride, returned_stride; /* larger rings of level l: series + l * (main + returned) */
    uint64_t dead, delayed;                        /* first rings, then the larger ones, of the two internal series */
    uint64_t summary, bitmap, slots, slot_stride;
    uint32_t bitmap_words, summary_words;
    uint32_t main_last, returned_last; /* index of the largest ring */
    struct shmq_tier tier[SHMQ_TIERS];
    uint64_t bytes;
};

struct shmq_ring { /* where one series is; returned by value, costs nothing to make */
    struct shmq_ends *ends;
    uint8_t *first, *rest;
    uint32_t last; /* index of the largest ring */
    uint16_t level;
    uint8_t kind; /* enum shmq_kind */
};
enum shmq_kind { SHMQ_MAIN, SHMQ_RETURNED, SHMQ_INTERNAL };

struct shmq_heal;
struct shmq_timing;

struct shmq_shrunk { /* the free end of a tier while it is given back */
    uint64_t ctl;
    uint32_t slot, from, to;
    bool held;
};

struct shmq_room { /* of a level's main ring */
    uint32_t left;      /* publishes before we look at it again */
    uint32_t committed; /* we have committed the rings up to this one */
};

struct shmq_lack { /* the last attempt of a thread that found no room: threads take turns at a handle, and each sleeps for its own need */
    const void *thread;
    uint64_t freed; /* sum of freed before it */
    bool arena, stopped; /* it was granules that were missing, freed is without given_up; the queue might not grow */
};

struct shmq_queue { /* one owner's handle; not thread-safe */
    uint8_t *base;
    struct shmq_header *header;
    struct shmq_geometry geometry;
    struct shmq_layout layout;
    int fd, bell[SHMQ_SIDES], supervisor_bell;
    uint64_t bell_epoch;
    uint32_t owner;
    uint64_t sender; /* of what is published where the draft names none */
    bool read_only;
    uint32_t slots_known;              /* committed, as seen */
    uint64_t levels_known[SHMQ_LEVELS_MAX / 64];
    struct shmq_room room[SHMQ_LEVELS_MAX];
    uint32_t publishing; /* the level of the publish under way, or of the last one */
    uint32_t tier_known[SHMQ_TIERS];
    uint64_t last_sequence;
    uint32_t spare[SHMQ_SPARE], spares;
    uint64_t full_look_ns; /* time of the last look that found no room */
    struct shmq_lack lack[SHMQ_LACKS];
    uint32_t lacked; /* the last of these that was noted */
    uint64_t ops;                      /* for sampling the histograms */
    uint32_t expire_cursor, overdue_cursor;
    struct shmq_shrunk shrunk[SHMQ_TIERS];
    struct shmq_heal *heal;
    struct shmq_timing *timing;
};

struct shmq_identity { /* of a process, as the kernel tells it */
    uint32_t uid, gid, pid;
};

/* What is published. */
struct shmq_draft {
    const void *envelope;
    uint64_t body_bytes;
    uint32_t envelope_bytes;
    uint32_t level, flags; /* level: the priority as published, 0..255 */
    uint64_t sender;   /* of shmq_sender; 0: the handle's own */
    int64_t ttl_ns;    /* < 0 none */
    uint64_t delay_ns; /* 0 none */
};
/* A slot in WRITING, to be filled at `body` and committed or aborted. */
struct shmq_write {
    uint64_t ctl, shape, place, expires, due, origin;
    uint8_t *body, *envelope;
    uint32_t slot;
};
/* A slot in UNACKED by us. */
struct shmq_delivery {
    uint64_t ctl, sequence, expires, origin, taken_ns; /* taken_ns: 0 when not sampled */
    const uint8_t *body, *envelope;
    uint32_t slot, body_bytes, envelope_bytes, sample;
    uint8_t level, flags, tier;
};
struct shmq_counts {
    uint64_t requeued, dead, freed;
};

/* ---- layout.c, segment.c --------------------------------------------------------------------------------------------- */
int shmq_layout_of(const struct shmq_geometry *g, struct shmq_layout *out); /* -EINVAL: out of range */
uint64_t shmq_now(void);
/* Maps fd; `create` lays out a zeroed file of layout.bytes. 0, -errno, or -EPROTO when the segment is of another layout, geometry or queue. */
int shmq_attach(struct shmq_queue *q, int fd, const struct shmq_geometry *g, uint32_t owner, uint64_t queue_id, bool create, bool read_only);
void shmq_detach(struct shmq_queue *q);
int shmq_commit_memory(struct shmq_queue *q, uint64_t offset, uint64_t bytes); /* 0 or SHMQ_NO_MEMORY or -errno */
int64_t shmq_memory_bytes(const struct shmq_queue *q); /* what the segment really has of its file system, or -errno */
int shmq_commit_level(struct shmq_queue *q, uint32_t level);
int shmq_commit_slots(struct shmq_queue *q); /* FULL when all are; STOPPED */
uint32_t shmq_slots_committed(struct shmq_queue *q);
uint32_t shmq_slots_high(struct shmq_queue *q); /* checked against committed */
bool shmq_level_committed(struct shmq_queue *q, uint32_t level);

static inline struct shmq_slot *shmq_slot_at(const struct shmq_queue *q, uint32_t slot) {
    return (struct shmq_slot *)(void *)(q->base + q->layout.slots + (uint64_t)slot * q->layout.slot_stride);
}
static inline struct shmq_tally *shmq_tally_of(const struct shmq_queue *q) { return &q->header->tally[q->owner & (SHMQ_SHARDS - 1)]; }
#define SHMQ_COUNT(q, field, n) atomic_fetch_add_explicit(&shmq_tally_of(q)->field, (uint64_t)(n), memory_order_relaxed)

/* ---- ring.c, ring_full.c ----------------------------------------------------------------------------------------------- */
struct shmq_look { /* the head of a series, as loaded; kept together */
    struct shmq_part *part;
    uint64_t position, entry, ctl;
    uint32_t bits, slot; /* log2 of the ring's size; the message */
};
struct shmq_ring shmq_ring_main(struct shmq_queue *q, uint32_t level);
struct shmq_ring shmq_ring_returned(struct shmq_queue *q, uint32_t level);
struct shmq_ring shmq_ring_dead(struct shmq_queue *q);
struct shmq_ring shmq_ring_delayed(struct shmq_queue *q);
struct shmq_part *shmq_ring_part(const struct shmq_queue *q, const struct shmq_ring *r, uint64_t k, uint32_t *bits);
int shmq_ring_enqueue(struct shmq_queue *q, const struct shmq_ring *r, uint32_t slot, uint32_t generation); /* SHMQ_OK, SHMQ_FULL = left to the healer */
int shmq_ring_look(struct shmq_queue *q, const struct shmq_ring *r, uint32_t state, struct shmq_look *out); /* OK or EMPTY; clears what is stale at the head */
int shmq_ring_clear(struct shmq_queue *q, const struct shmq_look *look);
int shmq_ring_lowest(struct shmq_queue *q, const struct shmq_ring *r, struct shmq_look *out); /* of the first 128 live: lowest sequence */
void shmq_ring_mark(const struct shmq_look *look); /* its reference is used up */
bool shmq_ring_may_have(struct shmq_queue *q, const struct shmq_ring *r);
int shmq_ring_secure(struct shmq_queue *q, uint32_t level); /* before a publish: OK, or NO_MEMORY for its reference */
int shmq_ring_reserve(struct shmq_queue *q, uint32_t level, uint64_t entries); /* memory for a ring of so many: OK, NO_MEMORY */
int shmq_ring_make_room(struct shmq_queue *q, const struct shmq_ring *r, uint64_t k); /* OK: try again; FULL: give up */
enum shmq_put { SHMQ_PUT_DONE, SHMQ_PUT_LAPPED, SHMQ_PUT_SEALED, SHMQ_PUT_FULL };
int shmq_ring_put(struct shmq_part *part, uint32_t bits, uint32_t slot, uint32_t generation); /* enum shmq_put: one ring of the series */
bool shmq_reference_live(struct shmq_queue *q, uint64_t entry, uint32_t state, uint64_t *ctl);

static inline bool shmq_cas(shmq_word *word, uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_acq_rel, memory_order_acquire);
}
static inline bool shmq_cas_relaxed(shmq_word *word, uint64_t from, uint64_t to) { /* of broken builds */
    return atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_relaxed, memory_order_relaxed);
}
static inline uint64_t shmq_load(const shmq_word *word) { return atomic_load_explicit(word, memory_order_acquire); }
/* A full fence where the last shared access was a read-modify-write, which on x86-64 is one already. */
static inline void shmq_fence_after_swap(void) {
#if defined(__x86_64__)
    atomic_signal_fence(memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}
/* Positions that follow each other lie in different cache lines of a 512-byte block, so that the two ends don't fight over one. */
static inline uint64_t shmq_entry_index(uint64_t position, uint32_t bits) {
    uint64_t i = position & ((UINT64_C(1) << bits) - 1);
    return bits < 6 ? i : (i & ~UINT64_C(63)) | (i & 7) << 3 | (i >> 3 & 7);
}

/* ---- slot.c, arena.c ------------------------------------------------------------------------------------------------- */
int shmq_slot_claim(struct shmq_queue *q, uint32_t *slot, uint64_t *ctl); /* OK, FULL, STOPPED, NO_MEMORY; then WRITING(owner) */
/* ctl -> FREE, hints, counters (`why` too, unless NULL), producers' bell. OK or STALE */
int shmq_slot_free(struct shmq_queue *q, uint32_t slot, uint64_t ctl, shmq_word *why);
void shmq_slot_hint(struct shmq_queue *q, uint32_t slot);
bool shmq_slot_has_bit(struct shmq_queue *q, uint32_t slot);
uint32_t shmq_tier_committed(struct shmq_queue *q, uint32_t t);
uint64_t shmq_freed_sum(struct shmq_queue *q);
int shmq_arena_claim(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t bytes, uint64_t *place);
uint8_t *shmq_arena_at(const struct shmq_queue *q, uint64_t place, uint64_t bytes); /* NULL: out of bounds */
void shmq_arena_release(struct shmq_queue *q, uint64_t place); /* accounting and hint, before the slot is freed: granules are free by definition */
void shmq_arena_keep(struct shmq_queue *q, uint64_t place);    /* it was not freed */
bool shmq_arena_owner_live(struct shmq_queue *q, uint64_t owner, uint32_t *slot);

/* ---- publish.c --------------------------------------------------------------------------------------------------------- */
int shmq_write_begin(struct shmq_queue *q, const struct shmq_draft *d, struct shmq_write *w);
int shmq_write_commit(struct shmq_queue *q, struct shmq_write *w);
void shmq_write_abort(struct shmq_queue *q, struct shmq_write *w);
int shmq_publish(struct shmq_queue *q, const struct shmq_draft *d, const void *body);
int shmq_make_ready(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t shape); /* gate, CAS ctl -> READY, main ring; the caller counts, then rings */
void shmq_gate_raise(struct shmq_queue *q, uint32_t level);
void shmq_gate_lower(struct shmq_queue *q, uint32_t level);

/* ---- sender.c ---------------------------------------------------------------------------------------------------------- */
uint64_t shmq_sender(struct shmq_queue *q, struct shmq_identity of); /* for a draft of this queue; 0: no room, nobody will know */
bool shmq_sender_of(const struct shmq_queue *q, uint64_t origin, struct shmq_identity *out); /* false: unknown */

/* ---- limit.c: what is ready, counted where there is a limit. Before and after the swap by which a message comes or goes: where the
 * head is dropped a death leaves too low a count, and nothing is dropped for it; where a publish is refused too high a one -------- */
static inline uint32_t shmq_overflow(const struct shmq_queue *q) {
    return (uint32_t)atomic_load_explicit(&q->header->overflow, memory_order_relaxed);
}
static inline bool shmq_refuses(uint32_t overflow) { return (overflow & 0xfu) >= SHMQ_REFUSES; }
bool shmq_depth_comes(struct shmq_queue *q, uint64_t shape); /* true: now it is over, */
bool shmq_depth_goes(struct shmq_queue *q, uint64_t shape);  /* or was before; so of those who come at once each sees his own count */
bool shmq_is_over(struct shmq_queue *q, uint64_t more, uint64_t bytes); /* with so many more */
struct shmq_counting { /* that somebody says so, in a word of the header; none: there was no word, or no limit */
    shmq_word *word;
    uint64_t said;
};
struct shmq_counting shmq_counting_say(struct shmq_queue *q);
bool shmq_counting_rests(struct shmq_queue *q, uint64_t *times); /* nobody counts; how often somebody has, all together */
/* Around a swap and its counts, so that the healer does not take what is half counted for miscounted. */
static inline struct shmq_counting shmq_counting_begin(struct shmq_queue *q, uint32_t overflow) {
    return overflow ? shmq_counting_say(q) : (struct shmq_counting){0};
}
static inline void shmq_counting_end(struct shmq_counting c) { /* release: the counts before it; pairs with the acquire in shmq_counting_rests */
    if (c.word) shmq_cas(c.word, c.said, shmq_counted(c.said)); /* unless the reaper took us for dead */
}
int shmq_trim(struct shmq_queue *q); /* drops heads until what is ready is within the limits: OK, or damaged */
void shmq_may_expire(struct shmq_queue *q, uint64_t expires); /* the supervisor is to look then */
bool shmq_is_stopped(const struct shmq_queue *q);
int shmq_stop(struct shmq_queue *q); /* STOPPED where it may not grow, and counted; else OK */
void shmq_set_share(struct shmq_queue *q, uint64_t share, uint64_t mark); /* the supervisor: 0 lets it grow again, and rings who waits for that */

/* ---- deliver.c --------------------------------------------------------------------------------------------------------- */
int shmq_take(struct shmq_queue *q, struct shmq_delivery *d); /* OK, EMPTY */
int shmq_describe(struct shmq_queue *q, uint32_t slot, uint64_t ctl, struct shmq_delivery *d); /* where it is; all is checked, whoever wrote it */
bool shmq_is_current(struct shmq_queue *q, const struct shmq_delivery *d); /* with the acquire fence of a copy */
int shmq_ack(struct shmq_queue *q, const struct shmq_delivery *d);
int shmq_ack_keep(struct shmq_queue *q, struct shmq_delivery *d);  /* UNACKED -> ACKED; d->ctl moves on */
int shmq_release(struct shmq_queue *q, const struct shmq_delivery *d); /* ACKED -> FREE */
int shmq_requeue(struct shmq_queue *q, uint32_t slot, uint64_t ctl, bool count_failure); /* OK, STALE, DEAD_NOW */
int shmq_delay(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t due_ns);
int shmq_bury(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint32_t reason); /* READY or UNACKED -> DEAD */
int shmq_drop_head(struct shmq_queue *q, uint32_t level, bool dies); /* its first message: OK, EMPTY, NOT_DUE: the queue is not over its limit */
void shmq_dead_enqueue(struct shmq_queue *q, uint32_t slot, uint64_t dead); /* its reference, or a rescan; the supervisor's bell */
int shmq_touch(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t deadline_ns);
bool shmq_may_have(struct shmq_queue *q);
uint64_t shmq_stamp(uint64_t ns, uint64_t ctl); /* a time with 12 bits of its delivery: 4 us steps */
bool shmq_stamp_fits(uint64_t stamped, uint64_t ctl);

/* ---- bell.c -------------------------------------------------------------------------------------------------------------- */
void shmq_bell_register(struct shmq_queue *q, enum shmq_side side);
bool shmq_bell_token(struct shmq_queue *q, enum shmq_side side);
void shmq_bell_leave(struct shmq_queue *q, enum shmq_side side);
void shmq_bell_ring(struct shmq_queue *q, enum shmq_side side); /* one token if anybody is registered; starts with the full fence */
void shmq_bell_wake_own(struct shmq_queue *q, enum shmq_side side); /* a sleeper of ours, at our bells, of whatever broker: its registration goes */
void shmq_bell_ring_all(struct shmq_queue *q, enum shmq_side side);
void shmq_bell_ring_unheard(struct shmq_queue *q); /* what others rang for with the bells of an earlier broker: for the supervisor */
void shmq_bell_supervisor(struct shmq_queue *q);
bool shmq_bell_look(struct shmq_queue *q, enum shmq_side side); /* what a sleeper checks after registering */
void shmq_bell_lack(struct shmq_queue *q, uint64_t freed, bool arena, bool stopped); /* an attempt of this thread found no room */

/* ---- sweep.c, shrink.c, heal.c: the supervisor ------------------------------------------------------------------------------------- */
int shmq_reap(struct shmq_queue *q, const uint8_t *live, uint32_t owner, bool count_failure, bool lost_session, struct shmq_counts *out);
uint64_t shmq_arena_shrink(struct shmq_queue *q); /* bytes given back, 16 MiB a tier at most; call it again and again, when there is little traffic */
int shmq_arena_refill(struct shmq_queue *q, uint32_t t, uint32_t from); /* behind a punch: EMPTY, OK, or no memory */
int64_t shmq_purge(struct shmq_queue *q, uint64_t before_ns);
int64_t shmq_expire_due(struct shmq_queue *q, uint64_t now_ns, uint32_t slots_max); /* the next so many slots */
int64_t shmq_expire_from(struct shmq_queue *q, uint64_t now_ns, uint32_t first, uint32_t slots_max); /* from the first to the last: `expiry` then says when next */
int64_t shmq_overdue(struct shmq_queue *q, uint64_t timeout_ns, uint64_t now_ns, uint32_t slots_max);
int shmq_pop(struct shmq_queue *q, enum shmq_state state, uint32_t *slot, uint64_t *ctl); /* DEAD or DELAYED: from its ring */
int shmq_settle_dead(struct shmq_queue *q, uint32_t slot, uint64_t ctl);
int shmq_fire(struct shmq_queue *q, uint32_t slot, uint64_t ctl, uint64_t now_ns); /* OK, NOT_DUE, STALE */
struct shmq_heal_report {
    uint64_t bits;       /* FREE slots that had no bit */
    uint64_t references; /* READY slots that nothing referred to */
    uint64_t passes;     /* whole passes completed */
    uint64_t suspects;   /* READY slots to look at once more, 100 ms from now */
    uint64_t rescan;     /* dead or delayed references were dropped: scan for them */
};
void shmq_heal_forget(struct shmq_queue *q);
int shmq_heal_step(struct shmq_queue *q, uint64_t now_ns, bool full, struct shmq_heal_report *out);
int shmq_check(struct shmq_queue *q, void (*say)(void *, const char *), void *context); /* number of faults at rest */

/* ---- stats.c --------------------------------------------------------------------------------------------------------------- */
void shmq_record(struct shmq_queue *q, int which, uint64_t ns, uint32_t weight);
uint32_t shmq_sample(struct shmq_queue *q); /* weight of this operation in the histograms, 0 = skip */
uint64_t shmq_bucket_bound(uint32_t bucket);
void shmq_tally_sum(struct shmq_queue *q, uint64_t out[16]); /* in the order of struct shmq_tally */
void shmq_gauges_of(const uint64_t tally[16], uint64_t out[SHMQ_GAUGES]); /* without corrections */
struct shmq_stats { /* totals since the queue was made, and gauges (exact at rest; when processes died, after two passes of the healer 100 ms apart) */
    uint64_t published, bytes_in, delivered, bytes_out, acked, requeued, dead, expired, purged, settled, aborted, fired;
    uint64_t ready, unacked, delayed, dead_pending, arena_used, arena_committed, slots_committed, slots_high;
};
void shmq_stats(struct shmq_queue *q, struct shmq_stats *out);

#endif
