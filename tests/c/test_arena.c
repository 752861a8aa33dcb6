/* test_arena.c - large bodies: every tier, any order of frees, disjoint runs, fragments, what can never fit, what the dead leave. */
#include "support.h"

#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define MANY 64u

static struct world w;

static void open_arena(uint32_t slots, uint64_t arena_bytes)
{
    struct shmq_geometry g = sized(slots, 4);
    g.arena_bytes = arena_bytes;
    world_open(&w, 2, g);
}

static uint64_t used(void)
{
    struct shmq_stats s;
    shmq_stats(&w.q[0], &s);
    return s.arena_used;
}

static uint32_t tier_of(uint64_t id, uint64_t bytes)
{
    struct shmq_delivery d;
    EQ(publish_sized(&w.q[0], id, 0, bytes), SHMQ_OK);
    EQ(take(&w.q[1], &d), id);
    EQ(d.body_bytes, bytes);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    EQ(used(), 0);
    return d.tier;
}

static void a_body_of_each_size_comes_back_whole(void)
{
    open_arena(8, 16 * MIB);
    EQ(tier_of(1, 64), 0);
    EQ(tier_of(2, 65), 1);
    EQ(tier_of(3, 512), 1);
    EQ(tier_of(4, 513), 1);
    EQ(tier_of(5, 64 << 10), 1);
    EQ(tier_of(6, (64 << 10) + 1), 2);
    EQ(tier_of(7, 8 * MIB), 2);
    EQ(tier_of(8, 8 * MIB + 1), 3);
    EQ(tier_of(9, 16 * MIB), 3);
    world_close(&w);
}

static void the_envelope_travels_with_the_body(void)
{
    static uint8_t envelope[SHMQ_ENVELOPE_BYTES_MAX];
    struct shmq_delivery d;
    open_arena(8, 16 * MIB);
    memset(envelope, 0xe5, sizeof envelope);
    for (uint32_t bytes = 0; bytes <= SHMQ_ENVELOPE_BYTES_MAX; bytes += bytes < 100 ? 7 : 6543) {
        struct shmq_draft draft = {.envelope = envelope, .envelope_bytes = bytes, .body_bytes = 24 + bytes % 77, .ttl_ns = -1};
        EQ(publish_draft(&w.q[0], bytes + 1, draft), SHMQ_OK);
        EQ(take(&w.q[1], &d), bytes + 1);
        EQ(d.envelope_bytes, bytes);
        EQ(memcmp(d.envelope, envelope, bytes), 0);
        EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    }
    struct shmq_draft largest = {.envelope = envelope, .envelope_bytes = sizeof envelope, .body_bytes = 16 * MIB, .ttl_ns = -1};
    EQ(publish_draft(&w.q[0], 99, largest), SHMQ_OK); /* the largest body has room for its envelope */
    EQ(take_ack(&w.q[1]), 99);
    world_close(&w);
}

/* Memory is refused, so that this needs no gigabyte: any other answer came before it was asked for. */
static void the_largest_body_of_all_has_room_for_its_envelope(void)
{
    static const uint8_t envelope[SHMQ_ENVELOPE_BYTES_MAX];
    struct shmq_write write;
    open_arena(8, SHMQ_BODY_BYTES_MAX);
    for (uint32_t bytes = 0; bytes <= SHMQ_ENVELOPE_BYTES_MAX; bytes += SHMQ_ENVELOPE_BYTES_MAX / 3) {
        struct shmq_draft draft = {.envelope = envelope, .envelope_bytes = bytes, .body_bytes = SHMQ_BODY_BYTES_MAX, .ttl_ns = -1};
        fallocate_left = 0;
        EQ(shmq_write_begin(&w.q[0], &draft, &write), SHMQ_NO_MEMORY);
        fallocate_left = -1;
    }
    EQ(used(), 0);
    world_close(&w);
}

