/* test_slot.c - claiming and freeing slots: lowest first, lost bits, spurious bits, "full" only when every control word says so. */
#include "support.h"

static struct world w;

static shmq_word *bitmap_word(uint32_t n)
{
    return (shmq_word *)(void *)(w.q[0].base + w.q[0].layout.bitmap) + n;
}

static void lose_bits(uint32_t slots)
{
    for (uint32_t n = 0; n < (slots + 63) / 64; n++)
        atomic_store(bitmap_word(n), 0);
}

static uint32_t claim(struct shmq_queue *q)
{
    uint32_t slot;
    uint64_t ctl;
    EQ(shmq_slot_claim(q, &slot, &ctl), SHMQ_OK);
    EQ(shmq_load(&shmq_slot_at(q, slot)->ctl), ctl);
    EQ(shmq_ctl_owner(ctl), q->owner);
    EQ(shmq_ctl_state(ctl), SHMQ_WRITING);
    return slot;
}

static int try_claim(struct shmq_queue *q)
{
    uint32_t slot;
    uint64_t ctl;
    return shmq_slot_claim(q, &slot, &ctl);
}

static void release(struct shmq_queue *q, uint32_t slot)
{
    EQ(shmq_slot_free(q, slot, shmq_load(&shmq_slot_at(q, slot)->ctl), NULL), SHMQ_OK);
}

static void release_all(uint32_t slots)
{
    for (uint32_t s = 0; s < slots; s++)
        release(&w.q[0], s);
}

static void the_lowest_free_slot_is_claimed_first(void)
{
    world_open(&w, 1, sized(100, 4));
    for (uint32_t s = 0; s < 100; s++)
        EQ(claim(&w.q[0]), s);
    release(&w.q[0], 70);
    release(&w.q[0], 3);
    EQ(claim(&w.q[0]), 3);
    EQ(claim(&w.q[0]), 70);
    release_all(100);
    world_close(&w);
}

static void a_slot_claimed_again_has_the_next_generation(void)
{
    world_open(&w, 1, sized(1, 4));
    for (uint32_t g = 0; g < 5; g++) {
        EQ(claim(&w.q[0]), 0);
        EQ(shmq_ctl_generation(shmq_load(&shmq_slot_at(&w.q[0], 0)->ctl)), g);
        release(&w.q[0], 0);
    }
    world_close(&w);
}

static void generations_wrap(void)
{
    world_open(&w, 1, sized(1, 4));
    atomic_store(&shmq_slot_at(&w.q[0], 0)->ctl, shmq_ctl(0xfffffff, 0, 0, 0, SHMQ_FREE));
    for (uint64_t id = 1; id < 4; id++) {
        publish(&w.q[0], id);
        EQ(take_ack(&w.q[0]), id);
    }
    EQ(shmq_ctl_generation(shmq_load(&shmq_slot_at(&w.q[0], 0)->ctl)), 2);
    world_close(&w);
}

static void slots_are_committed_as_they_are_needed(void)
{
    world_open(&w, 2, sized(1000, 4));
    EQ(shmq_slots_committed(&w.q[1]), 64);
    for (uint32_t s = 0; s < 65; s++)
        claim(&w.q[0]);
    EQ(shmq_slots_committed(&w.q[1]), 128);
    EQ(shmq_slots_high(&w.q[1]), 65);
    for (uint32_t s = 65; s < 1000; s++)
        EQ(claim(&w.q[s % 2]), s);
    EQ(shmq_slots_committed(&w.q[1]), 1000);
    EQ(try_claim(&w.q[0]), SHMQ_FULL);
    release_all(1000);
    world_close(&w);
}

static void another_commits_them_first(off_t offset, off_t bytes)
{
    (void)offset, (void)bytes;
    after_fallocate = NULL;
    uint64_t word = shmq_load(&w.q[0].header->slots_committed);
    CHECK(shmq_cas(&w.q[0].header->slots_committed, word, ((word >> 32) + 1) << 32 | 128)); /* and has not set their bits yet */
}

static void who_loses_the_race_to_commit_slots_commits_no_more(void)
{
    world_open(&w, 2, sized(1000, 4));
    for (uint32_t s = 0; s < 64; s++)
        EQ(claim(&w.q[0]), s);
    after_fallocate = another_commits_them_first;
    EQ(claim(&w.q[0]), 64);
    EQ(claim(&w.q[1]), 65); /* nor does who comes before the bits */
    EQ(shmq_slots_committed(&w.q[0]), 128);
    for (uint32_t s = 66; s < 128; s++)
        EQ(claim(&w.q[s % 2]), s); /* nor anybody, when who committed them died before the bits */
    EQ(shmq_slots_committed(&w.q[0]), 128);
    release_all(128);
    world_close(&w);
}

static void without_memory_the_claim_says_so_and_committed_slots_go_on(void)
{
    world_open(&w, 1, sized(1000, 4));
    fallocate_left = 0;
    for (uint32_t s = 0; s < 64; s++)
        EQ(claim(&w.q[0]), s);
    EQ(try_claim(&w.q[0]), SHMQ_NO_MEMORY);
    release(&w.q[0], 5);
    EQ(claim(&w.q[0]), 5);
    fallocate_left = -1;
    EQ(claim(&w.q[0]), 64);
    release_all(65);
    world_close(&w);
}

