/* explore.c - the explorer and the command line:
 *
 *     model SUBJECT [SWITCH]      the configurations of a subject, with one thing broken or none; exit code 1: a fault
 *     model SUBJECT --more        those with more operations too, for minutes
 *     model --list                subjects and their switches
 *
 * Visited states are known by a fingerprint of 63 bits: of 10 million states two have the same one with a chance of about 1 in 200,000.
 * The 64th bit says that a state lies on the way to the present one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEPTH_MAX 4096u
#define ON_THE_WAY UINT64_C(1)

/* ---- fingerprints ---- */
static uint64_t *table;
static size_t table_bits, table_used;

static uint64_t fingerprint(const void *state, size_t bytes)
{
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15) ^ bytes, word;
    for (size_t i = 0; i < bytes; i += sizeof word) {
        memcpy(&word, (const uint8_t *)state + i, sizeof word);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    h ^= h >> 29;
    h &= ~ON_THE_WAY;
    return h ? h : 2;
}

static uint64_t *place_of(uint64_t print)
{
    size_t mask = ((size_t)1 << table_bits) - 1, at = (size_t)(print >> (64 - table_bits));
    while (table[at] && (table[at] & ~ON_THE_WAY) != print)
        at = (at + 1) & mask;
    return &table[at];
}

static void make_table(size_t bits)
{
    uint64_t *old = table;
    size_t old_size = old ? (size_t)1 << table_bits : 0;
    table_bits = bits;
    table = calloc((size_t)1 << bits, sizeof *table);
    if (!table)
        abort();
    for (size_t i = 0; i < old_size; i++)
        if (old[i])
            *place_of(old[i] & ~ON_THE_WAY) = old[i];
    free(old);
}

/* ---- the way to the present state ---- */
struct stop {
    uint64_t print;
    unsigned process, choice; /* the next step to try */
    bool can[8];              /* which processes had a step */
};
static const struct model *model;
static struct stop way[DEPTH_MAX];
static uint8_t *states; /* of the way */
static unsigned depth;

static uint8_t *state_at(unsigned n)
{
    return states + (size_t)n * model->bytes;
}

void fault(const char *what, long a, long b)
{
    for (unsigned n = 0; n < depth && model->doing; n++) {
        const char *doing = model->doing(state_at(n), way[n].process);
        printf("  %3u  process %u%s: %s\n", n, way[n].process, way[n].choice ? " (other choice)" : "", doing);
    }
    printf("FAULT: %s (%ld, %ld)\n", what, a, b);
    exit(1);
}

static void enter(struct explored *e, uint64_t print)
{
    if (depth + 1 >= DEPTH_MAX)
        fault("a way without end", depth, 0);
    way[depth] = (struct stop){.print = print};
    *place_of(print) = print | ON_THE_WAY;
    table_used++;
    e->states++;
    if (depth > e->depth)
        e->depth = depth;
    if (table_used * 10 > (size_t)7 << table_bits)
        make_table(table_bits + 1);
}

/* All steps from the present state are tried. */
static void leave(struct explored *e)
{
    struct stop *here = &way[depth];
    unsigned able = 0, last = model->processes;
    for (unsigned p = 0; p < model->processes; p++)
        if (here->can[p]) {
            able++;
            last = p;
        }
    if (able <= 1) {
        e->rests++;
        model->judge_at_rest(state_at(depth), last);
    }
    *place_of(here->print) = here->print;
}

static bool next_step(struct stop *here)
{
    if (++here->choice < model->choices)
        return true;
    here->choice = 0;
    return ++here->process < model->processes;
}

/* Tries the step that the present stop stands at. True: the way goes on from the state it leads to. */
static bool advance(struct explored *e)
{
    struct stop *here = &way[depth];
    uint8_t *next = state_at(depth + 1);
    memcpy(next, state_at(depth), model->bytes);
    depth++; /* the story of a fault in this step has it */
    bool did = model->step(next, here->process, here->choice);
    depth--;
    if (!did)
        return false;
    e->steps++;
    if (here->choice == 0)
        here->can[here->process] = true;
    uint64_t print = fingerprint(next, model->bytes), known = *place_of(print);
    if (known == (print | ON_THE_WAY)) {
        depth++;
        fault("somebody goes round without anybody's progress", here->process, here->choice);
    }
    if (known)
        return false;
    depth++;
    enter(e, print);
    return true;
}

struct explored explore(const struct model *m, const void *first)
{
    struct explored e = {0};
    model = m;
    states = calloc(DEPTH_MAX, m->bytes);
    table = NULL;
    table_used = 0;
    make_table(16);
    depth = 0;
    memcpy(state_at(0), first, m->bytes);
    enter(&e, fingerprint(first, m->bytes));
    for (;;) {
        if (way[depth].process < m->processes) {
            if (advance(&e))
                continue;
            if (next_step(&way[depth]))
                continue;
        }
        leave(&e);
        if (depth-- == 0)
            break;
        next_step(&way[depth]);
    }
    free(states);
    free(table);
    return e;
}

/* ---- the command line ---- */
static struct timespec started;

void report(const char *name, const char *configuration, struct explored e)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)(now.tv_sec - started.tv_sec) + (double)(now.tv_nsec - started.tv_nsec) / 1e9;
    started = now;
    printf("%-7s %-52s %9llu states, %10llu steps, %7llu at rest, depth %3u, %5.1f s\n", name, configuration,
           (unsigned long long)e.states, (unsigned long long)e.steps, (unsigned long long)e.rests, e.depth, seconds);
    fflush(stdout);
}

static const struct subject *const subjects[] = {&ring_subject, &growth_subject, &bell_subject};
#define SUBJECTS (sizeof subjects / sizeof *subjects)

static int list(void)
{
    for (size_t i = 0; i < SUBJECTS; i++)
        for (const char *const *name = subjects[i]->switches; *name; name++)
            printf("%s %s\n", subjects[i]->name, *name);
    return 0;
}

static int run(const struct subject *subject, const char *wanted)
{
    uint32_t broken = 0;
    bool more = wanted && strcmp(wanted, "--more") == 0;
    for (unsigned i = 0; wanted && subject->switches[i]; i++)
        if (strcmp(wanted, subject->switches[i]) == 0)
            broken = 1u << i;
    if (wanted && !broken && !more)
        return 2;
    clock_gettime(CLOCK_MONOTONIC, &started);
    subject->explore_all(broken, more);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0)
        return list();
    for (size_t i = 0; argc >= 2 && i < SUBJECTS; i++)
        if (strcmp(argv[1], subjects[i]->name) == 0)
            return run(subjects[i], argc > 2 ? argv[2] : NULL);
    fprintf(stderr, "model SUBJECT [SWITCH | --more], or model --list\n");
    return 2;
}