/* Of a hostile peer: who copies it would need so much memory of his own. */
static void a_body_larger_than_any_may_be_is_damage(void)
{
    struct shmq_delivery d;
    open_arena(8, 4 * SHMQ_BODY_BYTES_MAX);
    EQ(publish_sized(&w.q[0], 1, 0, 9 * MIB), SHMQ_OK);
    struct shmq_slot *s = shmq_slot_at(&w.q[0], 0);
    uint64_t shape = shmq_load(&s->shape), place = shmq_load(&s->place), committed = shmq_load(&w.q[0].header->tier[2].committed);
    atomic_store(&w.q[0].header->tier[2].committed, 4000);
    atomic_store(&s->place, UINT64_C(4000) << 16 | 3 << 8);
    atomic_store(&s->shape, SHMQ_BODY_BYTES_MAX << 32);
    EQ(shmq_describe(&w.q[1], 0, shmq_load(&s->ctl), &d), SHMQ_OK);
    atomic_store(&s->shape, (SHMQ_BODY_BYTES_MAX + 1) << 32);
    EQ(shmq_describe(&w.q[1], 0, shmq_load(&s->ctl), &d), SHMQ_DAMAGED);
    atomic_store(&s->shape, shape);
    atomic_store(&s->place, place);
    atomic_store(&w.q[0].header->tier[2].committed, committed);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void an_empty_body_is_a_message(void)
{
    struct shmq_delivery d;
    world_open(&w, 2, sized(8, 4));
    EQ(shmq_publish(&w.q[0], &(struct shmq_draft){.ttl_ns = -1}, NULL), SHMQ_OK);
    EQ(shmq_take(&w.q[1], &d), SHMQ_OK);
    EQ(d.body_bytes, 0);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    world_close(&w);
}

static void what_can_never_fit_is_refused_and_leaves_nothing(void)
{
    static const uint64_t sizes[] = {16 * MIB + 1, SHMQ_BODY_BYTES_MAX, SHMQ_BODY_BYTES_MAX + 1, UINT64_MAX - 6, UINT64_MAX};
    struct shmq_write write;
    open_arena(8, 16 * MIB);
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct shmq_draft draft = {.body_bytes = sizes[i], .ttl_ns = -1};
        EQ(shmq_write_begin(&w.q[0], &draft, &write), SHMQ_TOO_LARGE);
    }
    EQ(shmq_write_begin(&w.q[0], &(struct shmq_draft){.envelope_bytes = SHMQ_ENVELOPE_BYTES_MAX + 1, .ttl_ns = -1}, &write), SHMQ_TOO_LARGE);
    EQ(used(), 0);
    EQ(world_count(&w, SHMQ_FREE), 8);
    world_close(&w);
    world_open(&w, 2, sized(8, 4)); /* without an arena */
    EQ(publish_sized(&w.q[0], 1, 0, 64), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 1, 0, 65), SHMQ_TOO_LARGE);
    static const uint8_t envelope[65];
    EQ(shmq_write_begin(&w.q[0], &(struct shmq_draft){.envelope = envelope, .envelope_bytes = 65, .ttl_ns = -1}, &write), SHMQ_TOO_LARGE);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

/* Runs of live messages share no granule: the bodies, checked at the end, would tell; and so does shmq_check. */
static void bodies_stay_whole_in_any_order_of_frees(void)
{
    static struct shmq_delivery held[MANY];
    uint64_t state = seed_of(), id = 0;
    uint32_t n = 0;
    open_arena(MANY, 4 * MIB);
    for (int step = 0; step < 3000; step++) {
        uint64_t bytes = 24 + (below(&state, 20) ? below(&state, 20000) : below(&state, 1u << 20));
        int r = n < MANY - 1 ? publish_sized(&w.q[step & 1], ++id, 0, bytes) : SHMQ_FULL;
        if (r == SHMQ_OK)
            EQ(take(&w.q[1], &held[n++]), id);
        for (uint32_t k = r == SHMQ_OK ? below(&state, 2) : 1 + below(&state, n); k-- && n;) {
            uint32_t i = below(&state, n);
            taken_id(&held[i]);
            EQ(shmq_ack(&w.q[1], &held[i]), SHMQ_OK);
            held[i] = held[--n];
        }
    }
    while (n--)
        EQ(shmq_ack(&w.q[1], &held[n]), SHMQ_OK);
    EQ(used(), 0);
    world_close(&w);
}

static void fragments_are_used_and_what_fits_in_none_is_full(void)
{
    struct shmq_delivery d[65];
    open_arena(100, 1 * MIB);
    uint32_t n = 0;
    while (n < 65 && publish_sized(&w.q[0], n + 1, 0, 32 << 10) == SHMQ_OK) { /* 2 MiB of the smallest tier */
        EQ(take(&w.q[1], &d[n]), n + 1);
        n++;
    }
    EQ(n, 64);
    for (uint32_t i = 0; i < n; i += 2)
        EQ(shmq_ack(&w.q[1], &d[i]), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 100, 0, 33 << 10), SHMQ_FULL); /* half of it is free, in runs of 32 KiB */
    EQ(world_count(&w, SHMQ_WRITING), 0);
    for (uint32_t i = 0; i < n; i += 2)
        EQ(publish_sized(&w.q[0], 200 + i, 0, 32 << 10), SHMQ_OK);
    for (uint32_t i = 0; i < n; i += 2)
        EQ(take_ack(&w.q[1]), 200 + i);
    for (uint32_t i = 1; i < n; i += 2)
        EQ(shmq_ack(&w.q[1], &d[i]), SHMQ_OK);
    EQ(publish_sized(&w.q[0], 100, 0, 64 << 10), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 100);
    world_close(&w);
}

