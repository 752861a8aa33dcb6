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

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#define STACK_BYTES (128u << 10)
#define POINTS_MAX 20000u
#define CHOICES_MAX POINTS_MAX

struct world stage;
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

static void put_back(const uint8_t *from, const struct shmq_queue *q, const struct ledger *l, uint64_t clock)
{
    for (unsigned i = 0; i < OWNERS; i++)
        shmq_heal_forget(&stage.q[i]);
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
    s->prepare();
    for (unsigned i = 0; i < OWNERS; i++)
        shmq_heal_forget(&stage.q[i]);
    image_bytes = bytes_in_use();
    image = malloc(image_bytes);
    copy = malloc(image_bytes);
    if (!image || !copy)
        abort();
    keep(image, handles, &ledger_first, &clock_first);
}

static void strike_stage(void)
{
    put_back(image, handles, &ledger_first, clock_first);
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
    bool through, begun;
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

static unsigned others(unsigned nth) /* the nth unfinished one but the running; PROCESSES: there are not so many */
{
    for (unsigned p = 0; p < PROCESSES; p++)
        if (p != running && !routine[p].through && nth-- == 0)
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

/* What is chosen at this point, of 0 .. most. */
static unsigned choose(unsigned most)
{
    if (points >= POINTS_MAX)
        fault("no end: somebody goes round and round", points, running);
    unsigned taken = points < given ? choice[points] : 0;
    if (is_random && most && (points_before ? below(&dice, points_before + 1) < allowed : 0))
        taken = 1 + below(&dice, most);
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
    unsigned taken = choose(left ? other_count() : 0);
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

static void kill_and_judge(unsigned stopped) /* on a copy: it lives on */
{
    seam_is_open = false;
    keep(copy, handles_copy, &ledger_copy, &clock_copy);
    judge_stopped(stopped);
    put_back(copy, handles_copy, &ledger_copy, clock_copy);
    seam_is_open = true;
}

static void begin(int me)
{
    scene->act[me]((unsigned)me);
    routine[me].through = true;
    unsigned n = other_count();
    if (n == 1 && routine[others(0)].begun)
        kill_and_judge(others(0));
    if (n) {
        unsigned to = others(choose(n - 1));
        tell("through", 0, to);
        go_to(to);
    }
    setcontext(&manager);
}

static void one_order(void)
{
    put_back(image, handles, &ledger_first, clock_first);
    points = told = 0;
    left = allowed;
    running = PROCESSES;
    for (unsigned p = 0; p < PROCESSES; p++) {
        routine[p].through = !scene->act[p];
        routine[p].begun = false;
        getcontext(&routine[p].context);
        routine[p].context.uc_stack = (stack_t){.ss_sp = routine[p].stack, .ss_size = STACK_BYTES};
        makecontext(&routine[p].context, (void (*)(void))begin, 1, (int)p);
    }
    seam_is_open = true;
    volatile bool back = false;
    getcontext(&manager);
    if (!back) {
        back = true;
        running = others(choose(other_count() - 1));
        routine[running].begun = true;
        setcontext(&routine[running].context);
    }
    seam_is_open = false;
    judge_end();
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
static void play(const struct scene *s, uint64_t sample)
{
    uint64_t orders = 0, most = 0;
    struct timespec from, to;
    scene = s;
    set_stage(s);
    given = 0;
    is_random = false;
    syscall_clock(&from);
    do {
        one_order();
        orders++;
        most = points > most ? points : most;
        points_before = points;
        is_random = sample != 0;
    } while (sample ? orders < sample : next_order());
    syscall_clock(&to);
    strike_stage();
    printf("%-28s %8llu orders, up to %5llu points, %6.1f s\n", s->name, (unsigned long long)orders, (unsigned long long)most,
           (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
    fflush(stdout);
}
