/* test_ring.c - rings of references: order, wrap, each half-done step and who finishes it, marks. */
#include "rings.h"

/* ---- one ring ---- */
static void an_empty_ring_has_nothing(void)
{
    struct shmq_look look;
    world_open(&w, 2, sized(8, 4));
    struct shmq_ring r = ring_of(false);
    EQ(shmq_ring_look(&w.q[1], &r, SHMQ_READY, &look), SHMQ_EMPTY);
    CHECK(!shmq_ring_may_have(&w.q[1], &r));
    CHECK(!shmq_may_have(&w.q[1]));
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void references_come_out_in_order_through_many_wraps(void)
{
    world_open(&w, 2, sized(4, 4));
    for (uint64_t id = 1; id <= 3000; id += 3) {
        fill(id, id + 2);
        CHECK(shmq_may_have(&w.q[1]));
        drain(id, id + 2);
        CHECK(!shmq_may_have(&w.q[1]));
    }
    EQ(shmq_load(&ring_of(false).ends->back), 0);
    world_close(&w);
}

static void positions_of_large_rings_are_a_permutation(void)
{
    for (uint32_t bits = 2; bits <= 10; bits++) {
        static uint8_t seen[1024];
        for (uint32_t i = 0; i < 1u << bits; i++)
            seen[i] = 0;
        for (uint64_t p = 5; p < 5 + (UINT64_C(1) << bits); p++)
            CHECK(seen[shmq_entry_index(p, bits)]++ == 0);
    }
}

static void laps_wrap(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(4, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    uint64_t late = (UINT64_C(1) << (20 + bits)) - 6; /* six positions before lap 2^20, on an entry's boundary or not */
    set(&part->head, late);
    set(&part->tail, late);
    for (uint64_t p = late; p < late + 4; p++)
        set(entry_at(part, p, bits), shmq_entry_empty(p >> bits));
    for (uint64_t id = 1; id <= 40; id += 4) {
        fill(id, id + 3);
        drain(id, id + 3);
    }
    world_close(&w);
}

static void a_half_done_enqueue_is_finished_by_the_next_enqueuer(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    fill(1, 1);
    set(&part->tail, 0); /* died before moving tail */
    fill(2, 2);
    EQ(shmq_load(&part->tail), 2);
    drain(1, 2);
    world_close(&w);
}

static void a_half_done_enqueue_is_taken(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    fill(1, 1);
    set(&part->tail, 0);
    drain(1, 1);
    EQ(shmq_load(&part->tail), 1); /* tail never behind head */
    fill(2, 3);
    drain(2, 3);
    world_close(&w);
}

static void a_take_that_died_behind_its_commit_leaves_a_stale_reference(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    fill(1, 2);
    shmq_word *ctl = &shmq_slot_at(&w.q[0], 0)->ctl;
    set(ctl, shmq_ctl_moved(shmq_load(ctl), 9, SHMQ_UNACKED));
    EQ(take_ack(&w.q[1]), 2);
    EQ(shmq_load(&part->head), 2);
    set(ctl, shmq_ctl_freed(shmq_load(ctl)));
    world_close(&w);
}

static void a_take_that_died_before_moving_head_is_finished(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    fill(1, 2);
    EQ(take_ack(&w.q[1]), 1);
    set(&part->head, 0); /* its entry is EMPTY of lap 1 */
    CHECK(shmq_may_have(&w.q[1]));
    drain(2, 2);
    world_close(&w);
}

static void full_of_the_next_lap_is_a_half_done_take(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(4, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    fill(1, 4);
    EQ(take_ack(&w.q[1]), 1);
    set(&part->head, 0);
    fill(5, 5); /* FULL(1) at position 4, the entry of position 0 */
    CHECK(shmq_entry_is_full(shmq_load(entry_at(part, 0, bits))));
    drain(2, 5);
    world_close(&w);
}

static void a_full_ring_answers_full(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(4, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    fill(1, 4);
    EQ(shmq_ring_put(part, bits, 3, 77), SHMQ_PUT_FULL);
    set(&part->tail, 3); /* and with a half-done enqueue it is full no less */
    EQ(shmq_ring_put(part, bits, 3, 77), SHMQ_PUT_FULL);
    EQ(shmq_load(&part->tail), 4);
    drain(1, 4);
    world_close(&w);
}

static void an_entry_filled_ahead_of_tail_is_passed_and_found(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    fill(1, 1);
    uint64_t reference = shmq_load(entry_at(part, 0, bits));
    set(entry_at(part, 2, bits), reference); /* an enqueuer that was stopped for 2^20 laps */
    fill(2, 3);
    drain(1, 3);
    world_close(&w);
}

static void a_duplicate_reference_delivers_once(void)
{
    world_open(&w, 2, sized(8, 4));
    struct shmq_ring r = ring_of(false);
    fill(1, 1);
    EQ(shmq_ring_enqueue(&w.q[0], &r, 0, 0), SHMQ_OK);
    EQ(shmq_ring_enqueue(&w.q[0], &r, 0, 0), SHMQ_OK);
    fill(2, 2);
    drain(1, 2);
    world_close(&w);
}

static void a_reference_of_another_generation_is_stale(void)
{
    world_open(&w, 2, sized(8, 4));
    struct shmq_ring r = ring_of(false);
    EQ(shmq_ring_enqueue(&w.q[0], &r, 0, 1), SHMQ_OK);
    EQ(shmq_ring_enqueue(&w.q[0], &r, SHMQ_NO_SLOT - 1, 0), SHMQ_OK); /* and one of no slot at all */
    fill(1, 1);
    drain(1, 1);
    world_close(&w);
}

/* ---- marks ---- */
static void a_mark_in_the_middle_is_stale(void)
{
    struct shmq_delivery d[3];
    world_open(&w, 2, sized(8, 4));
    fill(1, 3);
    for (int i = 0; i < 3; i++)
        EQ(take(&w.q[1], &d[i]), (uint64_t)i + 1);
    for (int i = 2; i >= 0; i--)
        nack(&w.q[1], &d[i]); /* 3 2 1 */
    EQ(take(&w.q[1], &d[0]), 1);
    EQ(take(&w.q[1], &d[1]), 2);
    nack(&w.q[1], &d[0]); /* 3 mark mark 1 */
    EQ(shmq_ack(&w.q[1], &d[1]), SHMQ_OK);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 3);
    EQ(take_ack(&w.q[1]), 0);
    world_close(&w);
}

static void a_mark_set_during_a_take_at_the_head_does_not_move_head_past_an_old_entry(void)
{
    struct shmq_look at_head;
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    struct shmq_ring r = ring_of(false);
    fill(1, 2);
    EQ(shmq_ring_look(&w.q[1], &r, SHMQ_READY, &at_head), SHMQ_OK);
    shmq_ring_mark(&at_head); /* somebody else, from the middle */
    EQ(shmq_ring_clear(&w.q[1], &at_head), SHMQ_OK);
    EQ(shmq_entry_lap(shmq_load(entry_at(part, 0, bits))), 1);
    EQ(shmq_load(&part->head), 1);
    EQ(take_ack(&w.q[1]), 2);
    world_is_clean(&w);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_late_clear_touches_nothing_of_later_laps(void)
{
    struct shmq_look late;
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    struct shmq_ring r = ring_of(false);
    fill(1, 1);
    EQ(shmq_ring_look(&w.q[1], &r, SHMQ_READY, &late), SHMQ_OK);
    drain(1, 1);
    for (uint64_t id = 2; id <= 20; id++) {
        fill(id, id);
        uint64_t head = shmq_load(&part->head), tail = shmq_load(&part->tail);
        EQ(shmq_ring_clear(&w.q[1], &late), SHMQ_OK);
        shmq_ring_mark(&late);
        EQ(shmq_load(&part->head), head);
        EQ(shmq_load(&part->tail), tail);
        drain(id, id);
    }
    world_close(&w);
}

static void another_reference_that_came_during_a_take_is_not_cleared(void)
{
    struct shmq_look taken;
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    struct shmq_part *part = part_at(false, 0, &bits);
    struct shmq_ring r = ring_of(false);
    fill(1, 2);
    EQ(shmq_ring_look(&w.q[1], &r, SHMQ_READY, &taken), SHMQ_OK);
    uint64_t moved = shmq_load(entry_at(part, 1, bits)), mark = shmq_entry_full(0, 0, SHMQ_NO_SLOT);
    set(entry_at(part, 0, bits), moved); /* somebody saw the taken one stale, and moved another into its place */
    set(entry_at(part, 1, bits), mark);
    EQ(shmq_ring_clear(&w.q[1], &taken), SHMQ_OK);
    EQ(shmq_load(entry_at(part, 0, bits)), moved);
    EQ(shmq_load(&part->head), 0);
    EQ(take_ack(&w.q[1]), 2);
    world_is_clean(&w);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

int main(void)
{
    RUN(an_empty_ring_has_nothing);
    RUN(references_come_out_in_order_through_many_wraps);
    RUN(positions_of_large_rings_are_a_permutation);
    RUN(laps_wrap);
    RUN(a_half_done_enqueue_is_finished_by_the_next_enqueuer);
    RUN(a_half_done_enqueue_is_taken);
    RUN(a_take_that_died_behind_its_commit_leaves_a_stale_reference);
    RUN(a_take_that_died_before_moving_head_is_finished);
    RUN(full_of_the_next_lap_is_a_half_done_take);
    RUN(a_full_ring_answers_full);
    RUN(an_entry_filled_ahead_of_tail_is_passed_and_found);
    RUN(a_duplicate_reference_delivers_once);
    RUN(a_reference_of_another_generation_is_stale);
    RUN(a_mark_in_the_middle_is_stale);
    RUN(a_mark_set_during_a_take_at_the_head_does_not_move_head_past_an_old_entry);
    RUN(another_reference_that_came_during_a_take_is_not_cleared);
    RUN(a_late_clear_touches_nothing_of_later_laps);
    return done();
}
