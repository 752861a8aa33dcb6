/* ring_judge.c - what is judged at rest in the model of ring.h, and the configurations that are explored.
 *
 * During the steps (ring.c): bodies are the message's own; nothing is settled twice or taken away from its owner; first deliveries of a
 * producer are in order; tail is never behind head; "full" is only said when no slot was free all the while.
 * At rest, with one process stopped anywhere: a taker finds every message that is ready, but one whose reference is still to be enqueued,
 * or was left to the healer. And when the stopped one is dead, reaped and healed: every committed message is settled, all slots are free. */
#include "ring.h"

#include <stdio.h>
#include <string.h>

#define AUDITOR PROCESSES
#define STEPS_MAX 500u
#define ROUNDS_MAX 6u

static const char *const switches[] = {"GENERATION_KEPT", "DELIVERY_WITHOUT_SWAP", "READY_RELAXED", "FULL_FROM_HINTS", "TAIL_NOT_HELPED",
                                       "HALF_DONE_TAKE_UNSEEN", "HEAD_MOVED_BLINDLY", "FREE_RELAXED", "CLEARED_BEFORE_TAIL", NULL};

/* ---- the auditor: a process of our own, on a copy ---- */
static void audit_run(struct state *s, enum role role, enum at at)
{
    struct process *p = &s->p[AUDITOR];
    p->role = (uint8_t)role;
    p->at = (uint8_t)at;
    p->left = 0;
    for (unsigned n = 0; p->at != END; n++) {
        if (n == STEPS_MAX)
            fault("a process goes round for ever", p->at, role);
        ring_step(s, AUDITOR);
    }
}

/* Takes and acks until nothing is found. */
static void drain(struct state *s)
{
    struct process *p = &s->p[AUDITOR];
    *p = (struct process){0};
    for (unsigned n = 0; !p->found_nothing; n++) {
        if (n > MESSAGES_MAX)
            fault("more is found than was published", n, 0);
        audit_run(s, TAKER, SEE_HEAD);
    }
}

static bool is_referenced(const struct state *s, unsigned slot)
{
    for (unsigned at = s->head; at <= s->tail; at++) {
        uint16_t e = s->entry[at % SIZE];
        if (is_full(e) && lap_of(e) == lap(at) && (e >> 1 & 7) == slot && is_live(e, s->ctl[slot]))
            return true;
    }
    return false;
}

static void refer(struct state *s, unsigned slot)
{
    s->p[AUDITOR] = (struct process){.slot = (uint8_t)slot, .word = s->ctl[slot], .message = s->holds[slot]};
    audit_run(s, NACKER, SEE_TAIL);
}

static void heal(struct state *s)
{
    for (unsigned slot = 0; slot < s->slots; slot++)
        if (state_of(s->ctl[slot]) == READY && !is_referenced(s, slot))
            refer(s, slot);
}

static void reap(struct state *s, unsigned dead)
{
    for (unsigned slot = 0; slot < s->slots; slot++) {
        uint16_t word = s->ctl[slot];
        if (owner_of(word) != dead + 1)
            continue;
        if (state_of(word) == WRITING)
            s->ctl[slot] = word_of(generation_of(word) + !is_broken(GENERATION_KEPT), 0, 0, FREE);
        else
            s->ctl[slot] = word_of(generation_of(word), deliveries_of(word), 0, READY);
    }
}

/* ---- at rest ---- */
/* Is this message still to be enqueued by the stopped one, or unacked and its own? */
static bool is_in_hand(const struct state *s, unsigned stopped, unsigned message)
{
    if (stopped == PROCESSES || s->p[stopped].message != message + 1)
        return false;
    return s->p[stopped].at != MOVE_TAIL;
}

static void judge_at_rest(const void *state, unsigned stopped)
{
    struct state s = *(const struct state *)state;
    drain(&s);
    for (unsigned m = 0; m < MESSAGES_MAX; m++)
        if ((s.committed & ~s.settled & ~s.to_healer & bit(m)) && !is_in_hand(&s, stopped, m))
            fault("a message is ready and no taker finds it", m, stopped);
    if (stopped < PROCESSES) {
        reap(&s, stopped);
        s.p[stopped] = (struct process){.at = END};
    }
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        heal(&s);
        drain(&s);
    }
    if (s.settled != s.committed)
        fault("a committed message was lost", s.committed, s.settled);
    for (unsigned slot = 0; slot < s.slots; slot++)
        if (state_of(s.ctl[slot]) != FREE)
            fault("a slot leaked", slot, s.ctl[slot]);
}

