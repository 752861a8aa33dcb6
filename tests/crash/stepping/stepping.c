/* stepping.c - every operation in every state, stopped before each of its instructions (and at its end), and at each of them six
 * experiments, each with a child of its own on a segment put back as it was:
 *   killed              reap, heal, drain: nothing lost, nothing doubled, nothing leaked
 *   stopped, killed     first the invariants hold and three others publish, take and ack at once; the healer passes
 *   held, delivered, purged, lapped
 *                       stopped; its session is lost, others take everything and keep it, or ack it (or it is purged, or empty rings go
 *                       on by 2^20 laps), and use all slots anew; then it continues to its end and harms nobody
 *
 *     stepping [--sample N] [--pairs N] [--seed S] [--only operation[/state]] [--at INSTRUCTION] [--list]
 *
 * --sample N looks at N instructions of each scene, evenly spaced from an offset that depends on the seed; --pairs N adds N experiments a
 * scene in which a second child is stopped as well, at random (pairs.c). Exit code 1: a fault. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stepping.h"
#include "support.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_S 30
#define FAULTS_MAX 10u

enum { KILLED, STOPPED, EXPERIMENTS = STOPPED + 1 + MOVES, PAIR = EXPERIMENTS };
static const char *const experiment_name[] = {"killed", "stopped, killed", "held", "delivered", "purged", "lapped", "two children"};

static struct {
    uint32_t sample, pairs, at, faults;
    uint64_t seed;
    const char *only;
    bool has_at;
} options;
static struct {
    const struct stage *stage;
    uint32_t point, points;
    int experiment, result; /* result: of the operation when nobody disturbs it */
} now;
static struct child child;
extern char __executable_start;

/* ---- the story of a fault ---- */
static void name_address(uint64_t address)
{
    Dl_info info;
    char command[256], line[256] = "";
    if (dladdr((void *)(uintptr_t)address, &info) && info.dli_fbase != &__executable_start) {
        printf("in %s of %s", info.dli_sname ? info.dli_sname : "?", info.dli_fname);
        return;
    }
    uint64_t offset = address - (uint64_t)(uintptr_t)&__executable_start;
    snprintf(command, sizeof command, "addr2line -s -f -p -e /proc/%d/exe %#llx", getpid(), (unsigned long long)offset);
    FILE *out = popen(command, "r");
    if (out && fgets(line, sizeof line, out))
        line[strcspn(line, "\n")] = 0;
    if (out)
        pclose(out);
    printf("%s (+%#llx)", line[0] ? line : "?", (unsigned long long)offset);
}

static void tell(const char *what, uint64_t a, uint64_t b)
{
    const struct scene *s = now.stage->scene;
    printf("FAULT %s/%s, %s, instruction %u of %u: ", s->operation, s->state, experiment_name[now.experiment], now.point, now.points);
    if (now.point <= now.points && now.points)
        name_address(child_address(now.point));
    printf("\n  %s (%llu, %#llx), while: %s\n", what, (unsigned long long)a, (unsigned long long)b, now.stage->phase);
    if (now.experiment == PAIR)
        printf("  with %s; again: --only '%s/%s' --pairs N --seed S\n", pair_story(), s->operation, s->state);
    else
        printf("  again: --only '%s/%s' --at %u\n", s->operation, s->state, now.point);
    fflush(stdout);
}

_Noreturn void fault(struct stage *st, const char *what, uint64_t a, uint64_t b)
{
    tell(what, a, b);
    options.faults++;
    child_kill(&child);
    if (options.faults >= FAULTS_MAX)
        exit(1);
    longjmp(st->on_fault, 1);
}

static void took_too_long(int signal)
{
    (void)signal; /* not a place to print from, but the program ends here */
    tell("no end after a long time", PATIENCE_S, 0);
    _exit(1);
}

/* ---- one instruction ---- */
/* Bring the child before instruction n, on a stage put back as it was, and see what it has done so far. */
static void stop_at(struct stage *st, uint32_t n)
{
    st->phase = "bringing the child to its instruction";
    stage_reset(st);
    alarm(PATIENCE_S);
    if (!child_start_at(st, &child, n))
        fault(st, "the child does not come there", n, 0);
    st->phase = "stopped";
    st->stopped_ctl = shmq_load(&shmq_slot_at(&st->q[SUPERVISOR], st->held.slot)->ctl);
    if (n == now.points && st->own_id) /* it has returned, or is about to */
        ledger_find(st, st->own_id)->expect = stage_has(st, now.result) ? MUST : NEVER;
    judge_note_child(st);
    judge_invariants(st);
}

