/* test_sender.c - who published a message. */
#include "support.h"

static struct world w;

static void open_world(void)
{
    world_open(&w, 2, sized(32, 4));
}

static void publish_from(uint64_t sender, uint64_t id)
{
    struct shmq_draft d = {.body_bytes = 24, .level = 200, .sender = sender, .ttl_ns = -1};
    EQ(publish_draft(&w.q[0], id, d), SHMQ_OK);
}

static uint64_t origin_of_next(void)
{
    struct shmq_delivery d;
    EQ(shmq_take(&w.q[1], &d), SHMQ_OK);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    return d.origin;
}

static void next_is_from(uint32_t uid, uint32_t gid, uint32_t pid)
{
    struct shmq_identity who;
    uint64_t origin = origin_of_next();
    EQ(shmq_sender_of(&w.q[1], origin, &who), true);
    EQ(who.uid, uid);
    EQ(who.gid, gid);
    EQ(who.pid, pid);
    EQ(shmq_origin_priority(origin), 200);
}

static void a_message_says_who_published_it(void)
{
    open_world();
    publish_from(shmq_sender(&w.q[0], (struct shmq_identity){0, 0, 1}), 1);
    publish_from(shmq_sender(&w.q[0], (struct shmq_identity){4000000000u, 100, 4194304}), 2);
    next_is_from(0, 0, 1);
    next_is_from(4000000000u, 100, 4194304);
    world_close(&w);
}

static void what_no_process_has_is_unknown(void) /* the word may be anybody's */
{
    struct shmq_identity who;
    open_world();
    uint64_t known = shmq_sender(&w.q[0], (struct shmq_identity){1, 2, INT32_MAX});
    EQ(shmq_sender_of(&w.q[0], known, &who), true);
    EQ(shmq_sender_of(&w.q[0], known + (UINT64_C(1) << 32), &who), false);
    EQ(shmq_sender_of(&w.q[0], known + 0x100, &who), false);
    atomic_store(&w.q[0].header->sender[0], 7); /* a gid without a uid */
    EQ(shmq_sender_of(&w.q[0], known, &who), false);
    world_close(&w);
}

static void the_handle_has_a_sender_of_its_own(void)
{
    struct shmq_identity who;
    open_world();
    publish_from(0, 1);
    EQ(shmq_sender_of(&w.q[1], origin_of_next(), &who), false);
    w.q[0].sender = shmq_sender(&w.q[0], (struct shmq_identity){7, 8, 9});
    publish_from(0, 2);
    next_is_from(7, 8, 9);
    world_close(&w);
}

static void an_entry_is_claimed_once(void)
{
    open_world();
    uint64_t first = shmq_sender(&w.q[0], (struct shmq_identity){1, 2, 3});
    EQ(shmq_sender(&w.q[1], (struct shmq_identity){1, 2, 3}), first);
    EQ(shmq_origin_sender(shmq_sender(&w.q[1], (struct shmq_identity){1, 2, 4})), shmq_origin_sender(first));
    EQ(shmq_origin_sender(shmq_sender(&w.q[1], (struct shmq_identity){1, 3, 3})), shmq_origin_sender(first) + 1);
    world_close(&w);
}

static void those_for_whom_there_is_no_room_are_unknown(void)
{
    open_world();
    for (uint32_t uid = 0; uid < SHMQ_SENDERS; uid++)
        EQ(shmq_origin_sender(shmq_sender(&w.q[0], (struct shmq_identity){uid, 0, 1})), uid + 1);
    EQ(shmq_sender(&w.q[0], (struct shmq_identity){SHMQ_SENDERS, 0, 1}), 0);
    EQ(shmq_origin_sender(shmq_sender(&w.q[0], (struct shmq_identity){0, 0, 1})), 1);
    EQ(shmq_sender(&w.q[0], (struct shmq_identity){UINT32_MAX, 0, 1}), 0); /* no uid */
    world_close(&w);
}

int main(void)
{
    RUN(a_message_says_who_published_it);
    RUN(what_no_process_has_is_unknown);
    RUN(the_handle_has_a_sender_of_its_own);
    RUN(an_entry_is_claimed_once);
    RUN(those_for_whom_there_is_no_room_are_unknown);
    return done();
}
