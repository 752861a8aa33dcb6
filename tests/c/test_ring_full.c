/* test_ring_full.c - what happens when a ring is full: growth and sealing, spill, rotation, and what is left to the healer. */
#include "rings.h"

/* ---- growth ---- */
static void a_full_ring_grows_and_keeps_order(void)
{
    world_open(&w, 2, sized(64, 4));
    fill(1, 64); /* 4 + 8 + 16 + 32, and 4 of 64 */
    EQ(shmq_load(&ring_of(false).ends->back), 4);
    EQ(shmq_load(&ring_of(false).ends->front), 0);
    drain(1, 64);
    EQ(shmq_load(&ring_of(false).ends->front), 4);
    fill(65, 100);
    drain(65, 100);
    world_close(&w);
}

static void parts_of_a_series_do_not_overlap(void)
{
    for (uint32_t entries = 4; entries <= 64; entries *= 2) {
        struct shmq_geometry g = sized(500, entries);
        g.levels = 2;
        world_open(&w, 1, g);
        for (uint32_t which = 0; which < 4; which++) {
            struct shmq_ring r = which & 1 ? shmq_ring_returned(&w.q[0], which / 2) : shmq_ring_main(&w.q[0], which / 2);
            const uint8_t *end = NULL;
            for (uint64_t k = 1; k <= r.last; k++) {
                uint32_t bits;
                struct shmq_part *part = shmq_ring_part(&w.q[0], &r, k, &bits);
                EQ((uintptr_t)part % SHMQ_LINE, 0);
                CHECK((const uint8_t *)part >= end);
                end = (const uint8_t *)&part->entry[UINT64_C(1) << bits];
            }
            uint64_t stride = which & 1 ? w.q[0].layout.returned_stride : w.q[0].layout.main_stride;
            CHECK(end <= r.rest + stride);
            CHECK(shmq_ring_part(&w.q[0], &r, r.last + 1, &(uint32_t){0}) == NULL);
        }
        world_close(&w);
    }
}

static void an_enqueuer_that_meets_a_sealed_ring_turns_to_back(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(64, 4));
    fill(1, 5);
    drain(1, 5); /* ring 0 is sealed, front is 1 */
    struct shmq_part *first = part_at(false, 0, &bits);
    EQ(shmq_ring_put(first, bits, 1, 0), SHMQ_PUT_SEALED);
    EQ(shmq_load(&ring_of(false).ends->front), 1);
    fill(6, 8);
    drain(6, 8);
    world_close(&w);
}

static void a_sealer_that_died_before_moving_front_is_finished(void)
{
    world_open(&w, 2, sized(64, 4));
    fill(1, 5);
    drain(1, 5);
    set(&ring_of(false).ends->front, 0);
    CHECK(shmq_may_have(&w.q[1])); /* may: look */
    fill(6, 6);
    drain(6, 6);
    EQ(shmq_load(&ring_of(false).ends->front), 1);
    world_close(&w);
}

static void a_late_enqueue_in_the_ring_before_back_is_found(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(64, 4));
    fill(1, 5);
    EQ(take_ack(&w.q[1]), 1);
    uint64_t generation = 0;
    struct shmq_part *first = part_at(false, 0, &bits);
    EQ(shmq_ring_put(first, bits, 4, (uint32_t)generation), SHMQ_PUT_DONE); /* message 5 once more, in ring 0 */
    drain(2, 5);
    world_close(&w);
}

static void a_publish_without_memory_for_its_reference_is_refused(void)
{
    world_open(&w, 2, sized(64, 4));
    fallocate_left = 0;
    for (int round = 0; round < 10; round++) {
        fill(1, 4);
        EQ(publish_sized(&w.q[0], 5, 0, 24), SHMQ_NO_MEMORY);
        EQ(publish_sized(&w.q[1], 5, 0, 24), SHMQ_NO_MEMORY);
        EQ(world_count(&w, SHMQ_READY), 4);
        drain(1, 4);
    }
    fill(1, 2);
    fallocate_left = 1; /* the next ring, secured from half of this one on */
    fill(3, 3);
    EQ(fallocate_left, 0);
    fill(4, 6);
    EQ(publish_sized(&w.q[0], 99, 0, 24), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 1);
    fallocate_left = -1;
    world_close(&w);
}

