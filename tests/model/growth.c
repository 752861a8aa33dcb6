/* growth.c - a series of rings of doubling size: enqueuers use the one at `back` and grow it when it is full (memory first), takers use
 * the one at `front`, seal it when it is empty and not the last, and go on. The steps of shmq/core/ring.c and ring_full.c.
 *
 * Judged: nobody touches a ring without memory; nothing is delivered twice; first deliveries of a producer are in order; nobody meets a
 * sealed ring at back; "nothing" is only said when there was a moment without a message during the look. At rest, with one process stopped
 * anywhere: a taker finds every message whose reference was enqueued. */
#include "explore.h"

#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#define PARTS 3u /* of 1, 2 and 4 entries */
#define ENTRIES 7u
#define MESSAGES 4u
#define PROCESSES 4u
#define STEPS_MAX 300u

/* entry: lap 4 | message 3 | full 1; SEALED is an EMPTY of message 7 */
#define SEAL 7u
static uint8_t empty_of(unsigned lap) { return (uint8_t)((lap & 15) << 4); }
static uint8_t sealed_of(unsigned lap) { return (uint8_t)((lap & 15) << 4 | SEAL << 1); }
static uint8_t full_of(unsigned lap, unsigned message) { return (uint8_t)((lap & 15) << 4 | message << 1 | 1); }
static bool is_full(uint8_t e) { return e & 1; }
static unsigned lap_of(uint8_t e) { return e >> 4; }
static unsigned message_of(uint8_t e) { return e >> 1 & 7; }

enum at {
    COMMIT, SEE_BACK, SEE_TAIL, SEE_ENTRY, PUT, MOVE_TAIL, HELP_TAIL, TAIL_AGAIN, BACK_AGAIN, ALLOCATE, MOVE_BACK, /* enqueue */
    SEE_FRONT, SEE_HEAD, SEE_FIRST, HEAD_AGAIN, IS_IT_BACK, SEAL_IT, MOVE_FRONT, HELP_HEAD, SEE_MESSAGE, TAKE,    /* take */
    SEE_TAIL_FOR_CLEAR, TAIL_FOR_CLEAR, CLEAR, SEE_CLEARED, MOVE_HEAD, END
};
static const char *const at_name[] = {
    "makes its message READY", "loads back", "loads tail", "loads the entry at tail", "fills the entry", "moves tail", "helps tail on",
    "loads tail again", "loads back behind a seal", "allocates the next ring", "moves back", "loads front", "loads head",
    "loads the entry at head", "loads head again", "loads back to know whether it is empty", "seals the entry", "moves front",
    "helps head on", "loads the message's word", "takes it", "loads tail before clearing", "helps tail before clearing",
    "clears the entry", "loads the entry again", "moves head", "is through"};

struct process {
    uint8_t at, left, message, part, position, entry;
    bool takes, found_nothing, was_empty; /* was_empty: at some moment of this look */
};
struct state {
    alignas(8) uint8_t front, back;
    uint8_t memory; /* set of rings that have some */
    uint8_t ready, enqueued, taken;
    uint8_t head[PARTS], tail[PARTS], entry[ENTRIES], published[2];
    struct process p[PROCESSES + 1]; /* the last one is the auditor */
};

enum { BACK_BEFORE_MEMORY = 1, FRONT_WITHOUT_SEAL = 2, EMPTY_WITHOUT_BACK = 4, BACK_BEFORE_ENTRY = 8 };
static const char *const switches[] = {"BACK_RELAXED", "FRONT_WITHOUT_SEAL", "EMPTY_WITHOUT_BACK", "BACK_LOADED_FIRST",
                                       NULL};
static uint32_t broken;
static uint64_t seen;

static unsigned bit(unsigned n) { return 1u << n; }
static unsigned lap(unsigned part, unsigned position) { return position >> part & 15; }

static uint8_t *entry_at(struct state *s, unsigned part, unsigned position)
{
    if (part >= PARTS || !(s->memory & bit(part)))
        fault("a ring without memory is touched", part, position);
    return &s->entry[bit(part) - 1 + (position & (bit(part) - 1))];
}

static void next_operation(struct state *s, struct process *p)
{
    p->position = p->entry = p->part = p->message = 0;
    p->was_empty = p->takes && p->left && s->enqueued == s->taken;
    p->at = END;
    if (p->left == 0)
        return;
    p->left--;
    p->at = p->takes ? SEE_FRONT : COMMIT;
    if (!p->takes) {
        unsigned me = (unsigned)(p - s->p);
        p->message = (uint8_t)(2 * me + s->published[me]++);
    }
}

/* ---- enqueue ---- */
static void see_entry(struct process *p, uint8_t e)
{
    unsigned l = lap(p->part, p->position);
    p->entry = e;
    if (e == empty_of(l))
        p->at = PUT;
    else if (e == sealed_of(l))
        p->at = BACK_AGAIN;
    else if ((is_full(e) && lap_of(e) == l) || lap_of(e) == lap(p->part, p->position + bit(p->part)))
        p->at = HELP_TAIL;
    else
        p->at = TAIL_AGAIN;
}

