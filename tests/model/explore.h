/* explore.h - every interleaving of a few processes that share a few words.
 *
 * A model says what a state is (bytes; equal states are equal bytes) and what a process does in its next step: one load, store or swap of
 * a shared word. All states that any order of steps leads to are visited, each once, depth first. Looked at are
 *
 *   - each state, by the model's own judgement during the steps (fault);
 *   - cycles: a state met again on the way from itself means that somebody goes round without anybody's progress. Where there is none,
 *     every loop is bounded by the progress of others, and nobody waits for one who has stopped, at whatever step;
 *   - rest: the states in which at most one process could still do a step. It may have stopped there for ever, or have been killed: the
 *     model then looks for what is lost.
 */
#ifndef SHMQ_MODEL_EXPLORE_H
#define SHMQ_MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model {
    size_t bytes; /* of a state, a multiple of 8 */
    unsigned processes, choices;
    /* false: it cannot. Choice 0 is what the process does by itself; others, like a time-out, happen or not, and nobody may count on them. */
    bool (*step)(void *state, unsigned process, unsigned choice);
    void (*judge_at_rest)(const void *state, unsigned stopped);   /* stopped == processes: everybody is through */
    const char *(*doing)(const void *state, unsigned process);    /* for the story of a fault */
};
struct explored {
    uint64_t states, steps, rests;
    unsigned depth;
};
struct explored explore(const struct model *m, const void *first);
_Noreturn void fault(const char *what, long a, long b); /* tells the steps that led here, and ends the program with 1 */

/* ---- models: each explores its configurations; `broken` has one bit for each name ---- */
struct subject {
    const char *name;
    void (*explore_all)(uint32_t broken, bool more); /* more: configurations that take minutes */
    const char *const *switches; /* ends with NULL */
};
extern const struct subject ring_subject, growth_subject, bell_subject;
void report(const char *model, const char *configuration, struct explored e);

/* A swap of a word of a model. */
static inline bool swap16(uint16_t *word, uint16_t from, uint16_t to)
{
    if (*word != from)
        return false;
    *word = to;
    return true;
}
static inline bool swap8(uint8_t *word, uint8_t from, uint8_t to)
{
    if (*word != from)
        return false;
    *word = to;
    return true;
}

#endif
