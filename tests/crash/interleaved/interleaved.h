/* interleaved.h - the core itself, interleaved: a few processes, each with an operation or two, take turns at every access to shared memory,
 * in every order with at most so many preemptions.
 *
 *   seam.h         where a process may lose its turn
 *   interleaved.c  the orders, the turns, the command line
 *   scenes.c       who does what, and in which state
 *   verdict.c      the ledger of messages; what must hold when all but one are through, when that one dies there, and at the end
 */
#ifndef SHMQ_INTERLEAVED_H
#define SHMQ_INTERLEAVED_H

#include "../stale.h"
#include "seam.h"
#include "support.h"

#define PROCESSES 4u
#define AUDITOR PROCESSES /* index of a handle of our own; there are OWNERS handles */
#define OWNERS (PROCESSES + 1u)
#define IDS 512u
#define SLOTS_MAX 96u

struct scene {
    const char *name;
    void (*prepare)(void);
    void (*act[PROCESSES])(unsigned me); /* NULL: nobody */
    uint32_t levels, slots;              /* rings have 4 entries */
    bool takes_back;                     /* somebody takes messages back: what is delivered may go stale */
};
extern const struct scene scenes[];
extern const unsigned scenes_count;

extern struct world stage;
_Noreturn void fault(const char *what, long long a, long long b); /* tells the story of this order */
void lose_turn(const char *file, int line);                        /* a point of a scene's own, between plain accesses */
#define POINT() lose_turn(__FILE__, __LINE__)
bool wait_for_token(unsigned me, enum shmq_side side); /* false: nobody is left who could write one */

/* ---- verdict.c ---- */
enum expectation { UNKNOWN, MUST, MAYBE, NEVER };
struct message {
    uint8_t expect, settled;
    bool purged; /* perhaps */
};
struct ledger {
    struct message message[IDS]; /* by id */
    struct shmq_delivery held[PROCESSES];
    uint64_t held_id[PROCESSES];
    int64_t miscounted; /* what is ready, at the start */
};
extern struct ledger ledger;
struct glimpse { /* what was so when an operation began, and is to be compared at its end */
    uint64_t ctl[SLOTS_MAX];
    bool referenced[SLOTS_MAX], returned[SLOTS_MAX];
};
void glimpse_take(struct glimpse *g);
void judge_nothing(const struct glimpse *before);                             /* "nothing there" */
void judge_full(const struct glimpse *before);                                /* "full" */
void judge_delivery(const struct glimpse *before, const struct shmq_delivery *d); /* this one, and not another */
uint64_t judge_body(const struct shmq_delivery *d);                           /* its id */
void judge_settled(uint64_t id);
void judge_asleep(enum shmq_side side); /* for good */
void judge_stopped(unsigned stopped, bool takes_back); /* all others are through; may kill it */
void judge_end(bool somebody_died);

#endif