static void grow_step(struct state *s, struct process *p)
{
    bool early = broken & BACK_BEFORE_MEMORY;
    switch (p->at) {
    case TAIL_AGAIN:
        p->at = s->tail[p->part] != p->position ? SEE_TAIL : early ? MOVE_BACK : ALLOCATE;
        return;
    case BACK_AGAIN:
        if (s->back == p->part)
            fault("a sealed ring at back", p->part, p->position);
        p->at = SEE_BACK;
        return;
    case ALLOCATE:
        if (p->part + 1u == PARTS)
            fault("the last ring is full", p->part, p->position);
        s->memory |= (uint8_t)bit(p->part + 1u);
        p->at = early ? SEE_BACK : MOVE_BACK;
        return;
    default: /* MOVE_BACK */
        swap8(&s->back, p->part, (uint8_t)(p->part + 1));
        p->at = early ? ALLOCATE : SEE_BACK;
    }
}

static void enqueue_step(struct state *s, struct process *p)
{
    unsigned l = lap(p->part, p->position);
    switch (p->at) {
    case COMMIT:
        s->ready |= (uint8_t)bit(p->message);
        p->at = SEE_BACK;
        return;
    case SEE_BACK:
        p->part = s->back;
        p->at = SEE_TAIL;
        return;
    case SEE_TAIL:
        p->position = s->tail[p->part];
        p->at = SEE_ENTRY;
        return;
    case SEE_ENTRY:
        see_entry(p, *entry_at(s, p->part, p->position));
        return;
    case PUT:
        p->at = SEE_TAIL;
        if (!swap8(entry_at(s, p->part, p->position), p->entry, full_of(l, p->message)))
            return;
        s->enqueued |= (uint8_t)bit(p->message);
        p->at = MOVE_TAIL;
        return;
    default: /* MOVE_TAIL, HELP_TAIL */
        swap8(&s->tail[p->part], p->position, (uint8_t)(p->position + 1));
        if (p->at == MOVE_TAIL)
            next_operation(s, p);
        else
            p->at = SEE_TAIL;
    }
}

/* ---- take ---- */
static void see_first(struct process *p, uint8_t e)
{
    unsigned l = lap(p->part, p->position);
    p->entry = e;
    if (e == empty_of(l))
        p->at = HEAD_AGAIN;
    else if (e == sealed_of(l))
        p->at = MOVE_FRONT;
    else if (lap_of(e) == lap(p->part, p->position + bit(p->part)))
        p->at = HELP_HEAD;
    else if (lap_of(e) == l)
        p->at = SEE_MESSAGE;
    else
        p->at = SEE_FRONT; /* a stale head */
}

static void finds_nothing(struct state *s, struct process *p)
{
    if (!p->was_empty)
        fault("nothing found, but there was a message all the while", s->enqueued, s->taken);
    p->found_nothing = true;
    next_operation(s, p);
}

static void empty_step(struct state *s, struct process *p)
{
    switch (p->at) {
    case HEAD_AGAIN:
        if (s->head[p->part] != p->position)
            p->at = SEE_FRONT;
        else if (broken & EMPTY_WITHOUT_BACK)
            finds_nothing(s, p);
        else if (broken & BACK_BEFORE_ENTRY && p->message == p->part) /* back was loaded before the entry */
            finds_nothing(s, p);
        else
            p->at = broken & BACK_BEFORE_ENTRY ? SEAL_IT : IS_IT_BACK;
        return;
    case IS_IT_BACK:
        if (s->back == p->part)
            finds_nothing(s, p);
        else
            p->at = broken & FRONT_WITHOUT_SEAL ? MOVE_FRONT : SEAL_IT;
        return;
    case SEAL_IT:
        p->at = SEE_FRONT;
        if (swap8(entry_at(s, p->part, p->position), p->entry, sealed_of(lap(p->part, p->position))))
            p->at = MOVE_FRONT;
        return;
    default: /* MOVE_FRONT */
        swap8(&s->front, p->part, (uint8_t)(p->part + 1));
        p->at = SEE_FRONT;
    }
}

static void take(struct state *s, struct process *p)
{
    unsigned m = message_of(p->entry);
    if (s->taken & bit(m)) {
        p->at = SEE_FRONT;
        return;
    }
    if (m % 2 && !(s->taken & bit(m - 1)))
        fault("first deliveries of a producer out of order", m, p->part);
    s->taken |= (uint8_t)bit(m);
    p->message = 1;
    p->was_empty = false;
    p->at = SEE_TAIL_FOR_CLEAR;
}

static void look_step(struct state *s, struct process *p)
{
    switch (p->at) {
    case SEE_FRONT:
        p->part = s->front;
        if (broken & BACK_BEFORE_ENTRY)
            p->message = s->back;
        p->at = SEE_HEAD;
        return;
    case SEE_HEAD:
        p->position = s->head[p->part];
        p->at = SEE_FIRST;
        return;
    case SEE_FIRST:
        see_first(p, *entry_at(s, p->part, p->position));
        return;
    case HELP_HEAD:
        swap8(&s->head[p->part], p->position, (uint8_t)(p->position + 1));
        p->at = SEE_FRONT;
        return;
    case SEE_MESSAGE:
        p->message = 0;
        p->at = s->taken & bit(message_of(p->entry)) ? SEE_TAIL_FOR_CLEAR : TAKE;
        return;
    default: /* TAKE */
        take(s, p);
    }
}

