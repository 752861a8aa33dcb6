/* stepping.h - the stepping harness: a child does one operation of the core on a shared segment and is stopped at each of its
 * instructions; others go on; then it is killed there, or the world moves on and it continues.
 *
 *   stepping.c   the runs, the figures, the command line
 *   child.c      the traced child: its instructions, and how to get to one of them
 *   scenes.c     operations, each with the states it is tried in
 *   states.c     these states; leftovers.c and limits.c more of them
 *   stage.c      the segment, its handles, and putting everything back as it was
 *   judge.c      what must hold while the child is stopped, and what others do meanwhile
 *   pairs.c      two children stopped at once
 *   verdict.c    after the death or the end of the child: reap, heal, drain, and every message counted
 */
#ifndef SHMQ_STEPPING_H
#define SHMQ_STEPPING_H

#include "../stale.h"
#include "shmq_core.h"

#include <setjmp.h>
#include <sys/types.h>

#define OTHERS 3u
#define CHILD 0u                  /* index of the child's handle; owner 1 */
#define SUPERVISOR (1u + OTHERS)  /* index of the supervisor's handle */
#define DEAD_ONE (2u + OTHERS)    /* of one that was dead before the child began */
#define SECOND (3u + OTHERS)      /* of a second child */
#define HANDLES (4u + OTHERS)
#define LEDGER_MAX 512u
#define STALL_NS UINT64_C(100000000)
#define TRACE_MAX 200000u

/* ---- messages ---- */
enum expectation { NEVER, MAYBE, MUST }; /* how often a message is settled in the end: 0, 0 or 1, 1 */
struct entry {
    uint64_t id, ctl, sequence; /* ctl and slot: where it was when the stage was set */
    uint32_t slot, settled;
    enum expectation expect;
    bool loose; /* its order is not promised */
};
struct ledger {
    struct entry entry[LEDGER_MAX];
    uint32_t n;
    uint64_t next_id[HANDLES];                           /* of each producer; id = (index + 1) * 1000 + number */
    uint64_t last_first[HANDLES + 1][SHMQ_LEVELS_MAX];   /* FIFO among first deliveries */
};

/* ---- scenes ---- */
enum kind {
    PUBLISHES,
    TAKES,
    SETTLES,   /* acts on a delivery of the child */
    SWEEPS,    /* the supervisor's work */
};
struct stage;
struct scene {
    const char *operation, *state;
    enum kind kind;
    void (*prepare)(struct stage *);
    int (*act)(struct stage *); /* in the child */
    uint32_t levels, slots, ring_entries;
    bool sleepers, limit, brings; /* brings: a message of its own */
};
extern const struct scene scenes[];
extern const uint32_t scenes_count;

/* states.c: how states are made */
void stage_puts(struct stage *st, uint32_t n);
struct shmq_delivery stage_take(struct stage *st, uint32_t handle);
void stage_ack(struct stage *st, uint32_t handle, const struct shmq_delivery *d);
void stage_give_back(struct stage *st, const struct shmq_delivery *d);
void stage_hold(struct stage *st); /* by the child */
/* states.c, leftovers.c; held_: the child has a delivery */
void empty(struct stage *st), one(struct stage *st), wrapped(struct stage *st), full(struct stage *st), four(struct stage *st);
void every_level(struct stage *st), returned(struct stage *st), sealed(struct stage *st), one_large(struct stage *st);
void one_delayed(struct stage *st), one_expired(struct stage *st), all_committed_in_use(struct stage *st);
void stale_behind_head(struct stage *st), returned_full(struct stage *st), dead_and_delayed_pending(struct stage *st);
void at_its_length(struct stage *st), at_its_bytes(struct stage *st), drops_highest(struct stage *st);
void refuses(struct stage *st), refuses_dead(struct stage *st), below_its_length(struct stage *st), aged(struct stage *st);
void at_its_length_free(struct stage *st), has_room_for_one(struct stage *st), returned_at_its_length(struct stage *st);
void due_at_its_length(struct stage *st), due_where_refused(struct stage *st);
void expired_at_its_length(struct stage *st), expired_where_refused(struct stage *st), miscounted(struct stage *st);
void aged_returned(struct stage *st), seen_to_try_later(struct stage *st);
void held_by_a_dead_one_at_its_length(struct stage *st), held_by_a_dead_one_to_try_later(struct stage *st);
void held_at_its_length(struct stage *st), held_refuses(struct stage *st), held_to_try_later(struct stage *st);
void held_only(struct stage *st), held_among_others(struct stage *st), held_wrapped(struct stage *st), held_full(struct stage *st);
void held_levels(struct stage *st), held_returned(struct stage *st), held_large(struct stage *st), held_expired(struct stage *st);
void held_second(struct stage *st), held_growing(struct stage *st), viewed(struct stage *st);
void held_to_delay(struct stage *st), held_full_to_delay(struct stage *st), held_by_a_dead_one(struct stage *st);
void lost_references(struct stage *st);
void half_done_enqueue(struct stage *st), half_done_take(struct stage *st), half_done_take_of_full(struct stage *st);
void half_done_seal(struct stage *st), lost_bits(struct stage *st), false_hints(struct stage *st), large_from_the_start(struct stage *st);
void lowest_level_only(struct stage *st), returned_in_many_rings(struct stage *st), tokens_written(struct stage *st);
void returned_behind_a_gap(struct stage *st), old_bells(struct stage *st), held_old_bells(struct stage *st), rung_unheard(struct stage *st);
void held_with_half_done_enqueue(struct stage *st), held_beside_stale(struct stage *st), held_beside_one_stale(struct stage *st);
void held_beside_live_only(struct stage *st), unacked_and_seen(struct stage *st), free_end(struct stage *st);
extern const struct shmq_draft small, large, delayed;