static void experiment(struct stage *st, uint32_t n, int which)
{
    stop_at(st, n);
    if (which > STOPPED) {
        verdict_world_moves_on(st, (enum move)(which - STOPPED - 1));
        child_continue(st, &child, st->report);
        verdict_continued(st);
        child_kill(&child);
    } else {
        if (which == STOPPED) {
            verdict_heals_beside(st);
            judge_others_work(st);
            verdict_heals_beside(st);
            judge_invariants(st);
        }
        child_kill(&child);
        verdict_killed(st);
    }
    alarm(0);
}

static uint32_t step_at(struct stage *st, uint32_t n)
{
    volatile uint32_t recovered = 0;
    now.point = n;
    for (volatile int which = 0; which < EXPERIMENTS; which++) {
        now.experiment = which;
        if (setjmp(st->on_fault))
            continue;
        experiment(st, n, which);
        recovered++;
    }
    return recovered;
}

static uint32_t step_pairs(struct stage *st, uint64_t *state)
{
    volatile uint32_t recovered = 0;
    now.experiment = PAIR;
    for (volatile uint32_t i = 0; i < options.pairs; i++) {
        now.point = below(state, now.points + 1);
        if (setjmp(st->on_fault))
            continue;
        stop_at(st, now.point);
        pair_of_children(st, &child, now.points, state);
        recovered++;
    }
    return recovered;
}

/* ---- one scene ---- */
static void step_scene(const struct scene *scene)
{
    static struct stage st;
    uint64_t start = shmq_now(), state = options.seed;
    volatile uint32_t points = 0, recovered = 0;
    now.stage = &st;
    now.points = now.point = 0;
    st.scene = scene;
    if (setjmp(st.on_fault))
        return;
    stage_set(&st, scene);
    uint32_t instructions = child_trace(&st);
    now.points = instructions;
    stage_reset(&st);
    if (!child_start_at(&st, &child, 0))
        fault(&st, "the child does not come there", 0, 0);
    child_continue(&st, &child, st.report);
    child_kill(&child);
    now.result = atomic_load(&st.report->result);
    uint32_t every = options.sample && options.sample < instructions ? (instructions + options.sample) / options.sample : 1;
    uint32_t from = options.has_at ? options.at : below(&state, every), to = options.has_at ? options.at : instructions;
    for (volatile uint32_t n = from; n <= to; n += every) {
        recovered += step_at(&st, n);
        points++;
    }
    uint32_t pairs = step_pairs(&st, &state);
    printf("%-16s %-20s %6u instructions, %6u stepped, %6u experiments, %6u recovered, %u pairs, others at most %4llu us, %5.1f s\n",
           scene->operation, scene->state, instructions, points, points * EXPERIMENTS, recovered, pairs,
           (unsigned long long)(st.slowest_ns / 1000), (double)(shmq_now() - start) / 1e9);
    fflush(stdout);
    stage_strike(&st);
}

static bool is_wanted(const struct scene *s)
{
    char name[128];
    if (!options.only)
        return true;
    snprintf(name, sizeof name, "%s/%s", s->operation, s->state);
    return strcmp(options.only, name) == 0 || strcmp(options.only, s->operation) == 0;
}

static int list(void)
{
    for (uint32_t i = 0; i < scenes_count; i++)
        printf("%s/%s\n", scenes[i].operation, scenes[i].state);
    return 0;
}

int main(int argc, char **argv)
{
    options.seed = shmq_now() & 0xffffffff;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--list") == 0)
            return list();
        if (!value)
            return 2;
        if (strcmp(argv[i], "--sample") == 0)
            options.sample = (uint32_t)strtoul(value, NULL, 0);
        else if (strcmp(argv[i], "--pairs") == 0)
            options.pairs = (uint32_t)strtoul(value, NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0)
            options.seed = strtoull(value, NULL, 0);
        else if (strcmp(argv[i], "--only") == 0)
            options.only = value;
        else if (strcmp(argv[i], "--at") == 0)
            options.has_at = (options.at = (uint32_t)strtoul(value, NULL, 0)) + 1;
        else
            return 2;
        i++;
    }
    signal(SIGALRM, took_too_long);
    printf("seed %llu\n", (unsigned long long)options.seed);
    for (uint32_t i = 0; i < scenes_count; i++)
        if (is_wanted(&scenes[i]))
            step_scene(&scenes[i]);
    printf("%u faults\n", options.faults);
    return options.faults != 0;
}