static void clear_step(struct state *s, struct process *p)
{
    uint8_t *entry = entry_at(s, p->part, p->position);
    unsigned next = lap(p->part, p->position + bit(p->part));
    switch (p->at) {
    case SEE_TAIL_FOR_CLEAR:
        p->at = s->tail[p->part] == p->position ? TAIL_FOR_CLEAR : CLEAR;
        return;
    case TAIL_FOR_CLEAR:
        swap8(&s->tail[p->part], p->position, (uint8_t)(p->position + 1));
        p->at = CLEAR;
        return;
    case CLEAR:
        p->at = swap8(entry, p->entry, empty_of(next)) ? MOVE_HEAD : SEE_CLEARED;
        return;
    case SEE_CLEARED:
        p->at = MOVE_HEAD;
        if (lap_of(*entry) == next)
            return;
        break;
    default: /* MOVE_HEAD */
        swap8(&s->head[p->part], p->position, (uint8_t)(p->position + 1));
    }
    p->at = SEE_FRONT;
    if (p->message) /* it was a take */
        next_operation(s, p);
}

/* ---- steps, and what is judged ---- */
static void note_empty(struct state *s)
{
    for (unsigned i = 0; i <= PROCESSES && s->enqueued == s->taken; i++)
        if (s->p[i].takes && s->p[i].at >= SEE_FRONT && s->p[i].at <= TAKE)
            s->p[i].was_empty = true;
}

static void step_of(struct state *s, unsigned process)
{
    struct process *p = &s->p[process];
    seen |= UINT64_C(1) << p->at;
    if (p->at <= HELP_TAIL && p->at != BACK_AGAIN)
        enqueue_step(s, p);
    else if (p->at <= MOVE_BACK)
        grow_step(s, p);
    else if (p->at >= HEAD_AGAIN && p->at <= MOVE_FRONT)
        empty_step(s, p);
    else if (p->at <= TAKE)
        look_step(s, p);
    else
        clear_step(s, p);
    note_empty(s);
}

static bool step(void *state, unsigned process, unsigned choice)
{
    struct state *s = state;
    (void)choice;
    if (s->p[process].at == END)
        return false;
    step_of(s, process);
    return true;
}

static const char *doing(const void *state, unsigned process)
{
    return at_name[((const struct state *)state)->p[process].at];
}

static void judge_at_rest(const void *state, unsigned stopped)
{
    struct state s = *(const struct state *)state;
    struct process *auditor = &s.p[PROCESSES];
    *auditor = (struct process){.takes = true, .left = MESSAGES + 1};
    next_operation(&s, auditor);
    for (unsigned n = 0; auditor->at != END && !auditor->found_nothing; n++) {
        if (n == STEPS_MAX)
            fault("a taker goes round for ever", auditor->at, stopped);
        step_of(&s, PROCESSES);
    }
    if (s.taken != s.enqueued)
        fault("a message was enqueued and no taker finds it", s.enqueued, s.taken);
    unsigned owed = stopped < PROCESSES && !s.p[stopped].takes ? bit(s.p[stopped].message) : 0;
    if (s.ready & ~s.enqueued & ~owed)
        fault("a message was not enqueued", s.ready, s.enqueued);
}

static const struct model model = {.bytes = sizeof(struct state), .processes = PROCESSES, .choices = 1, .step = step,
                                   .judge_at_rest = judge_at_rest, .doing = doing};

static void explore_of(const char *name, unsigned published_0, unsigned published_1, unsigned taken_0, unsigned taken_1)
{
    struct state first;
    const unsigned operations[PROCESSES] = {published_0, published_1, taken_0, taken_1};
    memset(&first, 0, sizeof first);
    first.memory = 1;
    for (unsigned i = 0; i < PROCESSES; i++) {
        first.p[i].takes = i >= 2;
        first.p[i].left = (uint8_t)operations[i];
        next_operation(&first, &first.p[i]);
    }
    report("growth", name, explore(&model, &first));
}

static void explore_all(uint32_t what, bool more)
{
    broken = what;
    explore_of("1 + 1 published, 2 + 1 takes", 1, 1, 2, 1);
    explore_of("2 + 1 published, 1 + 1 takes", 2, 1, 1, 1);
    explore_of("2 + 2 published, 1 + 1 takes", 2, 2, 1, 1);
    explore_of("2 + 1 published, 2 + 1 takes", 2, 1, 2, 1);
    if (more)
        explore_of("2 + 2 published, 2 + 2 takes", 2, 2, 2, 2);
    for (unsigned at = 0; at < END && !what; at++)
        if (!(seen >> at & 1))
            fault("a step that never happened: the configurations explore too little", at, 0);
}

const struct subject growth_subject = {"growth", explore_all, switches};
