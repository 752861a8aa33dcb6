/* test_heal.c - the healer and the check: lost bits and references are put back at the second look, never at the first; gauges come
 * right at rest; and a check says what is wrong. */
#include "support.h"

static struct world w;

static struct shmq_part *ring(bool returned, uint32_t *bits)
{
    struct shmq_ring r = returned ? shmq_ring_returned(&w.q[0], 0) : shmq_ring_main(&w.q[0], 0);
    return shmq_ring_part(&w.q[0], &r, 0, bits);
}

/* The reference at the head is lost, as if its publisher had died between commit and enqueue. */
static void lose_reference(bool returned)
{
    uint32_t bits;
    struct shmq_part *part = ring(returned, &bits);
    uint64_t h = shmq_load(&part->head);
    struct shmq_look head = {.part = part, .position = h, .bits = bits};
    head.entry = shmq_load(&part->entry[shmq_entry_index(h, bits)]);
    EQ(shmq_ring_clear(&w.q[0], &head), SHMQ_OK);
}

static struct shmq_heal_report look(uint64_t later_ns)
{
    struct shmq_heal_report report;
    EQ(shmq_heal_step(&w.q[0], w.now += later_ns, true, &report), 0);
    return report;
}

static void a_lost_reference_is_put_back_at_the_second_look(void)
{
    world_open(&w, 2, sized(8, 4));
    publish(&w.q[0], 1);
    lose_reference(false);
    EQ(take_ack(&w.q[1]), 0);
    EQ(shmq_check(&w.q[0], NULL, NULL), 1);
    struct shmq_heal_report report = look(0);
    EQ(report.references, 0);
    EQ(report.suspects, 1);
    report = look(LATER / 4); /* too soon */
    EQ(report.references, 0);
    EQ(report.suspects, 1);
    report = look(LATER);
    EQ(report.references, 1);
    EQ(report.suspects, 0);
    EQ(look(LATER).references, 0);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_suspect_that_moved_is_seen_anew(void)
{
    struct shmq_delivery d;
    world_open(&w, 2, sized(8, 4));
    publish(&w.q[0], 1);
    lose_reference(false);
    EQ(look(0).suspects, 1);
    struct shmq_ring r = shmq_ring_main(&w.q[0], 0);
    EQ(shmq_ring_enqueue(&w.q[0], &r, 0, 0), SHMQ_OK);
    EQ(take(&w.q[1], &d), 1);
    nack(&w.q[1], &d);
    lose_reference(true);
    EQ(look(LATER).references, 0);
    EQ(look(LATER).references, 1);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_publisher_that_was_slow_is_not_put_before_its_elder(void)
{
    world_open(&w, 2, sized(8, 4));
    publish(&w.q[0], 1);
    publish(&w.q[0], 2);
    EQ(look(LATER).suspects, 0);
    lose_reference(false);
    EQ(look(0).suspects, 1);
    struct shmq_ring r = shmq_ring_main(&w.q[0], 0);
    EQ(shmq_ring_enqueue(&w.q[0], &r, 0, 0), SHMQ_OK); /* it was only slow */
    EQ(look(LATER).references, 0);
    EQ(take_ack(&w.q[1]), 2);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_delivered_message_goes_back_to_the_returned_ring(void)
{
    struct shmq_delivery d;
    world_open(&w, 2, sized(8, 4));
    publish(&w.q[0], 1);
    EQ(take(&w.q[1], &d), 1);
    publish(&w.q[0], 2);
    nack(&w.q[1], &d);
    lose_reference(true);
    EQ(world_heal(&w).references, 1);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 2);
    world_close(&w);
}

static void a_half_done_enqueue_counts_as_a_reference(void)
{
    uint32_t bits;
    world_open(&w, 2, sized(8, 4));
    publish(&w.q[0], 1);
    atomic_store(&ring(false, &bits)->tail, 0);
    EQ(world_heal(&w).references, 0);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void references_are_seen_in_every_ring_of_a_series(void)
{
    struct shmq_delivery d[100];
    world_open(&w, 2, sized(300, 4));
    for (uint64_t id = 1; id <= 300; id++)
        publish(&w.q[0], id);
    for (uint64_t id = 1; id <= 100; id++)
        EQ(take(&w.q[1], &d[id - 1]), id);
    for (int i = 0; i < 100; i++)
        nack(&w.q[1], &d[i]);
    EQ(world_heal(&w).references, 0);
    for (uint64_t id = 1; id <= 300; id++)
        EQ(take_ack(&w.q[1]), id);
    world_close(&w);
}

static void lost_bits_are_put_back_at_once(void)
{
    world_open(&w, 2, sized(200, 4));
    for (uint64_t id = 1; id <= 70; id++)
        publish(&w.q[0], id);
    for (uint64_t id = 1; id <= 70; id++)
        EQ(take_ack(&w.q[1]), id);
    for (uint32_t n = 0; n < 4; n++)
        atomic_store((shmq_word *)(void *)(w.q[0].base + w.q[0].layout.bitmap) + n, 0);
    EQ(shmq_slots_high(&w.q[0]), 70);
    EQ(look(0).bits, 128); /* those too that were committed and never claimed: who committed them may have died before the hints */
    EQ(look(0).bits, 0);
    world_close(&w);
}

static void a_lost_summary_bit_is_put_back(void) /* who freed the slot died between bit and summary bit */
{
    world_open(&w, 2, sized(200, 4));
    publish(&w.q[0], 1);
    atomic_store((shmq_word *)(void *)(w.q[0].base + w.q[0].layout.summary), 0);
    CHECK(look(0).bits > 0);
    EQ(look(0).bits, 0);
    EQ(shmq_load((shmq_word *)(void *)(w.q[0].base + w.q[0].layout.summary)), 1);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

static void a_large_queue_is_healed_in_bounded_steps(void)
{
    struct shmq_heal_report report;
    uint64_t references = 0, passes = 0;
    uint32_t steps = 0;
    world_open(&w, 2, sized(100000, 1024));
    for (uint64_t id = 1; id <= 100000; id++)
        publish(&w.q[0], id);
    lose_reference(false);
    while (references == 0 && steps++ < 1000) {
        EQ(shmq_heal_step(&w.q[0], w.now += LATER / 10, false, &report), 0);
        references += report.references;
        passes += report.passes;
    }
    EQ(references, 1);
    CHECK(passes >= 1 && steps > 8);
    for (uint64_t id = 2; id <= 100000; id++)
        EQ(take_ack(&w.q[1]), id);
    EQ(take_ack(&w.q[1]), 1);
    world_close(&w);
}

/* A peer may write any tail; and in a queue with a backlog it may move faster than the healer walks. */
static void a_pass_ends_wherever_a_tail_is(void)
{
    struct shmq_heal_report report;
    uint64_t passes = 0;
    uint32_t bits;
    world_open(&w, 2, sized(100000, 65536));
    for (uint64_t id = 1; id <= 70000; id++)
        publish(&w.q[0], id);
    struct shmq_ring r = shmq_ring_main(&w.q[0], 0);
    EQ(shmq_load(&r.ends->back), 1);
    struct shmq_part *part = shmq_ring_part(&w.q[0], &r, 1, &bits);
    EQ(bits, 17);
    uint64_t tail = atomic_exchange(&part->tail, UINT64_MAX / 2);
    for (uint32_t step = 0; !passes && step < 100; step++) {
        EQ(shmq_heal_step(&w.q[0], w.now, false, &report), 0);
        passes += report.passes;
    }
    EQ(passes, 1);
    atomic_store(&part->tail, tail);
    world_abandon(&w);
}

static void a_full_look_during_a_pass_ends_it_and_makes_a_whole_one(void)
{
    struct shmq_heal_report report;
    world_open(&w, 2, sized(100000, 1024));
    for (uint64_t id = 1; id <= 100000; id++)
        publish(&w.q[0], id);
    EQ(shmq_heal_step(&w.q[0], w.now, false, &report), 0);
    EQ(report.passes, 0);
    atomic_fetch_and((shmq_word *)(void *)(w.q[0].base + w.q[0].layout.bitmap), 0);
    report = look(LATER);
    EQ(report.passes, 2);
    EQ(shmq_purge(&w.q[0], shmq_now()), 100000);
    world_close(&w);
}

static void a_message_that_found_no_room_is_tried_again_at_each_look(void)
{
    world_open(&w, 2, sized(64, 4));
    fallocate_left = 0;
    publish_together(&w.q[0], 1, 12);
    CHECK(world_heal(&w).suspects > 0);
    fallocate_left = -1;
    CHECK(world_heal(&w).references > 0);
    EQ(world_faults(&w), 0);
    for (int n = 0; n < 12; n++)
        CHECK(take_ack(&w.q[1]) != 0);
    world_close(&w);
}

static void gauges_come_right_at_rest(void)
{
    struct shmq_stats s;
    struct shmq_delivery d;
    world_open(&w, 2, sized(64, 4));
    for (uint64_t id = 1; id <= 10; id++)
        publish(&w.q[0], id);
    EQ(take(&w.q[1], &d), 1);
    atomic_fetch_add(&w.q[0].header->tally[1].published, 5); /* counts that deaths took away, or counted twice */
    atomic_fetch_add(&w.q[0].header->tally[2].delivered, 3);
    atomic_store(&w.q[0].header->arena_used, 12345);
    shmq_stats(&w.q[0], &s);
    CHECK(s.ready != 9);
    world_heal(&w);
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, 9);
    EQ(s.unacked, 1);
    EQ(s.arena_used, 0);
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    for (uint64_t id = 2; id <= 10; id++)
        EQ(take_ack(&w.q[1]), id);
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, 0);
    EQ(s.unacked, 0);
    world_close(&w);
}

/* A process may lose its turn between a swap and its count, and a whole pass may fall into that. */
static void a_count_on_its_way_is_not_corrected(void)
{
    struct shmq_stats s;
    struct shmq_heal_report report;
    world_open(&w, 2, sized(64, 4));
    publish(&w.q[0], 1);
    publish(&w.q[0], 2);
    atomic_fetch_add(&w.q[0].header->tally[1].published, -1);
    for (int pass = 0; pass < 3; pass++)
        EQ(shmq_heal_step(&w.q[0], w.now += LATER / 10, true, &report), 0);
    atomic_fetch_add(&w.q[0].header->tally[1].published, 1);
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, 2);
    for (int pass = 0; pass < 3; pass++) {
        EQ(shmq_heal_step(&w.q[0], w.now += LATER, true, &report), 0);
        shmq_stats(&w.q[0], &s);
        EQ(s.ready, 2);
    }
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 2);
    world_close(&w);
}

