/* shmq_shared.h - the structures that processes share, drawn in docs/SHM_LAYOUT.md and pinned in layout.c. Included by shmq_core.h, where the
 * constants are. */
#ifndef SHMQ_SHARED_H
#define SHMQ_SHARED_H

typedef _Atomic uint64_t shmq_word;
typedef _Atomic uint32_t shmq_half;

struct shmq_geometry {
    uint32_t levels;       /* 1..256 */
    uint32_t slots;        /* messages, 1..SHMQ_SLOTS_MAX */
    uint32_t inline_bytes; /* body + envelope kept in the slot; multiple of 64 */
    uint32_t ring_entries; /* of the first ring, a power of two, 4..65536 */
    uint64_t arena_bytes;  /* multiple of 1 MiB; 0: no large bodies */
};

struct shmq_slot { /* one line and a half of hot words, then the inline area */
    alignas(64) shmq_word ctl;
    shmq_word sequence;     /* ns, publish time, strictly increasing per producer */
    shmq_word expires;      /* ns, 0 = never */
    shmq_word due;          /* stamped time, see shmq_stamp */
    shmq_word ack_deadline; /* stamped time */
    shmq_word shape;        /* body bytes 32 | envelope bytes 16 | level 8 | flags 8 */
    shmq_word place;        /* first granule 32 | count 16 | tier 8 (0 = inline) */
    shmq_word origin;       /* pid 32 | reserved 16 | number of the sender 8, 0: unknown | priority as published 8: also one above the highest level */
};

struct shmq_part { /* one ring of a ring's doubling series */
    alignas(SHMQ_LINE) shmq_word head;
    alignas(SHMQ_LINE) shmq_word tail;
    alignas(SHMQ_LINE) shmq_word entry[];
};

struct shmq_ends { /* of a series: takers use front, enqueuers back */
    alignas(SHMQ_LINE) shmq_word front;
    shmq_word back;
};

struct shmq_tally { /* one shard of statistics */
    alignas(SHMQ_LINE) shmq_word published;
    shmq_word bytes_in;
    shmq_word delivered;
    shmq_word bytes_out;
    shmq_word freed; /* every change to FREE; blocked producers compare its sum */
    shmq_word requeued;
    shmq_word dead;    /* -> DEAD from UNACKED */
    shmq_word expired; /* -> DEAD from READY */
    shmq_word purged;
    shmq_word settled; /* DEAD -> FREE */
    shmq_word aborted; /* WRITING -> FREE */
    shmq_word delayed; /* -> DELAYED from WRITING */
    shmq_word fired;   /* DELAYED -> READY */
    shmq_word held;    /* UNACKED -> DELAYED */
    shmq_word views;   /* UNACKED -> ACKED */
    shmq_word released; /* ACKED -> FREE */
};

struct shmq_tier_words {
    alignas(SHMQ_LINE) shmq_word committed; /* change count 32 | granules 32 */
    shmq_word hint;
};

struct shmq_header {
    /* written once, before anybody else attaches */
    shmq_word magic;
    shmq_word layout;
    shmq_word geometry[3]; /* levels | slots<<32, inline | ring<<32, arena */
    shmq_word queue_id;
    /* read by all, written seldom */
    alignas(SHMQ_LINE) shmq_word flags; /* SHMQ_FLAG_... */
    shmq_word epoch;          /* of the bells */
    shmq_word delivery_limit; /* 0 = none, else limit + 1 */
    shmq_word levels_committed[SHMQ_LEVELS_MAX / 64];
    shmq_word overflow;              /* enum shmq_overflow, SHMQ_DROPS_HIGHEST */
    shmq_word max_length, max_bytes; /* 0 = none, else limit + 1 */
    shmq_word retry, retry_min, retry_max; /* enum shmq_retry; ns */
    shmq_word ageing;                      /* ns that raise a waiting message by a level; 0 = never */
    shmq_word share, mark;                 /* bytes: stopped, this is its share of what all may have; 0 = not stopped */
    alignas(SHMQ_LINE) shmq_word slots_committed; /* change count 32 | slots 32 */
    shmq_word slots_high;                         /* no slot at or above was ever claimed */
    alignas(SHMQ_LINE) shmq_word registered[SHMQ_SIDES][SHMQ_LINE / 8]; /* [side][0]: change count 32 | number 32 */
    alignas(SHMQ_LINE) shmq_word arena_used; /* bytes of claimed granules: a hint, corrected at rest */
    shmq_word adjust[SHMQ_GAUGES];           /* healer's corrections of the gauges */
    shmq_word given_up;                      /* slots that were claimed, and freed again for want of granules */
    shmq_word depth[2];                      /* messages and bytes ready, where there is a limit (limit.c); corrected by the healer */
    shmq_word expiry;                        /* the first time at which something may expire; 0 = none is known */
    shmq_word often_failed;                  /* messages that failed SHMQ_WARN_FAILURES times without a limit */
    shmq_word used, stops;                   /* ns, when somebody last asked for a message without the broker; publishes that were STOPPED */
    struct shmq_tier_words tier[SHMQ_TIERS];
    alignas(SHMQ_LINE) shmq_half gate[SHMQ_LEVELS_MAX / SHMQ_GATE_LEVELS];
    struct shmq_ends dead, delayed;
    struct shmq_tally tally[SHMQ_SHARDS];
    alignas(SHMQ_LINE) shmq_word histogram[2][SHMQ_BUCKETS];
    shmq_word counting[SHMQ_COUNTING]; /* how often somebody has counted what is ready 48 | owner who is just counting 16, 0: nobody (limit.c) */
    shmq_word sender[SHMQ_SENDERS];    /* uid + 1 32 | gid 32, 0: free (sender.c) */
};
#define SHMQ_FLAG_DELETED 1u
#define SHMQ_FLAG_TTL 2u      /* some message has a time to live */
#define SHMQ_FLAG_RESCAN 4u   /* dead or delayed ones are in no ring */
#define SHMQ_FLAG_BROKERED 8u /* the broker decides who gets what: nobody else takes */
#define SHMQ_FLAG_WARN 16u    /* say when a message has failed often */
#define SHMQ_FLAG_UNHEARD UINT64_C(32) /* << side: somebody rang the bells of an earlier broker; the supervisor rings those of now */

#endif
