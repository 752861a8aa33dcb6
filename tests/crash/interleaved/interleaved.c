/* interleaved.c - every order of a scene's processes with at most N preemptions, or a random choice of them.
 *
 *     interleaved [--preemptions N] [--sample ORDERS] [--seed S] [--only SCENE] [--order N=CHOICE,..]
 *
 * A process runs until it is through or loses its turn before an access to shared memory (seam.h). Each point of an order is a choice: to go
 * on, or one of the others; the choices are tried like the digits of a number, each order from the start. Exit code 1: a fault,
 * with the --order that repeats it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "interleaved.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define STACK_BYTES (128u << 10)
#define POINTS_MAX 20000u
#define CHOICES_MAX POINTS_MAX

struct world stage;
unsigned stale_max;
bool seam_is_open;

/* ---- one clock for all, which goes the same way each time ---- */
static uint64_t clock_ns = 1000000;
int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    clock_ns += 1000;
    *t = (struct timespec){.tv_sec = (time_t)(clock_ns / 1000000000u), .tv_nsec = (long)(clock_ns % 1000000000u)};
    return 0;
}

/* ---- the stage: as it is before each order ---- */
static uint8_t *image, *copy;
static size_t image_bytes;
static struct shmq_queue handles[OWNERS], handles_copy[OWNERS];
static struct ledger ledger_first, ledger_copy;
static uint64_t clock_first, clock_copy;

static size_t bytes_in_use(void)
{
    const struct shmq_layout *l = &stage.q[0].layout;
    return l->tier[0].data + (32u << 10); /* the first granules of tier 0 are all that scenes use of the arena */
}

static void keep(uint8_t *into, struct shmq_queue *q, struct ledger *l, uint64_t *clock)
{
    memcpy(into, stage.q[0].base, image_bytes);
    memcpy(q, stage.q, sizeof handles);
    *l = ledger;
    *clock = clock_ns;
}

static void forget_healers(void)
{
    for (unsigned i = 0; i < OWNERS; i++)
        shmq_heal_forget(&stage.q[i]);
}

static void put_back(const uint8_t *from, const struct shmq_queue *q, const struct ledger *l, uint64_t clock)
{
    memcpy(stage.q[0].base, from, image_bytes);
    memcpy(stage.q, q, sizeof handles);
    ledger = *l;
    clock_ns = clock;
}

static void set_stage(const struct scene *s)
{
    struct shmq_geometry g = sized(s->slots, 4);
    g.levels = s->levels;
    g.arena_bytes = 1 << 20;
    clock_ns = 1000000;
    memset(&ledger, 0, sizeof ledger);
    world_open(&stage, OWNERS, g);
    for (int side = 0; side < SHMQ_SIDES; side++) {
        int bell = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
        for (unsigned i = 0; i < OWNERS; i++)
            stage.q[i].bell[side] = bell;
    }
    stale_max = SHMQ_WINDOW;
    s->prepare();
    forget_healers();
    image_bytes = bytes_in_use();
    image = malloc(image_bytes);
    copy = malloc(image_bytes);
    if (!image || !copy)
        abort();
    keep(image, handles, &ledger_first, &clock_first);
}

static void strike_stage(void)
{
    forget_healers();
    put_back(image, handles, &ledger_first, clock_first);
    for (int side = 0; side < SHMQ_SIDES; side++)
        close(stage.q[AUDITOR].bell[side]);
    world_abandon(&stage);
    free(image);
    free(copy);
}

/* ---- an order ---- */
struct preemption {
    const char *file;
    int line;
    uint32_t point;
    uint8_t from, to;
};
static const struct scene *scene;
static uint8_t choice[CHOICES_MAX], choices[CHOICES_MAX]; /* taken and possible, at each point */
static uint32_t given, points, points_before, left, allowed = 2;
static struct preemption story[64];
static unsigned told;
static uint64_t dice;
static bool is_random;

static struct routine {
    ucontext_t context;
    uint8_t *stack;
    bool through, begun, waits;
    enum shmq_side side;
} routine[PROCESSES];
static ucontext_t manager;
static unsigned running;

void fault(const char *what, long long a, long long b)
{
    printf("FAULT in %s: %s (%lld, %lld)\n", scene->name, what, a, b);
    for (unsigned i = 0; i < told; i++)
        printf("  point %u: process %u before %s:%d, then process %u\n", story[i].point, story[i].from, story[i].file, story[i].line,
               story[i].to);
    printf("  again: --only '%s' --order ", scene->name);
    for (unsigned i = 0, n = 0; i < points; i++)
        if (choice[i])
            printf("%s%u=%u", n++ ? "," : "", i, choice[i]);
    printf("\n");
    exit(1);
}

