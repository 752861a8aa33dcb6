/* stage.c - the segment and its handles, set once for each scene and put back before each child. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stepping.h"
#include "support.h"

#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_BYTES (UINT64_C(1) << 20)
#define DATA_KEPT (UINT64_C(192) << 10) /* of each tier: more than any scene uses */

unsigned stale_max;

/* The parts of a segment that scenes use, one behind the other in the image. */
struct range {
    uint64_t offset, bytes;
};
static uint32_t ranges(const struct stage *st, struct range out[2 * SHMQ_TIERS + 1])
{
    const struct shmq_layout *l = &st->q[0].layout;
    uint32_t n = 0;
    out[n++] = (struct range){0, l->tier[0].owners};
    for (uint32_t t = 0; t < SHMQ_TIERS; t++) {
        out[n++] = (struct range){l->tier[t].owners, l->tier[t].granules * 8ull};
        if (t == 0)
            out[n++] = (struct range){l->tier[t].data, DATA_KEPT};
    }
    return n;
}

static void copy_image(struct stage *st, bool back)
{
    struct range part[2 * SHMQ_TIERS + 1];
    uint8_t *image = st->image;
    for (uint32_t i = 0, n = ranges(st, part); i < n; i++) {
        uint8_t *there = st->q[0].base + part[i].offset;
        memcpy(back ? there : image, back ? image : there, part[i].bytes);
        image += part[i].bytes;
    }
}

static uint64_t image_bytes(const struct stage *st)
{
    struct range part[2 * SHMQ_TIERS + 1];
    uint64_t bytes = 0;
    for (uint32_t i = 0, n = ranges(st, part); i < n; i++)
        bytes += part[i].bytes;
    return bytes;
}

static void attach(struct stage *st)
{
    struct shmq_layout layout;
    const struct scene *s = st->scene;
    struct shmq_geometry g = {.levels = s->levels, .slots = s->slots, .inline_bytes = 64, .ring_entries = s->ring_entries,
                              .arena_bytes = ARENA_BYTES};
    st->fd = memfd_create("shmq-stepping", MFD_CLOEXEC);
    if (shmq_layout_of(&g, &layout) || st->fd < 0 || ftruncate(st->fd, (off_t)layout.bytes) < 0)
        fault(st, "no segment", 0, 0);
    for (uint32_t i = 0; i < SHMQ_SIDES; i++)
        st->bell[i] = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    st->supervisor_bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    for (uint32_t i = 0; i < HANDLES; i++) {
        if (shmq_attach(&st->q[i], st->fd, &g, i + 1, 7, i == 0, false))
            fault(st, "cannot attach", i, 0);
        memcpy(st->q[i].bell, st->bell, sizeof st->bell);
        st->q[i].supervisor_bell = st->supervisor_bell;
    }
}

/* Where each message of the scene is, before the child begins. */
static void note_places(struct stage *st)
{
    struct shmq_queue *q = &st->q[SUPERVISOR];
    for (uint32_t slot = 0; slot < shmq_slots_high(q); slot++) {
        struct shmq_delivery d;
        uint64_t ctl = shmq_load(&shmq_slot_at(q, slot)->ctl);
        if (shmq_ctl_state(ctl) == SHMQ_FREE || shmq_ctl_state(ctl) == SHMQ_WRITING)
            continue;
        uint64_t id = shmq_describe(q, slot, ctl, &d) == SHMQ_OK ? taken_id(&d) : 0;
        struct entry *e = ledger_find(st, id);
        e->slot = slot;
        e->ctl = ctl;
    }
}

static uint32_t silence(int fd)
{
    uint64_t token;
    uint32_t n = 0;
    while (read(fd, &token, sizeof token) > 0)
        n++;
    return n;
}

void stage_set(struct stage *st, const struct scene *scene)
{
    memset(st, 0, sizeof *st);
    st->scene = scene;
    st->phase = "setting the stage";
    attach(st);
    st->report = mmap(NULL, 2 * sizeof *st->report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (st->report == MAP_FAILED)
        fault(st, "no memory", 0, 0);
    st->second = st->report + 1;
    stale_max = SHMQ_WINDOW;
    scene->prepare(st);
    if (scene->limit)
        atomic_store(&st->q[0].header->delivery_limit, 2);
    if (scene->sleepers)
        for (int side = 0; side < SHMQ_SIDES; side++)
            shmq_bell_register(&st->q[1], (enum shmq_side)side);
    note_places(st);
    if (scene->brings) {
        st->own_id = (CHILD + 1) * 1000 + ++st->ledger.next_id[CHILD];
        ledger_add(st, st->own_id, MAYBE)->loose = true;
        scene->act(st); /* makes its body */
    }
    st->image_bytes = image_bytes(st);
    st->image = mmap(NULL, st->image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* shared: a fork copies no tables */
    if (st->image == MAP_FAILED)
        fault(st, "no memory", 0, 0);
    copy_image(st, false);
    for (uint32_t side = 0; side < SHMQ_SIDES; side++)
        st->tokens[side] = silence(st->bell[side]);
    memcpy(st->q0, st->q, sizeof st->q);
    st->ledger0 = st->ledger;
    heap_mark();
    stage_reset(st);
}

void stage_reset(struct stage *st)
{
    for (uint32_t i = 0; i < HANDLES; i++)
        shmq_heal_forget(&st->q[i]);
    heap_reset();
    memcpy(st->q, st->q0, sizeof st->q);
    copy_image(st, true);
    for (uint32_t side = 0; side < SHMQ_SIDES; side++) {
        uint64_t tokens = st->tokens[side];
        silence(st->bell[side]);
        if (tokens && write(st->bell[side], &tokens, sizeof tokens) < 0)
            fault(st, "cannot write tokens", tokens, 0);
    }
    silence(st->supervisor_bell);
    st->ledger = st->ledger0;
    st->now = shmq_now();
    *st->report = *st->second = (struct report){.result = INT32_MIN};
    st->children = 1;
}

void stage_strike(struct stage *st)
{
    for (uint32_t i = 0; i < HANDLES; i++)
        shmq_detach(&st->q[i]);
    munmap(st->report, 2 * sizeof *st->report);
    munmap(st->image, st->image_bytes);
    close(st->fd);
    close(st->bell[0]);
    close(st->bell[1]);
    close(st->supervisor_bell);
}

/* ---- the ledger ---- */
struct entry *ledger_find(struct stage *st, uint64_t id)
{
    for (uint32_t i = 0; i < st->ledger.n; i++)
        if (st->ledger.entry[i].id == id)
            return &st->ledger.entry[i];
    fault(st, "a message that nobody published", id, 0);
}

struct entry *ledger_add(struct stage *st, uint64_t id, enum expectation expect)
{
    if (st->ledger.n == LEDGER_MAX)
        fault(st, "the ledger is full", id, 0);
    struct entry *e = &st->ledger.entry[st->ledger.n++];
    *e = (struct entry){.id = id, .expect = expect, .slot = SHMQ_NO_SLOT};
    return e;
}

bool stage_has(const struct stage *st, int result)
{
    bool dead = result == SHMQ_REFUSED && shmq_overflow(&st->q[SUPERVISOR]) == SHMQ_REFUSES_DEAD;
    return result == SHMQ_OK || dead;
}

uint64_t stage_publish(struct stage *st, uint32_t handle, struct shmq_draft draft, int *result)
{
    uint64_t id = (handle + 1) * 1000 + ++st->ledger.next_id[handle];
    *result = publish_draft(&st->q[handle], id, draft);
    if (stage_has(st, *result))
        ledger_add(st, id, MUST)->loose = draft.delay_ns != 0;
    return id;
}
