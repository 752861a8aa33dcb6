/* bell.c - sleepers and ringers: the steps of shmq/core/bell.c and of a sleeper as shmq/core/py_wait.c is one. Messages are a number; the
 * bell's descriptor is a number of tokens. A sleeper may time out, once or twice, or be cancelled with a token in its hand.
 *
 * Judged at rest, which is when nobody can go on but by a time-out: nobody sleeps beside a ready message. With one process stopped anywhere
 * this holds too, unless it stopped between a commit and its token, or with a token in its hand: then its death, after which the supervisor
 * rings for all registered, wakes whom it must. */
#include "explore.h"

#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#define PROCESSES_MAX 6u

enum at {
    COMMIT, SEE_REGISTERED, WRITE_TOKEN, COUNT_DOWN,                       /* ringers, and whoever passes a token on */
    TAKE, REGISTER, LOOK, POLL, READ_TOKEN, LOOK_WITH_TOKEN, LOOK_WITHOUT, /* sleepers */
    SEE_COUNT, TAKE_BACK, READ_LAST_TOKEN, LOOK_TO_PASS,                   /* leaving */
    END
};
static const char *const at_name[] = {
    "commits a message", "loads `registered`", "writes a token", "lowers the count", "takes a message or finds none", "registers",
    "looks", "polls", "reads a token", "looks, its token read", "looks, its token gone", "loads the count, to leave",
    "takes back a registration", "reads the last token", "looks, to pass the token on", "is through"};

struct process {
    uint8_t at, left, patience; /* left: messages to publish or take; patience: time-outs */
    bool sleeps, registered, holds_token, gone, early;
    uint8_t number;  /* of `registered`, as loaded */
    bool unchanged;  /* since then: what the change count beside the number tells a swap */
};
struct state {
    alignas(8) uint8_t ready, tokens, number; /* number: registered */
    struct process p[PROCESSES_MAX];
};

enum { SLEEP_WITHOUT_LOOK = 1, REGISTER_WITHOUT_FENCE = 2, RING_WITHOUT_FENCE = 4, TOKEN_AFTER_COUNT = 8, LEAVES_WITH_TOKEN = 16,
       PASSES_NOTHING_ON = 32 };
static const char *const switches[] = {"SLEEP_WITHOUT_LOOK", "REGISTER_WITHOUT_FENCE", "RING_WITHOUT_FENCE", "TOKEN_AFTER_COUNT",
                                       "LEAVES_WITH_TOKEN", "PASSES_NOTHING_ON", NULL};
static uint32_t broken;
static uint64_t seen;
static unsigned processes;

static void change_count(struct state *s, int by)
{
    s->number = (uint8_t)(s->number + by);
    for (unsigned i = 0; i < processes; i++)
        s->p[i].unchanged = false;
}

static bool lower_count(struct state *s, const struct process *p)
{
    if (!p->unchanged)
        return false;
    change_count(s, -1);
    return true;
}

/* ---- ringing ---- */
static void rung(struct process *p)
{
    p->number = 0;
    p->holds_token = p->early = p->unchanged = false;
    if (p->sleeps)
        p->at = p->gone ? END : TAKE;
    else
        p->at = --p->left ? COMMIT : END;
}

static void see_registered(struct state *s, struct process *p)
{
    p->number = s->number;
    p->unchanged = true;
}

static bool ring_step(struct state *s, struct process *p, unsigned choice)
{
    switch (p->at) {
    case COMMIT:
        if (choice && (p->early || !(broken & RING_WITHOUT_FENCE)))
            return false;
        if (choice) { /* the load goes before the commit */
            see_registered(s, p);
            p->early = true;
            return true;
        }
        s->ready++;
        p->at = SEE_REGISTERED;
        return true;
    case SEE_REGISTERED:
        if (!p->early)
            see_registered(s, p);
        p->at = broken & TOKEN_AFTER_COUNT ? COUNT_DOWN : WRITE_TOKEN;
        if (!p->number)
            rung(p);
        return true;
    case WRITE_TOKEN:
        s->tokens++;
        p->at = COUNT_DOWN;
        if (broken & TOKEN_AFTER_COUNT)
            rung(p);
        return true;
    default: /* COUNT_DOWN */
        lower_count(s, p); /* failed: nothing to do */
        p->at = WRITE_TOKEN;
        if (!(broken & TOKEN_AFTER_COUNT))
            rung(p);
        return true;
    }
}