static bool has_token(enum shmq_side side)
{
    struct pollfd p = {.fd = stage.q[AUDITOR].bell[side], .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static bool is_able(unsigned p)
{
    return !routine[p].through && (!routine[p].waits || has_token(routine[p].side));
}

static unsigned others(unsigned nth) /* the nth but the running one that could go on; PROCESSES: there are not so many */
{
    for (unsigned p = 0; p < PROCESSES; p++)
        if (p != running && is_able(p) && nth-- == 0)
            return p;
    return PROCESSES;
}

static unsigned other_count(void)
{
    unsigned n = 0;
    while (others(n) != PROCESSES)
        n++;
    return n;
}

/* What is chosen at this point, of 0 .. most. At a preemption 0 is to go on. */
static unsigned choose(unsigned most, bool is_preemption)
{
    if (points >= POINTS_MAX)
        fault("no end: somebody goes round and round", points, running);
    unsigned taken = points < given ? choice[points] : 0;
    if (is_random && most && !is_preemption)
        taken = below(&dice, most + 1);
    if (is_random && most && is_preemption)
        taken = below(&dice, points_before) < allowed ? 1 + below(&dice, most) : 0;
    if (taken > most)
        taken = 0;
    choice[points] = (uint8_t)taken;
    choices[points] = (uint8_t)most;
    points++;
    return taken;
}

static void tell(const char *file, int line, unsigned to)
{
    const char *slash = strrchr(file, '/');
    if (told < sizeof story / sizeof *story)
        story[told++] = (struct preemption){slash ? slash + 1 : file, line, points - 1, (uint8_t)running, (uint8_t)to};
}

static void go_to(unsigned to)
{
    ucontext_t *from = &routine[running].context;
    running = to;
    routine[to].begun = true;
    swapcontext(from, &routine[to].context);
}

void seam_point(const char *file, int line)
{
    unsigned taken = choose(left ? other_count() : 0, true);
    if (!taken)
        return;
    unsigned to = others(taken - 1);
    left--;
    tell(file, line, to);
    go_to(to);
}

void lose_turn(const char *file, int line)
{
    if (seam_is_open)
        seam_point(file, line);
}

/* ---- bells: a token is taken out and put back, to see how many there are ---- */
static uint64_t silence(enum shmq_side side)
{
    uint64_t tokens = 0, one;
    while (read(stage.q[AUDITOR].bell[side], &one, sizeof one) > 0)
        tokens++;
    return tokens;
}

static void write_tokens(enum shmq_side side, uint64_t tokens)
{
    silence(side);
    if (tokens && write(stage.q[AUDITOR].bell[side], &tokens, sizeof tokens) < 0)
        abort();
}

/* The dead one's supervisor rings for all: who sleeps then sleeps for good. */
static void judge_sleepers(void)
{
    for (unsigned p = 0; p < PROCESSES; p++) {
        if (!routine[p].waits || routine[p].through)
            continue;
        shmq_bell_ring_all(&stage.q[AUDITOR], routine[p].side);
        if (!has_token(routine[p].side))
            judge_asleep(routine[p].side);
    }
}

static void kill_and_judge(unsigned stopped) /* on a copy: it lives on */
{
    uint64_t tokens[SHMQ_SIDES] = {silence(SHMQ_CONSUMERS), silence(SHMQ_PRODUCERS)};
    seam_is_open = false;
    keep(copy, handles_copy, &ledger_copy, &clock_copy);
    for (int side = 0; side < SHMQ_SIDES; side++)
        write_tokens((enum shmq_side)side, tokens[side]);
    judge_sleepers();
    judge_stopped(stopped, scene->takes_back);
    shmq_heal_forget(&stage.q[AUDITOR]); /* the others' are as they were */
    put_back(copy, handles_copy, &ledger_copy, clock_copy);
    for (int side = 0; side < SHMQ_SIDES; side++)
        write_tokens((enum shmq_side)side, tokens[side]);
    seam_is_open = true;
}

/* The running one cannot go on: another must. False: nobody can. */
static bool give_way(const char *why)
{
    unsigned n = other_count();
    if (n == 1 && routine[others(0)].begun && !routine[others(0)].waits)
        kill_and_judge(others(0));
    if (!n)
        return false;
    unsigned to = others(choose(n - 1, false));
    tell(why, 0, to);
    go_to(to);
    return true;
}

bool wait_for_token(unsigned me, enum shmq_side side)
{
    if (!seam_is_open)
        return false;
    routine[me].side = side;
    routine[me].waits = true;
    while (!has_token(side))
        if (!give_way("asleep")) { /* all are through, or sleep as we do */
            seam_is_open = false;
            shmq_bell_ring_unheard(&stage.q[AUDITOR]); /* the supervisor comes round */
            bool rung = has_token(side);
            if (!rung)
                judge_asleep(side);
            seam_is_open = true;
            if (!rung)
                return false;
        }
    routine[me].waits = false;
    return true;
}

static void begin(int me)
{
    scene->act[me]((unsigned)me);
    routine[me].through = true;
    give_way("through");
    for (unsigned p = 0; p < PROCESSES; p++) /* nobody can go on: those who sleep are judged, one by one */
        if (!routine[p].through)
            go_to(p);
    setcontext(&manager);
}

static void one_order(void)
{
    forget_healers();
    put_back(image, handles, &ledger_first, clock_first);
    write_tokens(SHMQ_CONSUMERS, 0);
    write_tokens(SHMQ_PRODUCERS, 0);
    points = told = 0;
    left = allowed;
    running = PROCESSES;
    for (unsigned p = 0; p < PROCESSES; p++) {
        routine[p].through = !scene->act[p];
        routine[p].begun = routine[p].waits = false;
        getcontext(&routine[p].context);
        routine[p].context.uc_stack = (stack_t){.ss_sp = routine[p].stack, .ss_size = STACK_BYTES};
        makecontext(&routine[p].context, (void (*)(void))begin, 1, (int)p);
    }
    seam_is_open = true;
    running = others(choose(other_count() - 1, false));
    routine[running].begun = true;
    swapcontext(&manager, &routine[running].context);
    seam_is_open = false;
    judge_end(false);
}

static bool next_order(void)
{
    while (points && choice[points - 1] == choices[points - 1])
        points--;
    given = points;
    if (!points)
        return false;
    choice[points - 1]++;
    return true;
}

/* ---- scenes ---- */
static double seconds_now(void)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void play(const struct scene *s, uint64_t sample, bool only_given)
{
    uint64_t orders = 0;
    uint32_t most = 0;
    double start = seconds_now();
    scene = s;
    set_stage(s);
    if (!only_given)
        given = 0;
    is_random = false;
    do {
        one_order();
        orders++;
        most = points > most ? points : most;
        points_before = points;
        is_random = sample != 0;
    } while (!only_given && (sample ? orders < sample : next_order()));
    strike_stage();
    printf("%-32s %8llu orders, up to %4u points, %6.1f s\n", s->name, (unsigned long long)orders, most, seconds_now() - start);
    fflush(stdout);
}

static void read_order(const char *text)
{
    memset(choice, 0, sizeof choice);
    for (const char *at = text; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        unsigned n, taken;
        if (sscanf(at, "%u=%u", &n, &taken) == 2 && n < CHOICES_MAX) {
            choice[n] = (uint8_t)taken;
            given = n + 1;
        }
    }
}

int main(int argc, char **argv)
{
    const char *only = NULL, *order = NULL;
    uint64_t sample = 0, seed = (uint64_t)(seconds_now() * 1e9) & 0xffffffff;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--preemptions") == 0)
            allowed = (uint32_t)strtoul(value, NULL, 0);
        else if (strcmp(argv[i], "--sample") == 0)
            sample = strtoull(value, NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(value, NULL, 0);
        else if (strcmp(argv[i], "--only") == 0)
            only = value;
        else if (strcmp(argv[i], "--order") == 0)
            read_order(order = value);
        else
            return 2;
    }
    for (unsigned p = 0; p < PROCESSES; p++)
        if (!(routine[p].stack = malloc(STACK_BYTES)))
            return 2;
    printf("seed %llu, at most %u preemptions\n", (unsigned long long)seed, allowed);
    dice = seed;
    if (order)
        allowed = 100;
    for (unsigned i = 0; i < scenes_count; i++)
        if (!only || strcmp(only, scenes[i].name) == 0)
            play(&scenes[i], sample, order != NULL);
    return 0;
}