static uint64_t fill_up(uint64_t from)
{
    uint64_t n = 0;
    while (publish_sized(&w.q[0], from + n, 0, 24) == SHMQ_OK)
        n++;
    return n;
}

static void what_fitted_once_fits_again_whatever_memory_there_was(void)
{
    for (int memory = 0; memory < 40; memory++) {
        world_open(&w, 2, sized(1000, 4));
        fallocate_left = memory;
        uint64_t fitted = fill_up(1);
        fallocate_left = 0;
        drain(1, fitted);
        uint64_t again = fill_up(1);
        for (int round = 0; round < 3; round++) {
            drain(1, again);
            EQ(fill_up(1), again);
        }
        CHECK(again >= 4 && (memory < 4 || again == fitted)); /* of the first 64 slots each has a place from rings of 64 on */
        drain(1, again);
        fallocate_left = -1;
        world_close(&w);
    }
}

static void growth_without_memory_counts_as_the_largest_size(void)
{
    world_open(&w, 2, sized(64, 4));
    fallocate_left = 0;
    publish_together(&w.q[0], 1, 8); /* spills 1..4 into the returned ring, as the main one cannot grow */
    EQ(shmq_load(&ring_of(false).ends->back), 0);
    EQ(world_count(&w, SHMQ_READY), 8);
    drain(1, 8);
    fill(9, 12);
    fallocate_left = -1;
    fill(13, 30);
    EQ(shmq_load(&ring_of(false).ends->back) > 0, 1);
    drain(9, 30);
    world_close(&w);
}

static void messages_that_found_no_room_anywhere_are_left_to_the_healer(void)
{
    world_open(&w, 2, sized(64, 4));
    fallocate_left = 0;
    publish_together(&w.q[0], 1, 12); /* 4 in main, 4 in returned, the rest nowhere */
    EQ(world_count(&w, SHMQ_READY), 12);
    uint64_t got = 0;
    for (int round = 0; round < 6; round++) {
        while (take_ack(&w.q[1]))
            got++;
        world_heal(&w);
    }
    EQ(got, 12);
    fallocate_left = -1;
    world_close(&w);
}

/* ---- full at the largest size ---- */
static void bury(uint32_t slot)
{
    uint64_t ctl = shmq_load(&shmq_slot_at(&w.q[0], slot)->ctl);
    EQ(shmq_bury(&w.q[0], slot, ctl, SHMQ_EXPIRED), SHMQ_OK);
    uint32_t popped;
    EQ(shmq_pop(&w.q[0], SHMQ_DEAD, &popped, &ctl), SHMQ_OK);
    EQ(popped, slot);
    EQ(shmq_settle_dead(&w.q[0], slot, ctl), SHMQ_OK);
}

static void a_main_ring_full_of_stale_references_spills_its_head(void)
{
    world_open(&w, 2, sized(4, 4));
    fill(1, 4);
    bury(1);
    bury(2);
    bury(3); /* 1 stale stale stale: full, and the largest */
    fill(5, 7);
    EQ(take_ack(&w.q[1]), 1);
    drain(5, 7);
    world_close(&w);
}

static void spilled_messages_keep_their_order(void)
{
    world_open(&w, 2, sized(4, 4));
    fill(1, 4);
    bury(1);
    bury(2);
    fill(5, 6);
    struct shmq_delivery d;
    EQ(take(&w.q[1], &d), 1);
    nack(&w.q[1], &d);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 4);
    EQ(take_ack(&w.q[1]), 5);
    EQ(take_ack(&w.q[1]), 6);
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