/* ---- sleeping ---- */
static void leave_or(struct process *p, enum at otherwise)
{
    p->at = (uint8_t)(p->registered ? SEE_COUNT : otherwise);
}

static void take(struct state *s, struct process *p)
{
    p->holds_token = false;
    p->at = p->registered ? POLL : REGISTER;
    if (!s->ready)
        return;
    s->ready--;
    p->gone = --p->left == 0;
    p->at = p->gone ? END : TAKE;
}

static bool poll_step(struct state *s, struct process *p, unsigned choice)
{
    if (choice) {
        if (!p->patience)
            return false;
        p->gone = --p->patience == 0;
        p->at = SEE_COUNT;
        return true;
    }
    if (!s->tokens)
        return false; /* asleep */
    p->at = READ_TOKEN;
    return true;
}

static bool register_step(struct state *s, struct process *p, unsigned choice)
{
    if (choice && (p->early || !(broken & REGISTER_WITHOUT_FENCE) || s->ready))
        return false;
    if (choice) { /* the look goes before the registration, and finds nothing */
        p->early = true;
        return true;
    }
    change_count(s, 1);
    p->registered = true;
    p->at = p->early || broken & SLEEP_WITHOUT_LOOK ? POLL : LOOK;
    p->early = false;
    return true;
}

static bool token_step(struct state *s, struct process *p)
{
    p->at = LOOK_WITHOUT;
    if (!s->tokens)
        return true;
    s->tokens--;
    p->registered = false; /* it is used up */
    p->holds_token = true;
    p->at = LOOK_WITH_TOKEN;
    return true;
}

static bool sleep_step(struct state *s, struct process *p, unsigned choice)
{
    switch (p->at) {
    case REGISTER:
        return register_step(s, p, choice);
    case POLL:
        return poll_step(s, p, choice);
    case LOOK_WITH_TOKEN:
        if (choice && !p->patience)
            return false;
        if (choice) { /* cancelled now */
            p->patience = 0;
            p->gone = true;
            p->at = broken & PASSES_NOTHING_ON ? END : LOOK_TO_PASS;
            return true;
        }
        p->at = s->ready ? TAKE : REGISTER;
        p->holds_token = p->at == TAKE;
        return true;
    default:
        if (choice)
            return false;
    }
    switch (p->at) {
    case TAKE:
        take(s, p);
        return true;
    case LOOK:
    case LOOK_WITHOUT:
        leave_or(p, TAKE);
        if (!s->ready)
            p->at = POLL;
        return true;
    default:
        return token_step(s, p);
    }
}

/* ---- leaving ---- */
static void left(struct process *p)
{
    p->registered = p->holds_token = p->unchanged = false;
    p->number = 0;
    p->at = p->gone ? END : TAKE;
}

static bool leave_step(struct state *s, struct process *p)
{
    switch (p->at) {
    case SEE_COUNT:
        see_registered(s, p);
        p->at = p->number ? TAKE_BACK : READ_LAST_TOKEN;
        if (broken & LEAVES_WITH_TOKEN && s->tokens) {
            s->tokens--;
            left(p);
        }
        return true;
    case TAKE_BACK:
        p->at = SEE_COUNT;
        if (lower_count(s, p))
            left(p);
        return true;
    case READ_LAST_TOKEN:
        p->registered = false;
        if (!s->tokens) {
            left(p);
            return true;
        }
        s->tokens--;
        p->holds_token = true;
        p->at = LOOK_TO_PASS;
        if (broken & PASSES_NOTHING_ON)
            left(p);
        return true;
    default: /* LOOK_TO_PASS */
        p->at = SEE_REGISTERED;
        if (!s->ready)
            left(p);
        return true;
    }
}

