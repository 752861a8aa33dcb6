/* limit.c - how much is ready in a queue that has a limit, and what happens beyond it. Hints like the rest: a death between counting and
 * swapping leaves the counts a little wrong until the healer finds nobody counting. Where the head is dropped they are then too low:
 * a message is dropped for one that is there, never for one that is not. Where a publish is refused they are then too high, and of
 * publishers that come at once none is one too many. A queue without a limit counts nothing.
 * And the share of a queue while all of them together hold too much memory: who would have to commit more of it does not, so a publish that
 * finds room pays nothing for the question. Rings and levels grow all the same: what was committed for messages can be referred to. */
#include "shmq_core.h"

/* Where nothing may be ready, what a consumer waits for may: it is as good as delivered. */
static uint64_t allowed_messages(const struct shmq_queue *q, uint64_t limit) {
    return limit ? limit : (uint32_t)shmq_load(&q->header->registered[SHMQ_CONSUMERS][0]);
}

static bool is_beyond(const struct shmq_queue *q, uint64_t messages, uint64_t bytes) {
    const struct shmq_header *h = q->header;
    uint64_t length = atomic_load_explicit(&h->max_length, memory_order_relaxed), most = atomic_load_explicit(&h->max_bytes, memory_order_relaxed);
    if (length && (int64_t)messages > (int64_t)allowed_messages(q, length - 1)) return true;
    return most && (int64_t)bytes > (int64_t)(most - 1);
}

bool shmq_is_over(struct shmq_queue *q, uint64_t more, uint64_t bytes) {
    return is_beyond(q, shmq_load(&q->header->depth[0]) + more, shmq_load(&q->header->depth[1]) + bytes);
}

bool shmq_depth_comes(struct shmq_queue *q, uint64_t shape) {
    uint64_t bytes = shmq_shape_body(shape);
    uint64_t messages = atomic_fetch_add_explicit(&q->header->depth[0], 1, memory_order_seq_cst);
    uint64_t sum = atomic_fetch_add_explicit(&q->header->depth[1], bytes, memory_order_seq_cst);
    return is_beyond(q, messages + 1, sum + bytes);
}

bool shmq_depth_goes(struct shmq_queue *q, uint64_t shape) {
    uint64_t messages = atomic_fetch_sub_explicit(&q->header->depth[0], 1, memory_order_seq_cst);
    uint64_t sum = atomic_fetch_sub_explicit(&q->header->depth[1], shmq_shape_body(shape), memory_order_seq_cst);
    return is_beyond(q, messages, sum);
}

/* Before the swap, which releases it to the healer that sees it (proof: docs/SHM_LAYOUT.md, Limits). Owners that follow each other have
 * words in different lines. None: so many are counting that the healer sees one of them. */
struct shmq_counting shmq_counting_say(struct shmq_queue *q) {
    for (uint32_t n = 0; n < SHMQ_COUNTING; n++) {
        shmq_word *word = &q->header->counting[shmq_entry_index(q->owner + n, SHMQ_COUNTING_BITS)];
        uint64_t before = shmq_load(word), said = before | q->owner;
        if (!shmq_counting_owner(before) && shmq_cas(word, before, said)) return (struct shmq_counting){word, said};
    }
    return (struct shmq_counting){0};
}

bool shmq_counting_rests(struct shmq_queue *q, uint64_t *times) {
    *times = 0;
    bool rests = true;
    for (uint32_t n = 0; n < SHMQ_COUNTING; n++) {
        uint64_t word = shmq_load(&q->header->counting[n]);
        rests &= !shmq_counting_owner(word);
        *times += word >> 16;
    }
    return rests;
}

static int drop_lowest(struct shmq_queue *q, bool dies) {
    for (uint32_t level = 0; level < q->geometry.levels; level++) {
        int r = shmq_level_committed(q, level) ? shmq_drop_head(q, level, dies) : SHMQ_EMPTY;
        if (r != SHMQ_EMPTY) return r;
    }
    return SHMQ_EMPTY;
}

static int drop_highest(struct shmq_queue *q, bool dies) {
    for (uint32_t level = q->geometry.levels; level-- > 0;) {
        int r = shmq_level_committed(q, level) ? shmq_drop_head(q, level, dies) : SHMQ_EMPTY;
        if (r != SHMQ_EMPTY) return r;
    }
    return SHMQ_EMPTY;
}

int shmq_trim(struct shmq_queue *q) {
    uint32_t overflow = shmq_overflow(q);
    if (!overflow || shmq_refuses(overflow)) return SHMQ_OK;
    bool dies = (overflow & 0xfu) == SHMQ_DROPS_DEAD;
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX && shmq_is_over(q, 0, 0); n++) {
        int r = overflow & SHMQ_DROPS_HIGHEST ? drop_highest(q, dies) : drop_lowest(q, dies);
        if (r != SHMQ_OK) return r < 0 ? r : SHMQ_OK;
    }
    return SHMQ_OK;
}

/* ---- expiry ---- */
void shmq_may_expire(struct shmq_queue *q, uint64_t expires) {
    shmq_fence_after_swap(); /* READY before the load of what is known; pairs with the fence in shmq_expire_from */
    for (uint32_t n = 0; n < SHMQ_LOOP_MAX; n++) {
        uint64_t known = shmq_load(&q->header->expiry);
        if (known && known <= expires) return;
        if (!shmq_cas(&q->header->expiry, known, expires)) continue;
        shmq_bell_supervisor(q); /* it may sleep longer than that */
        return;
    }
}

/* ---- a fair share of memory ---- */
bool shmq_is_stopped(const struct shmq_queue *q) {
    return shmq_load(&q->header->share) != 0; /* acquire: pairs with the store in shmq_set_share */
}

int shmq_stop(struct shmq_queue *q) {
    if (!shmq_is_stopped(q)) return SHMQ_OK;
    atomic_fetch_add_explicit(&q->header->stops, 1, memory_order_relaxed);
    return SHMQ_STOPPED;
}

void shmq_set_share(struct shmq_queue *q, uint64_t share, uint64_t mark) {
    bool stopped = shmq_is_stopped(q);
    atomic_store_explicit(&q->header->mark, mark, memory_order_relaxed);
    atomic_store_explicit(&q->header->share, share, memory_order_seq_cst); /* with the fence in shmq_bell_register: who sleeps is seen, or sees it */
    if (stopped && !share) shmq_bell_ring_all(q, SHMQ_PRODUCERS);
}