/* What the child says, in memory of its own that both see. */
struct report {
    _Atomic int result;
    struct shmq_delivery delivery;
    bool current, whole; /* whole: the copy, which counts when it was current */
    uint64_t id;
    uint8_t copy[600];
};

struct stage {
    const struct scene *scene;
    struct shmq_queue q[HANDLES], q0[HANDLES];
    struct ledger ledger, ledger0;
    int fd, bell[SHMQ_SIDES], supervisor_bell;
    uint32_t tokens[SHMQ_SIDES]; /* of the bells: written when the stage is set */
    uint8_t *image; /* of the segment, as it was */
    uint64_t image_bytes, now;
    struct shmq_delivery held; /* by the child */
    uint64_t held_id, own_id;  /* own: of the message the child publishes */
    uint8_t own_body[600];
    uint32_t own_bytes;
    uint32_t slot;             /* for the supervisor's operations */
    uint64_t ctl;
    struct report *report, *second; /* of the child, and of a second one */
    uint64_t stopped_ctl; /* of what the child holds, when it was stopped */
    uint64_t slowest_ns;  /* of the others' work */
    uint32_t children;    /* stopped now */
    const char *phase;
    jmp_buf on_fault;
};
_Noreturn void fault(struct stage *st, const char *what, uint64_t a, uint64_t b); /* tells the story, ends this experiment */

/* ---- stage.c ---- */
void stage_set(struct stage *st, const struct scene *scene); /* segment, handles, prepare, image */
void stage_reset(struct stage *st);
void stage_strike(struct stage *st);
uint64_t stage_publish(struct stage *st, uint32_t handle, struct shmq_draft draft, int *result); /* its id */
bool stage_has(const struct stage *st, int result); /* a publish with this outcome left a message, maybe a dead one */
struct entry *ledger_find(struct stage *st, uint64_t id);
struct entry *ledger_add(struct stage *st, uint64_t id, enum expectation expect);

/* ---- heap.c ---- */
void heap_mark(void);  /* what was allocated up to here stays */
void heap_reset(void); /* all else is no more */

/* ---- child.c ---- */
struct child {
    pid_t pid;
    uint64_t stack; /* where the operation began */
};
uint32_t child_trace(struct stage *st);                             /* number of instructions of the operation */
bool child_start_at(struct stage *st, struct child *c, uint32_t n); /* stopped before instruction n; false: it did not come there */
void child_start_second(struct stage *st, struct child *c, const struct scene *does, uint64_t own_id, uint32_t steps); /* or to its end */
void child_kill(struct child *c);
void child_continue(struct stage *st, struct child *c, const struct report *report); /* to the end of its operation, where it stays */
uint64_t child_address(uint32_t n);

/* ---- judge.c ---- */
void judge_note_child(struct stage *st);       /* what the stopped child has settled so far */
void judge_invariants(struct stage *st);
uint64_t judge_body(struct stage *st, const struct shmq_delivery *d);  /* whole, known, not settled; its id */
void judge_delivery(struct stage *st, const struct shmq_delivery *d);  /* and in order */
int judge_take(struct stage *st, uint32_t handle, struct shmq_delivery *d); /* with strict priority and returned before newer */
void judge_settled(struct stage *st, uint64_t id);
void judge_others_work(struct stage *st);
uint32_t judge_unreferenced(struct stage *st); /* READY slots no ring leads to: at most one of each stopped child */

/* ---- pairs.c ---- */
void pair_of_children(struct stage *st, struct child *first, uint32_t points, uint64_t *state);
const char *pair_story(void);

/* ---- verdict.c ---- */
void verdict_result(struct stage *st); /* what the child said, having come to its end */
void verdict_killed(struct stage *st);
void verdict_heals_beside(struct stage *st); /* where what is ready is counted */
enum move { MOVE_HELD, MOVE_DELIVERED, MOVE_PURGED, MOVE_LAPPED, MOVES };
void verdict_world_moves_on(struct stage *st, enum move move);
void verdict_continued(struct stage *st);

#endif