/* Who was stopped for longer than that shifts a gauge when it goes on; the next quiet pass puts it right. */
static void a_count_that_came_after_the_correction_is_corrected_again(void)
{
    struct shmq_stats s;
    world_open(&w, 2, sized(64, 4));
    publish(&w.q[0], 1);
    publish(&w.q[0], 2);
    atomic_fetch_add(&w.q[0].header->tally[1].published, -1);
    world_heal(&w);
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, 2);
    atomic_fetch_add(&w.q[0].header->tally[1].published, 1);
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, 3);
    world_heal(&w);
    shmq_stats(&w.q[0], &s);
    EQ(s.ready, 2);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 2);
    world_close(&w);
}

static void a_release_that_went_on_after_the_correction_is_corrected_again(void)
{
    struct shmq_delivery d;
    struct shmq_geometry g = sized(64, 4);
    g.arena_bytes = 1 << 20;
    world_open(&w, 2, g);
    EQ(publish_sized(&w.q[0], 1, 0, 900), SHMQ_OK);
    uint64_t charge = shmq_load(&w.q[0].header->arena_used);
    EQ(take(&w.q[1], &d), 1);
    uint64_t place = shmq_load(&shmq_slot_at(&w.q[1], d.slot)->place);
    shmq_arena_release(&w.q[1], place); /* of an ack that was stopped before its swap */
    world_heal(&w);
    EQ(shmq_load(&w.q[0].header->arena_used), charge);
    shmq_arena_keep(&w.q[1], place); /* it released before the correction, not now */
    EQ(shmq_ack(&w.q[1], &d), SHMQ_OK);
    EQ(shmq_load(&w.q[0].header->arena_used), charge);
    world_heal(&w);
    EQ(shmq_load(&w.q[0].header->arena_used), 0);
    world_close(&w);
}