static void full_is_never_said_from_hints(void)
{
    world_open(&w, 1, sized(64, 4));
    lose_bits(64);
    for (uint32_t s = 0; s < 64; s++)
        EQ(claim(&w.q[0]), s);
    EQ(try_claim(&w.q[0]), SHMQ_FULL);
    release(&w.q[0], 40);
    lose_bits(64);
    EQ(claim(&w.q[0]), 40);
    release_all(64);
    world_close(&w);
}

static void a_lost_summary_bit_hides_nothing(void)
{
    world_open(&w, 1, sized(5000, 4));
    for (uint32_t n = 0; n < w.q[0].layout.summary_words; n++)
        atomic_store((shmq_word *)(void *)(w.q[0].base + w.q[0].layout.summary) + n, 0);
    for (uint32_t s = 0; s < 5000; s++)
        claim(&w.q[0]);
    EQ(try_claim(&w.q[0]), SHMQ_FULL);
    release_all(5000);
    world_close(&w);
}

static void a_spurious_bit_claims_nothing(void)
{
    world_open(&w, 2, sized(64, 4));
    for (uint32_t s = 0; s < 64; s++)
        claim(&w.q[0]);
    for (uint32_t s = 0; s < 64; s++)
        shmq_slot_hint(&w.q[0], s);
    EQ(try_claim(&w.q[1]), SHMQ_FULL);
    EQ(world_count(&w, SHMQ_WRITING), 64);
    release_all(64);
    world_close(&w);
}

/* Bits of slots that are not free, found by the full look alone: the slots kept in mind must stay within their room. */
static void spurious_bits_do_not_overflow_the_slots_kept_in_mind(void)
{
    world_open(&w, 2, sized(2048, 4));
    for (uint32_t s = 0; s < 2048; s++)
        claim(&w.q[0]);
    w.q[1].spares = 0;
    for (uint32_t n = 0; n < 32; n++)
        atomic_store(bitmap_word(n), ~UINT64_C(0)); /* without summary bits */
    EQ(try_claim(&w.q[1]), SHMQ_FULL);
    CHECK(w.q[1].spares <= SHMQ_SPARE);
    release_all(2048);
    world_close(&w);
}

static void slots_kept_in_mind_are_found_by_others(void)
{
    world_open(&w, 2, sized(1024, 4));
    claim(&w.q[0]);
    EQ(w.q[0].spares, SHMQ_SPARE - 1);
    for (uint32_t s = 1; s < 1024; s++)
        claim(&w.q[1]);
    EQ(try_claim(&w.q[0]), SHMQ_FULL);
    EQ(try_claim(&w.q[1]), SHMQ_FULL);
    release_all(1024);
    world_close(&w);
}

static void a_handle_that_leaves_gives_back_the_slots_it_kept_in_mind(void)
{
    world_open(&w, 3, sized(2048, 4));
    release(&w.q[2], claim(&w.q[2]));
    shmq_detach(&w.q[2]);
    w.handles = 2;
    for (uint32_t s = 0; s < 64; s++)
        CHECK(shmq_slot_has_bit(&w.q[0], s));
    world_close(&w);
}

static void a_stale_free_changes_nothing(void)
{
    world_open(&w, 1, sized(8, 4));
    uint32_t slot = claim(&w.q[0]);
    uint64_t old = shmq_load(&shmq_slot_at(&w.q[0], slot)->ctl);
    release(&w.q[0], slot);
    EQ(claim(&w.q[0]), slot);
    uint64_t freed = shmq_freed_sum(&w.q[0]);
    EQ(shmq_slot_free(&w.q[0], slot, old, NULL), SHMQ_STALE);
    EQ(shmq_freed_sum(&w.q[0]), freed);
    release(&w.q[0], slot);
    world_close(&w);
}

static void each_slot_is_claimed_by_one(void)
{
    static uint8_t claimed[500];
    uint64_t state = seed_of();
    world_open(&w, 4, sized(500, 4));
    for (uint32_t s = 0; s < 500; s++) {
        uint32_t slot = claim(&w.q[below(&state, 4)]);
        CHECK(claimed[slot]++ == 0);
        if (below(&state, 3) == 0)
            atomic_store(bitmap_word(below(&state, 8)), chance(&state)); /* bits lie as they like */
    }
    EQ(try_claim(&w.q[0]), SHMQ_FULL);
    release_all(500);
    world_close(&w);
}

int main(void)
{
    RUN(the_lowest_free_slot_is_claimed_first);
    RUN(a_slot_claimed_again_has_the_next_generation);
    RUN(generations_wrap);
    RUN(slots_are_committed_as_they_are_needed);
    RUN(who_loses_the_race_to_commit_slots_commits_no_more);
    RUN(without_memory_the_claim_says_so_and_committed_slots_go_on);
    RUN(full_is_never_said_from_hints);
    RUN(a_lost_summary_bit_hides_nothing);
    RUN(a_spurious_bit_claims_nothing);
    RUN(spurious_bits_do_not_overflow_the_slots_kept_in_mind);
    RUN(slots_kept_in_mind_are_found_by_others);
    RUN(a_handle_that_leaves_gives_back_the_slots_it_kept_in_mind);
    RUN(a_stale_free_changes_nothing);
    RUN(each_slot_is_claimed_by_one);
    return done();
}
