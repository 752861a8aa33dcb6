/* segment.c - attaching to a segment, and committing its memory piece by piece (extents) so that a full file system is an
 * answer in the caller and never a SIGBUS. Below a `committed` word everything may be touched, above it nothing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "shmq_core.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#define FIRST_SLOTS 64u

uint64_t shmq_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int shmq_commit_memory(struct shmq_queue *q, uint64_t offset, uint64_t bytes) {
    if (offset + bytes > q->layout.bytes || offset + bytes < offset) return -EINVAL;
    int error;
    do error = posix_fallocate(q->fd, (off_t)offset, (off_t)bytes);
    while (error == EINTR);
    if (error == ENOSPC || error == ENOMEM || error == EDQUOT || error == EFBIG) return SHMQ_NO_MEMORY;
    return -error;
}

int64_t shmq_memory_bytes(const struct shmq_queue *q) {
    struct stat st;
    return fstat(q->fd, &st) < 0 ? -errno : (int64_t)st.st_blocks * 512;
}

/* ---- levels ---- */
bool shmq_level_committed(struct shmq_queue *q, uint32_t level) {
    uint64_t bit = UINT64_C(1) << (level & 63);
    if (q->levels_known[level >> 6] & bit) return true;
    /* acquire: pairs with the release in shmq_commit_level, the memory is there */
    q->levels_known[level >> 6] |= atomic_load_explicit(&q->header->levels_committed[level >> 6], memory_order_acquire);
    return q->levels_known[level >> 6] & bit;
}

int shmq_commit_level(struct shmq_queue *q, uint32_t level) {
    if (shmq_level_committed(q, level)) return SHMQ_OK;
    int r = shmq_commit_memory(q, q->layout.levels + level * q->layout.level_stride, q->layout.level_stride);
    if (r) return r;
    atomic_fetch_or_explicit(&q->header->levels_committed[level >> 6], UINT64_C(1) << (level & 63), SHMQ_RELEASE_UNLESS(LEVELS_RELAXED));
    return SHMQ_OK;
}

/* ---- slots ---- */
uint32_t shmq_slots_committed(struct shmq_queue *q) {
    uint32_t n = (uint32_t)atomic_load_explicit(&q->header->slots_committed, memory_order_acquire);
    if (n > q->geometry.slots) n = q->geometry.slots;
    if (n > q->slots_known) q->slots_known = n;
    return q->slots_known;
}

uint32_t shmq_slots_high(struct shmq_queue *q) {
    uint64_t high = atomic_load_explicit(&q->header->slots_high, memory_order_acquire);
    uint32_t committed = shmq_slots_committed(q);
    return high < committed ? (uint32_t)high : committed;
}

static int commit_slot_range(struct shmq_queue *q, uint32_t from, uint32_t to) {
    const struct shmq_layout *l = &q->layout;
    int r = shmq_commit_memory(q, l->slots + from * l->slot_stride, (to - from) * l->slot_stride);
    if (!r) r = shmq_commit_memory(q, l->bitmap + from / 64 * 8, ((to + 63) / 64 - from / 64) * 8);
    if (!r) r = shmq_commit_memory(q, l->summary, (uint64_t)l->summary_words * 8);
    if (!r && from) r = shmq_ring_reserve(q, q->publishing, to); /* the first ones have a first ring */
    return r;
}

/* Doubles what is committed, then raises the word, then sets the hints: a death in between leaves slots without bits, which the
 * full look of a claim and the healer find. */
int shmq_commit_slots(struct shmq_queue *q) {
    uint64_t word = atomic_load_explicit(&q->header->slots_committed, memory_order_acquire);
    uint32_t from = (uint32_t)word, all = q->geometry.slots;
    if (from >= all) return SHMQ_FULL;
    if (from && shmq_stop(q)) return SHMQ_STOPPED;
    uint32_t to = from ? (from > all / 2 ? all : 2 * from) : (all < FIRST_SLOTS ? all : FIRST_SLOTS);
    if (from && to - from > 1u << 16) to = from + (1u << 16);
    int r = commit_slot_range(q, from, to);
    for (; r == SHMQ_NO_MEMORY && to - from > FIRST_SLOTS; r = commit_slot_range(q, from, to)) to = from + (to - from) / 2; /* what there is */
    if (r) return r;
    uint64_t next = ((word >> 32) + 1) << 32 | to;
    if (!SHMQ_CAS_UNLESS(SLOTS_RELAXED, &q->header->slots_committed, word, next)) return SHMQ_OK; /* somebody else extended */
    for (uint32_t s = from; s < to; s++) shmq_slot_hint(q, s);
    if (from) shmq_bell_supervisor(q); /* all queues together may be above their mark now */
    return SHMQ_OK;
}