/* The returned ring of 4 (2 slots) full: message `1` live at its head, three stale ones behind it. */
static void fill_returned(void)
{
    struct shmq_delivery d[2];
    world_open(&w, 2, sized(2, 4));
    fill(1, 2);
    EQ(take(&w.q[1], &d[0]), 1);
    EQ(take(&w.q[1], &d[1]), 2);
    nack(&w.q[1], &d[0]);
    nack(&w.q[1], &d[1]);
    for (uint64_t id = 3; id <= 4; id++) {
        bury(1);
        fill(id, id);
        struct shmq_ring main = ring_of(false), returned = ring_of(true);
        struct shmq_look look;
        EQ(shmq_ring_look(&w.q[1], &main, SHMQ_READY, &look), SHMQ_OK);
        EQ(shmq_ring_enqueue(&w.q[1], &returned, look.slot, shmq_ctl_generation(look.ctl)), SHMQ_OK);
        EQ(shmq_ring_clear(&w.q[1], &look), SHMQ_OK);
    }
}

static void a_full_returned_ring_is_rotated_and_drops_what_is_stale(void)
{
    uint32_t bits;
    fill_returned(); /* 1 stale stale 4 */
    struct shmq_part *part = part_at(true, 0, &bits);
    EQ(shmq_load(&part->tail) - shmq_load(&part->head), 4);
    struct shmq_ring returned = ring_of(true);
    EQ(shmq_ring_enqueue(&w.q[1], &returned, 1, shmq_ctl_generation(shmq_load(&shmq_slot_at(&w.q[0], 1)->ctl))), SHMQ_OK);
    EQ(shmq_load(&part->tail) - shmq_load(&part->head), 3); /* 1 4 4 */
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 4);
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void a_returned_ring_full_of_live_references_leaves_one_to_the_healer(void)
{
    world_open(&w, 2, sized(2, 4));
    fill(1, 1);
    struct shmq_ring returned = ring_of(true);
    for (int i = 0; i < 4; i++)
        EQ(shmq_ring_enqueue(&w.q[0], &returned, 0, 0), SHMQ_OK);
    EQ(shmq_ring_enqueue(&w.q[0], &returned, 0, 0), SHMQ_FULL);
    drain(1, 1);
    world_close(&w);
}

static void a_returned_ring_with_few_stale_ones_grows(void)
{
    struct shmq_delivery d[16];
    world_open(&w, 2, sized(16, 4));
    fill(1, 16);
    for (int i = 0; i < 16; i++)
        take(&w.q[1], &d[i]);
    for (int i = 15; i >= 0; i--)
        nack(&w.q[1], &d[i]);
    EQ(shmq_load(&ring_of(true).ends->back), 2);
    drain(1, 16);
    world_close(&w);
}

static void the_lowest_sequence_is_found_in_every_part(void)
{
    struct shmq_delivery d[64];
    world_open(&w, 2, sized(64, 4));
    fill(1, 64);
    for (int i = 0; i < 64; i++)
        take(&w.q[1], &d[i]);
    for (uint32_t i = 0; i < 64; i++)
        nack(&w.q[1], &d[(i * 37 + 11) % 64]);
    drain(1, 64);
    world_close(&w);
}

int main(void)
{
    RUN(a_full_ring_grows_and_keeps_order);
    RUN(parts_of_a_series_do_not_overlap);
    RUN(an_enqueuer_that_meets_a_sealed_ring_turns_to_back);
    RUN(a_sealer_that_died_before_moving_front_is_finished);
    RUN(a_late_enqueue_in_the_ring_before_back_is_found);
    RUN(a_publish_without_memory_for_its_reference_is_refused);
    RUN(what_fitted_once_fits_again_whatever_memory_there_was);
    RUN(growth_without_memory_counts_as_the_largest_size);
    RUN(messages_that_found_no_room_anywhere_are_left_to_the_healer);
    RUN(a_main_ring_full_of_stale_references_spills_its_head);
    RUN(spilled_messages_keep_their_order);
    RUN(a_full_returned_ring_is_rotated_and_drops_what_is_stale);
    RUN(a_returned_ring_full_of_live_references_leaves_one_to_the_healer);
    RUN(a_returned_ring_with_few_stale_ones_grows);
    RUN(the_lowest_sequence_is_found_in_every_part);
    return done();
}
