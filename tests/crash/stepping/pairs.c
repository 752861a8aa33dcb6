/* pairs.c - two children stopped at once: the first one at an instruction of its scene, then a second one at some instruction of an
 * operation of its own, which it began while the first one stood. Others go on; then both are killed, or continue, in some order. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stepping.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

#define STEPS_MAX 900u

/* ---- what the second child does ---- */
static int publish_second(struct stage *st)
{
    return shmq_publish(&st->q[CHILD], &(struct shmq_draft){.body_bytes = 24, .ttl_ns = -1}, st->own_body);
}

static int take_second(struct stage *st)
{
    struct report *say = st->report;
    int r = shmq_take(&st->q[CHILD], &say->delivery);
    if (r == SHMQ_OK)
        memcpy(&say->id, say->delivery.body, sizeof say->id);
    return r;
}

static int ack_second(struct stage *st)
{
    int r = take_second(st);
    return r == SHMQ_OK ? shmq_ack(&st->q[CHILD], &st->report->delivery) : r;
}

static int requeue_second(struct stage *st)
{
    int r = take_second(st);
    return r == SHMQ_OK ? shmq_requeue(&st->q[CHILD], st->report->delivery.slot, st->report->delivery.ctl, false) : r;
}

static int reject_second(struct stage *st)
{
    int r = take_second(st);
    return r == SHMQ_OK ? shmq_bury(&st->q[CHILD], st->report->delivery.slot, st->report->delivery.ctl, SHMQ_REJECTED) : r;
}

static const struct scene seconds[] = {
    {.operation = "publish", .kind = PUBLISHES, .act = publish_second}, {.operation = "take", .kind = SWEEPS, .act = take_second},
    {.operation = "ack", .kind = SWEEPS, .act = ack_second},            {.operation = "requeue", .kind = SWEEPS, .act = requeue_second},
    {.operation = "reject", .kind = SWEEPS, .act = reject_second},
};
static const char *const endings[] = {
    "both killed", "the first goes on", "the second goes on", "both go on", "both go on, the second first", "others, then both go on"};
enum { ENDINGS = sizeof endings / sizeof *endings };

static struct {
    const struct scene *does;
    struct child child;
    uint64_t own_id;
    uint32_t steps, ending;
} second;

const char *pair_story(void)
{
    static char text[128];
    snprintf(text, sizeof text, "a second one (%s, %u steps), %s", second.does->operation, second.steps, endings[second.ending]);
    return text;
}

/* ---- what it has done ---- */
/* What it acked: nobody else could have freed what it was delivered. */
static void note_second(struct stage *st)
{
    const struct report *said = st->second;
    if (second.does->act != ack_second || !said->id)
        return;
    uint64_t ctl = shmq_load(&shmq_slot_at(&st->q[SUPERVISOR], said->delivery.slot)->ctl);
    if (shmq_ctl_generation(ctl) != shmq_ctl_generation(said->delivery.ctl) && !ledger_find(st, said->id)->settled)
        judge_settled(st, said->id);
}

static void note_both(struct stage *st)
{
    judge_note_child(st);
    note_second(st);
    judge_invariants(st);
}

static void first_goes_on(struct stage *st, struct child *first)
{
    st->phase = "the first child goes on";
    child_continue(st, first, st->report);
    int r = atomic_load(&st->report->result);
    if (st->scene->kind == SETTLES && r != SHMQ_OK && r != SHMQ_DEAD_NOW)
        fault(st, "a settlement is refused", (uint64_t)r, st->held.ctl);
    note_both(st);
    verdict_result(st);
}

static void second_goes_on(struct stage *st)
{
    st->phase = "the second child goes on";
    child_continue(st, &second.child, st->second);
    int r = atomic_load(&st->second->result);
    if (r != SHMQ_OK && r != SHMQ_EMPTY && r != SHMQ_FULL && r != SHMQ_REFUSED)
        fault(st, "the second child's operation failed", (uint64_t)(int64_t)r, st->second->delivery.ctl);
    if (second.own_id)
        ledger_find(st, second.own_id)->expect = stage_has(st, r) ? MUST : NEVER;
    note_both(st);
}

static void end(struct stage *st, struct child *first)
{
    switch (second.ending) {
    case 1:
        first_goes_on(st, first);
        break;
    case 2:
        second_goes_on(st);
        break;
    case 4:
        second_goes_on(st);
        first_goes_on(st, first);
        break;
    case 5:
        judge_others_work(st);
        /* fall through */
    case 3:
        first_goes_on(st, first);
        second_goes_on(st);
        break;
    default:
        break;
    }
}

void pair_of_children(struct stage *st, struct child *first, uint32_t points, uint64_t *state)
{
    (void)points;
    child_kill(&second.child); /* of an experiment that ended in a fault */
    second.does = &seconds[below(state, sizeof seconds / sizeof *seconds)];
    second.steps = below(state, STEPS_MAX);
    second.ending = below(state, ENDINGS);
    second.own_id = 0;
    st->children = 2;
    st->phase = "stopping a second child";
    if (second.does->kind == PUBLISHES) {
        second.own_id = (SECOND + 1) * 1000 + 1;
        ledger_add(st, second.own_id, MAYBE)->loose = true;
    }
    child_start_second(st, &second.child, second.does, second.own_id, second.steps);
    st->phase = "two stopped";
    note_both(st);
    judge_others_work(st);
    verdict_heals_beside(st);
    judge_invariants(st);
    end(st, first);
    child_kill(first);
    child_kill(&second.child);
    verdict_killed(st);
}