static void gauges_of_the_supervisors_messages_come_right_too(void)
{
    struct shmq_stats s;
    struct shmq_delivery d;
    world_open(&w, 2, sized(64, 4));
    for (int n = -1; n <= 1; n += 2) { /* counts that deaths took away */
        publish(&w.q[0], 1);
        EQ(take(&w.q[1], &d), 1);
        EQ(shmq_bury(&w.q[1], d.slot, d.ctl, SHMQ_REJECTED), SHMQ_OK);
        publish(&w.q[0], 2);
        EQ(take(&w.q[1], &d), 2);
        EQ(shmq_delay(&w.q[1], d.slot, d.ctl, 7), SHMQ_OK);
        atomic_fetch_add(n < 0 ? &w.q[0].header->tally[1].dead : &w.q[0].header->tally[1].settled, -1);
        atomic_fetch_add(n < 0 ? &w.q[0].header->tally[2].held : &w.q[0].header->tally[2].fired, -1);
        world_heal(&w);
        shmq_stats(&w.q[0], &s);
        EQ(s.ready, 0);
        EQ(s.unacked, 0);
        EQ(s.dead_pending, n < 0 ? 1 : 2);
        EQ(s.delayed, n < 0 ? 1 : 2);
    }
    world_close(&w);
}

/* ---- the check ---- */
static void faults_after(shmq_word *word, uint64_t value, int expected)
{
    uint64_t whole = shmq_load(word);
    atomic_store(word, value);
    CHECK(expected ? shmq_check(&w.q[0], NULL, NULL) >= expected : shmq_check(&w.q[0], NULL, NULL) == 0);
    atomic_store(word, whole);
}