static void low_addresses_are_used_again(void)
{
    struct shmq_delivery d;
    open_arena(8, 1 * MIB);
    for (uint64_t id = 1; id < 50; id++) {
        EQ(publish_sized(&w.q[0], id, 0, 3000), SHMQ_OK);
        EQ(take(&w.q[1], &d), id);
        EQ(d.body - w.q[1].base, w.q[1].layout.tier[0].data);
        EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    }
    world_close(&w);
}

static void an_arena_without_memory_refuses_and_goes_on(void)
{
    open_arena(64, 4 * MIB);
    fallocate_left = 0;
    EQ(publish_sized(&w.q[0], 1, 0, 1000), SHMQ_NO_MEMORY);
    EQ(used(), 0);
    EQ(publish_sized(&w.q[0], 1, 0, 24), SHMQ_OK);
    fallocate_left = 1; /* owner words, but not the granules */
    EQ(publish_sized(&w.q[0], 2, 0, 1000), SHMQ_NO_MEMORY);
    fallocate_left = -1;
    EQ(publish_sized(&w.q[0], 2, 0, 1000), SHMQ_OK);
    fallocate_left = 0;
    EQ(publish_sized(&w.q[0], 3, 0, 64 << 10), SHMQ_NO_MEMORY);
    EQ(publish_sized(&w.q[0], 3, 0, 1000), SHMQ_OK);
    for (uint64_t id = 1; id <= 3; id++)
        EQ(take_ack(&w.q[1]), id);
    fallocate_left = -1;
    world_close(&w);
}

static void an_aborted_write_gives_everything_back(void)
{
    struct shmq_write write;
    open_arena(8, 1 * MIB);
    for (int i = 0; i < 100; i++) {
        EQ(shmq_write_begin(&w.q[0], &(struct shmq_draft){.body_bytes = 1 * MIB, .ttl_ns = -1}, &write), SHMQ_OK);
        shmq_write_abort(&w.q[0], &write);
    }
    EQ(used(), 0);
    EQ(world_count(&w, SHMQ_FREE), 8);
    world_close(&w);
}

static void granules_of_a_dead_writer_are_free_when_its_slot_is_reaped(void)
{
    struct shmq_write write;
    struct shmq_counts counts;
    open_arena(8, 1 * MIB);
    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < 2; k++) /* an arena has 1 MiB more than it says: for envelopes */
            EQ(shmq_write_begin(&w.q[1], &(struct shmq_draft){.body_bytes = 1 * MIB, .ttl_ns = -1}, &write), SHMQ_OK);
        EQ(publish_sized(&w.q[0], 1, 0, 1 * MIB), SHMQ_FULL);
        EQ(shmq_reap(&w.q[0], NULL, 2, true, false, &counts), 0);
        EQ(counts.freed, 2);
    }
    EQ(used(), 0);
    EQ(publish_sized(&w.q[0], 1, 0, 1 * MIB), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

/* A claimer that died between owner words and the slot's place: its granules name a slot that is in WRITING, then not. */
static void owner_words_of_a_dead_claimer_are_taken_over(void)
{
    open_arena(8, 1 * MIB);
    uint32_t slot;
    uint64_t ctl, place;
    EQ(shmq_slot_claim(&w.q[1], &slot, &ctl), SHMQ_OK);
    EQ(shmq_arena_claim(&w.q[1], slot, ctl, 1000, &place), SHMQ_OK);
    uint64_t charged = used();
    struct shmq_counts counts;
    EQ(shmq_reap(&w.q[0], NULL, 2, true, false, &counts), 0);
    CHECK(charged > 0);
    EQ(used(), 0); /* also while there is traffic: not only when a pass of the healer finds everything at rest */
    EQ(publish_sized(&w.q[0], 2, 0, 1000), SHMQ_OK);
    struct shmq_delivery d;
    EQ(take(&w.q[1], &d), 2);
    EQ(d.body - w.q[1].base, w.q[1].layout.tier[0].data);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    world_close(&w);
}

int main(void)
{
    RUN(a_body_of_each_size_comes_back_whole);
    RUN(the_envelope_travels_with_the_body);
    RUN(the_largest_body_of_all_has_room_for_its_envelope);
    RUN(a_body_larger_than_any_may_be_is_damage);
    RUN(an_empty_body_is_a_message);
    RUN(what_can_never_fit_is_refused_and_leaves_nothing);
    RUN(bodies_stay_whole_in_any_order_of_frees);
    RUN(fragments_are_used_and_what_fits_in_none_is_full);
    RUN(low_addresses_are_used_again);
    RUN(an_arena_without_memory_refuses_and_goes_on);
    RUN(an_aborted_write_gives_everything_back);
    RUN(granules_of_a_dead_writer_are_free_when_its_slot_is_reaped);
    RUN(owner_words_of_a_dead_claimer_are_taken_over);
    return done();
}