static bool step(void *state, unsigned process, unsigned choice)
{
    struct state *s = state;
    struct process *p = &s->p[process];
    if (p->at == END)
        return false;
    seen |= UINT64_C(1) << p->at;
    if (p->at == COMMIT)
        return ring_step(s, p, choice);
    if (p->at >= TAKE && p->at <= LOOK_WITHOUT)
        return sleep_step(s, p, choice);
    if (choice)
        return false;
    return p->at <= COUNT_DOWN ? ring_step(s, p, choice) : leave_step(s, p);
}

static const char *doing(const void *state, unsigned process)
{
    return at_name[((const struct state *)state)->p[process].at];
}

/* ---- at rest ---- */
static bool owes_a_token(const struct process *p)
{
    return p->at == SEE_REGISTERED || p->at == WRITE_TOKEN || p->holds_token;
}

static bool somebody_sleeps(const struct state *s, unsigned but)
{
    for (unsigned i = 0; i < processes; i++)
        if (i != but && s->p[i].at == POLL && !s->tokens)
            return true;
    return false;
}

static void judge_at_rest(const void *state, unsigned stopped)
{
    struct state s = *(const struct state *)state;
    if (s.ready && somebody_sleeps(&s, stopped) && !(stopped < processes && owes_a_token(&s.p[stopped])))
        fault("somebody sleeps beside a ready message", s.ready, stopped);
    s.tokens = (uint8_t)(s.tokens + s.number); /* the stopped one dies, the supervisor rings for all */
    if (s.ready && somebody_sleeps(&s, stopped))
        fault("somebody sleeps beside a ready message, for the supervisor does not know of him", s.ready, stopped);
}

/* ---- configurations ---- */
static void explore_of(const char *name, unsigned ringers, unsigned messages, unsigned sleepers, unsigned takes, unsigned patience)
{
    struct state first;
    memset(&first, 0, sizeof first);
    processes = ringers + sleepers;
    for (unsigned i = 0; i < processes; i++) {
        bool sleeps = i >= ringers;
        first.p[i] = (struct process){.at = sleeps ? TAKE : COMMIT, .sleeps = sleeps, .left = (uint8_t)(sleeps ? takes : messages),
                                      .patience = (uint8_t)(sleeps ? patience : 0)};
    }
    const struct model model = {.bytes = sizeof first, .processes = processes, .choices = 2, .step = step,
                                .judge_at_rest = judge_at_rest, .doing = doing};
    report("bell", name, explore(&model, &first));
}

static void explore_all(uint32_t what, bool more)
{
    broken = what;
    explore_of("2 ring once, 2 sleep and take 2, time out once", 2, 1, 2, 2, 1);
    explore_of("2 ring twice, 2 sleep and take 2, never time out", 2, 2, 2, 2, 0);
    explore_of("2 ring once, 2 sleep and take 2, time out twice", 2, 1, 2, 2, 2);
    explore_of("2 ring once, 3 sleep and take 1, time out once", 2, 1, 3, 1, 1);
    if (more) {
        explore_of("2 ring twice, 2 sleep and take 2, time out twice", 2, 2, 2, 2, 2);
        explore_of("3 ring once, 3 sleep and take 1, never time out", 3, 1, 3, 1, 0);
        explore_of("3 ring once, 3 sleep and take 1, time out once", 3, 1, 3, 1, 1);
    }
    for (unsigned at = 0; at < END && !what; at++)
        if (!(seen >> at & 1))
            fault("a step that never happened: the configurations explore too little", at, 0);
}

const struct subject bell_subject = {"bell", explore_all, switches};