static void a_check_says_what_is_wrong(void)
{
    struct shmq_geometry g = sized(64, 4);
    g.levels = 20;
    g.arena_bytes = 1 << 20;
    world_open(&w, 2, g);
    EQ(publish_sized(&w.q[0], 1, 3, 5000), SHMQ_OK);
    publish(&w.q[0], 2);
    EQ(take_ack(&w.q[1]), 1);
    EQ(publish_sized(&w.q[0], 1, 3, 5000), SHMQ_OK);
    struct shmq_slot *s = shmq_slot_at(&w.q[0], 0);
    struct shmq_ring r = shmq_ring_main(&w.q[0], 3);
    uint32_t bits;
    struct shmq_part *part = shmq_ring_part(&w.q[0], &r, 0, &bits);
    faults_after(&s->ctl, shmq_load(&s->ctl) | 0xf, 1);
    faults_after(&s->ctl, shmq_load(&s->ctl) | 1 << 20, 1);
    faults_after(&s->ctl, shmq_ctl(9, 0, 0, 0, SHMQ_FREE), 1);
    faults_after(&s->shape, shmq_load(&s->shape) | 0xff00, 1);
    faults_after(&s->place, shmq_load(&s->place) + (UINT64_C(1) << 32), 1);
    faults_after(&s->place, shmq_load(&s->place) | UINT64_C(1) << 62, 1);
    faults_after(&part->tail, 9, 1);
    faults_after(&part->head, 9, 1);
    faults_after(&r.ends->front, 5, 1);
    faults_after(&r.ends->back, UINT64_MAX, 1);
    faults_after(&part->entry[shmq_entry_index(1, bits)], 0, 1);
    uint32_t gate = atomic_exchange(&w.q[0].header->gate[0], 1);
    CHECK(shmq_check(&w.q[0], NULL, NULL) > 0);
    atomic_store(&w.q[0].header->gate[0], gate);
    EQ(take_ack(&w.q[1]), 1);
    EQ(take_ack(&w.q[1]), 2);
    world_close(&w);
}

int main(void)
{
    RUN(a_lost_reference_is_put_back_at_the_second_look);
    RUN(a_suspect_that_moved_is_seen_anew);
    RUN(a_publisher_that_was_slow_is_not_put_before_its_elder);
    RUN(a_delivered_message_goes_back_to_the_returned_ring);
    RUN(a_half_done_enqueue_counts_as_a_reference);
    RUN(references_are_seen_in_every_ring_of_a_series);
    RUN(lost_bits_are_put_back_at_once);
    RUN(a_lost_summary_bit_is_put_back);
    RUN(a_large_queue_is_healed_in_bounded_steps);
    RUN(a_pass_ends_wherever_a_tail_is);
    RUN(a_full_look_during_a_pass_ends_it_and_makes_a_whole_one);
    RUN(a_message_that_found_no_room_is_tried_again_at_each_look);
    RUN(gauges_come_right_at_rest);
    RUN(a_count_on_its_way_is_not_corrected);
    RUN(a_count_that_came_after_the_correction_is_corrected_again);
    RUN(a_release_that_went_on_after_the_correction_is_corrected_again);
    RUN(gauges_of_the_supervisors_messages_come_right_too);
    RUN(a_check_says_what_is_wrong);
    return done();
}
