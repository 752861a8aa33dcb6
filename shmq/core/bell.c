/* bell.c - waking sleepers. A hint like the rest: bounded waits and the supervisor's ringing after each death lie below it.
 *
 *   sleeper: registered +1 - full fence - look - poll - read a token (which uses up the registration)
 *   ringer:  commit, reference - full fence - registered > 0? write the token first, then registered -1
 *
 * Either the sleeper's look sees the commit, or the ringer sees the registration. Who leaves takes back one registration, or, when
 * there is none, reads the token that was written for it.
 *
 * Bells are those of a broker, and a ringer may have those of an earlier one, which may be heard by nobody. Registrations of who has the
 * new ones are then not his to use up: he says in a flag that he has rung, and the supervisor rings for all. */
#include "shmq_core.h"

#include <unistd.h>

#define NUMBER(v) ((uint32_t)(v))

static uint64_t changed(uint64_t v, int32_t by) { return ((v >> 32) + 1) << 32 | (uint32_t)(NUMBER(v) + (uint32_t)by); }

static void write_token(int fd) {
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one); /* non-blocking: a full counter has tokens enough */
    (void)n;
}

void shmq_bell_register(struct shmq_queue *q, enum shmq_side side) {
    shmq_word *registered = &q->header->registered[side][0];
    uint64_t v = shmq_load(registered);
    while (!shmq_cas(registered, v, changed(v, 1))) v = shmq_load(registered);
    if (!SHMQ_BROKEN(REGISTER_WITHOUT_FENCE)) atomic_thread_fence(memory_order_seq_cst); /* pairs with the fence in shmq_bell_ring */
}

bool shmq_bell_token(struct shmq_queue *q, enum shmq_side side) {
    uint64_t token;
    return q->bell[side] >= 0 && read(q->bell[side], &token, sizeof token) == (ssize_t)sizeof token;
}

void shmq_bell_leave(struct shmq_queue *q, enum shmq_side side) {
    shmq_word *registered = &q->header->registered[side][0];
    if (SHMQ_BROKEN(LEAVES_WITH_TOKEN) && shmq_bell_token(q, side)) return;
    for (uint64_t v = shmq_load(registered); NUMBER(v); v = shmq_load(registered))
        if (shmq_cas(registered, v, changed(v, -1))) return;
    if (shmq_bell_token(q, side) && shmq_bell_look(q, side)) shmq_bell_ring(q, side); /* pass it on */
}

/* Also writes one token: where the bells were kept from broker to broker it is heard at once. */
static void ring_unheard(struct shmq_queue *q, enum shmq_side side) {
    uint64_t flag = SHMQ_FLAG_UNHEARD << side;
    if (atomic_fetch_or(&q->header->flags, flag) & flag) return; /* somebody has, and the supervisor has not looked since */
    write_token(q->bell[side]);
    shmq_bell_supervisor(q);
}

/* The token first: nobody's registration is used up without one. */
static void use_up(struct shmq_queue *q, enum shmq_side side, uint64_t v) {
    shmq_word *registered = &q->header->registered[side][0];
    if (SHMQ_BROKEN(TOKEN_AFTER_COUNT)) shmq_cas(registered, v, changed(v, -1));
    write_token(q->bell[side]);
    if (!SHMQ_BROKEN(TOKEN_AFTER_COUNT)) shmq_cas(registered, v, changed(v, -1)); /* failed: somebody else took one down */
}

void shmq_bell_ring(struct shmq_queue *q, enum shmq_side side) {
    shmq_word *registered = &q->header->registered[side][0];
    if (!SHMQ_BROKEN(RING_WITHOUT_FENCE)) shmq_fence_after_swap(); /* pairs with the fence in shmq_bell_register */
    uint64_t v = shmq_load(registered);
    if (!NUMBER(v) || q->bell[side] < 0) return; /* without a token to write, the registration is left to who has one */
    /* behind the load of the registrations: who registered with newer bells did so behind their epoch, so it is seen here */
    if (shmq_load(&q->header->epoch) != q->bell_epoch && !SHMQ_BROKEN(STALE_RINGS)) {
        ring_unheard(q, side);
        return;
    }
    use_up(q, side, v);
}

void shmq_bell_wake_own(struct shmq_queue *q, enum shmq_side side) {
    uint64_t v = shmq_load(&q->header->registered[side][0]);
    if (NUMBER(v) && q->bell[side] >= 0) use_up(q, side, v);
}

void shmq_bell_ring_all(struct shmq_queue *q, enum shmq_side side) {
    shmq_fence_after_swap(); /* as in shmq_bell_ring: whoever registers from here on sees what we ring for */
    uint32_t n = NUMBER(shmq_load(&q->header->registered[side][0]));
    for (uint32_t i = 0; i < n && i < 65536; i++) shmq_bell_ring(q, side);
}

void shmq_bell_ring_unheard(struct shmq_queue *q) {
    const uint64_t both = SHMQ_FLAG_UNHEARD << SHMQ_CONSUMERS | SHMQ_FLAG_UNHEARD << SHMQ_PRODUCERS;
    if (!(atomic_load_explicit(&q->header->flags, memory_order_relaxed) & both)) return;
    if (shmq_load(&q->header->epoch) != q->bell_epoch) return; /* nor would we be heard */
    uint64_t unheard = atomic_fetch_and(&q->header->flags, ~both); /* first: what is flagged from here on is left to the next look */
    for (int side = 0; side < SHMQ_SIDES; side++)
        if (unheard & (uint64_t)SHMQ_FLAG_UNHEARD << side) shmq_bell_ring_all(q, (enum shmq_side)side);
}

void shmq_bell_supervisor(struct shmq_queue *q) {
    if (q->supervisor_bell >= 0) write_token(q->supervisor_bell);
}

/* ---- who found no room ---- */
static _Thread_local char here; /* its address names the thread */

/* That of this thread, or the last one of all: its thread is forgotten for others that came since, or tried elsewhere. */
static struct shmq_lack *lack_of(struct shmq_queue *q) {
    for (uint32_t i = 0; i < SHMQ_LACKS; i++)
        if (q->lack[i].thread == &here) return &q->lack[i];
    return &q->lack[q->lacked % SHMQ_LACKS];
}

void shmq_bell_lack(struct shmq_queue *q, uint64_t freed, bool arena, bool stopped) {
    struct shmq_lack *lack = lack_of(q);
    if (lack->thread != &here) lack = &q->lack[(q->lacked + 1) % SHMQ_LACKS];
    *lack = (struct shmq_lack){.thread = &here, .freed = freed, .arena = arena, .stopped = stopped};
    q->lacked = (uint32_t)(lack - q->lack);
}

static bool has_room_since(struct shmq_queue *q) {
    const struct shmq_lack *lack = lack_of(q);
    if (lack->stopped && !shmq_is_stopped(q)) return true;
    uint64_t freed = shmq_freed_sum(q) - (lack->arena ? shmq_load(&q->header->given_up) : 0);
    return (int64_t)(freed - lack->freed) > 0; /* below: a slot that is being given up */
}

bool shmq_bell_look(struct shmq_queue *q, enum shmq_side side) {
    if (atomic_load_explicit(&q->header->flags, memory_order_relaxed) & SHMQ_FLAG_DELETED) return true;
    return side == SHMQ_CONSUMERS ? shmq_may_have(q) : has_room_since(q);
}