/* ---- configurations ---- */
static bool step(void *state, unsigned process, unsigned choice)
{
    struct state *s = state;
    (void)choice;
    if (s->p[process].at == END)
        return false;
    ring_step(s, process);
    return true;
}

static const struct model model = {.bytes = STATE_BYTES, .processes = PROCESSES, .choices = 1, .step = step,
                                   .judge_at_rest = judge_at_rest, .doing = ring_doing};

struct configuration {
    const char *name;
    uint8_t start, slots; /* start: head and tail */
    uint8_t before;       /* messages that are in the ring beforehand */
    struct {
        uint8_t role, operations;
    } process[PROCESSES];
    bool ordered, more;
};
static const struct configuration configurations[] = {
    {"2 slots, 1 + 1 published, 2 + 1 takes", 0, 2, 0, {{PRODUCER, 1}, {PRODUCER, 1}, {TAKER, 2}, {TAKER, 1}}, true, false},
    {"3 slots, ring full, 1 + 1 published, 1 + 1 takes", 1, 3, 2, {{PRODUCER, 1}, {PRODUCER, 1}, {TAKER, 1}, {TAKER, 1}}, true, false},
    {"2 slots, ring full, 1 + 1 published, 2 + 1 takes", 1, 2, 2, {{PRODUCER, 1}, {PRODUCER, 1}, {TAKER, 2}, {TAKER, 1}}, true, false},
    {"2 slots, 2 published, 2 + 1 takes", 1, 2, 0, {{PRODUCER, 2}, {NOBODY, 0}, {TAKER, 2}, {TAKER, 1}}, true, false},
    {"3 slots, 1 there, 1 published, 1 take, nack and take", 0, 3, 1, {{PRODUCER, 1}, {NOBODY, 0}, {TAKER, 1}, {NACKER, 2}}, false, false},
    {"3 slots, ring full, 1 published, 1 take, middle take", 1, 3, 2, {{PRODUCER, 1}, {NOBODY, 0}, {TAKER, 1}, {MIDDLE_TAKER, 1}}, false, false},
    {"2 slots, 2 + 1 published, 2 + 1 takes", 0, 2, 0, {{PRODUCER, 2}, {PRODUCER, 1}, {TAKER, 2}, {TAKER, 1}}, true, true},
    {"3 slots, 2 + 1 published, 2 + 1 takes", 1, 3, 0, {{PRODUCER, 2}, {PRODUCER, 1}, {TAKER, 2}, {TAKER, 1}}, true, true},
    {"3 slots, ring full, 1 + 1 published, takes, nacks", 1, 3, 2, {{PRODUCER, 1}, {PRODUCER, 1}, {TAKER, 1}, {NACKER, 2}}, false, true},
    {"3 slots, ring full, 1 published, take, nack, middle", 1, 3, 2, {{PRODUCER, 1}, {NACKER, 2}, {TAKER, 1}, {MIDDLE_TAKER, 1}}, false, true},
};

static void set_up(struct state *s, const struct configuration *c)
{
    memset(s, 0, sizeof *s);
    s->slots = c->slots;
    s->bits = (uint8_t)(bit(c->slots) - 1);
    s->head = s->tail = c->start;
    s->ordered = c->ordered;
    for (unsigned at = c->start; at < c->start + SIZE; at++)
        s->entry[at % SIZE] = empty_of(lap(at));
    for (unsigned n = 0; n < c->before; n++) { /* the first message of each producer */
        s->ctl[n] = word_of(0, 0, 0, READY);
        s->body[n] = s->holds[n] = (uint8_t)(2 * n + 1);
        s->committed |= (uint8_t)bit(2 * n);
        s->published[n] = 1;
        s->bits &= (uint8_t)~bit(n);
        s->entry[s->tail % SIZE] = full_of(lap(s->tail), 0, n);
        s->tail++;
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        s->p[i].role = c->process[i].role;
        s->p[i].left = c->process[i].operations;
        ring_next_operation(s, &s->p[i]);
    }
}

static void explore_all(uint32_t what, bool more)
{
    ring_broken = what;
    for (size_t i = 0; i < sizeof configurations / sizeof *configurations; i++) {
        struct state first;
        if (configurations[i].more && !more)
            continue;
        set_up(&first, &configurations[i]);
        report("ring", configurations[i].name, explore(&model, &first));
    }
    for (unsigned at = 0; at < END && !what; at++)
        if (!(ring_seen >> at & 1))
            fault("a step that never happened: the configurations explore too little", at, 0);
}

const struct subject ring_subject = {"ring", explore_all, switches};