/* ---- attach ---- */
static void stamp_header(struct shmq_queue *q, uint64_t queue_id) {
    struct shmq_header *h = q->header;
    const struct shmq_geometry *g = &q->geometry;
    atomic_store_explicit(&h->geometry[0], (uint64_t)g->slots << 32 | g->levels, memory_order_relaxed);
    atomic_store_explicit(&h->geometry[1], (uint64_t)g->ring_entries << 32 | g->inline_bytes, memory_order_relaxed);
    atomic_store_explicit(&h->geometry[2], g->arena_bytes, memory_order_relaxed);
    atomic_store_explicit(&h->queue_id, queue_id, memory_order_relaxed);
    atomic_store_explicit(&h->layout, SHMQ_LAYOUT, memory_order_relaxed);
    /* release: whoever sees the magic sees a laid-out segment (compare_header) */
    atomic_store_explicit(&h->magic, SHMQ_MAGIC, SHMQ_RELEASE_UNLESS(MAGIC_RELAXED));
}

static int lay_out(struct shmq_queue *q, uint64_t queue_id) {
    int r = shmq_commit_memory(q, 0, q->layout.levels); /* header, first rings of dead and delayed */
    if (!r) r = shmq_commit_level(q, 0);
    if (!r) r = shmq_commit_slots(q);
    if (!r) stamp_header(q, queue_id);
    return r;
}

static int compare_header(const struct shmq_queue *q, uint64_t queue_id) {
    const struct shmq_header *h = q->header;
    const struct shmq_geometry *g = &q->geometry;
    if (atomic_load_explicit(&h->magic, memory_order_acquire) != SHMQ_MAGIC) return -EPROTO;
    bool same = atomic_load_explicit(&h->layout, memory_order_relaxed) == SHMQ_LAYOUT &&
                atomic_load_explicit(&h->geometry[0], memory_order_relaxed) == ((uint64_t)g->slots << 32 | g->levels) &&
                atomic_load_explicit(&h->geometry[1], memory_order_relaxed) == ((uint64_t)g->ring_entries << 32 | g->inline_bytes) &&
                atomic_load_explicit(&h->geometry[2], memory_order_relaxed) == g->arena_bytes &&
                atomic_load_explicit(&h->queue_id, memory_order_relaxed) == queue_id;
    return same ? 0 : -EPROTO;
}

int shmq_attach(struct shmq_queue *q, int fd, const struct shmq_geometry *g, uint32_t owner, uint64_t queue_id, bool create, bool read_only) {
    memset(q, 0, sizeof *q);
    *q = (struct shmq_queue){.fd = fd, .bell = {-1, -1}, .supervisor_bell = -1, .geometry = *g, .owner = owner, .read_only = read_only};
    int r = shmq_layout_of(g, &q->layout);
    if (r) return r;
    struct stat st;
    if (fstat(fd, &st) < 0) return -errno;
    if ((uint64_t)st.st_size < q->layout.bytes) return -EPROTO;
    if (create && (r = shmq_commit_memory(q, 0, q->layout.levels))) return r == SHMQ_NO_MEMORY ? -ENOSPC : r;
    void *base = mmap(NULL, q->layout.bytes, read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) return -errno;
    (void)madvise(base, q->layout.bytes, MADV_DONTDUMP);
    q->base = base;
    q->header = base;
    r = create ? lay_out(q, queue_id) : compare_header(q, queue_id);
    if (!r) return 0;
    shmq_detach(q);
    return r == SHMQ_NO_MEMORY ? -ENOSPC : r;
}

void shmq_detach(struct shmq_queue *q) {
    while (q->base && q->spares) shmq_slot_hint(q, q->spare[--q->spares]); /* still FREE: found at once, not by the healer */
    if (q->base) munmap(q->base, q->layout.bytes);
    shmq_heal_forget(q);
    free(q->timing);
    q->timing = NULL;
    q->base = NULL;
    q->header = NULL;
}
