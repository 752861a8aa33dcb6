/* shmq_break.h - deliberately broken builds, so that the tests can be seen to fail.
 *
 * SHMQ_BROKEN(NAME) is 0 and leaves no trace, unless the compiler is given -DSHMQ_BREAK_NAME: then one thing is taken away that the
 * protocol cannot do without. tests/crash/test_broken_builds.py builds each of these and says which harness must catch it.
 *
 *   COMMIT_BEFORE_BODY         a publish is READY before its body is written
 *   GENERATION_KEPT            a slot's generation does not change when it becomes FREE
 *   DELIVERY_WITHOUT_SWAP      a take stores UNACKED instead of swapping it for the word it saw
 *   GATE_RAISED_LATE           a gate is raised after READY
 *   GATE_LOWERED_EARLY         a gate is lowered before the take's swap
 *   SLEEP_WITHOUT_LOOK         no look between registering and sleeping
 *   REGISTER_WITHOUT_FENCE     no full fence between registering and that look
 *   RING_WITHOUT_FENCE         no full fence between the commit and the load of `registered`
 *   TOKEN_AFTER_COUNT          a ringer lowers the count before it writes the token
 *   LEAVES_WITH_TOKEN          who leaves takes a token along and lets its registration stand
 *   STALE_RINGS                a ringer with the bells of an earlier broker uses up registrations of those who don't hear them
 *   REAPS_THE_STOPPED          a lost session of a living client loses its WRITING and ACKED slots too
 *   ACK_WITHOUT_OWNER          an ack compares generation and state only
 *   DELIVERIES_SATURATE        behind delivery 255 comes 255
 *   TAIL_NOT_HELPED            an entry is cleared though tail is not behind it yet
 *   HALF_DONE_TAKE_UNSEEN      FULL of the next lap is not known for a half-done take
 *   HEAD_MOVED_BLINDLY         head moves past an entry that was not seen to be cleared
 *   FULL_FROM_HINTS            "full" is said without looking at the control words
 *   GRANULES_BY_SLOT           a granule is live while its slot is in use, whatever the generation
 *   RETURNED_AFTER_MAIN        returned messages wait for the main ring
 *   MIDDLE_TAKE_LEAVES         a take from the middle of the returned ring leaves its reference
 *   WINDOW_OF_POSITIONS        the returned ring's window counts positions, not live references
 *   MOVE_MARKS_FIRST           a reference that moves is marked before it is in its new place
 *   CLEARS_WHAT_CAME           who clears an entry clears another reference too that came in between
 *   SPILL_CLEARS_FIRST         a spill clears before it enqueues
 *   ROTATES_WHEN_NOT_FULL      a returned ring is turned in place though it is full no more
 *   HEALER_LOOKS_ONCE          the healer refers to what was unreferenced at one look
 *   HEALER_COUNTS_AT_ONCE      the healer corrects how much is ready while somebody stands between swap and count
 *   DROPS_AS_SEEN              who saw too many drops a head, whoever else does so too
 *   DROPS_COUNTED_LATE         what goes from a queue that drops its head is counted away behind the swap
 *   DROPS_COUNTED_EARLY        what comes to one is counted before it is READY
 *   REFUSES_COUNTED_LATE       what comes to a queue that refuses is counted behind READY
 *   DUE_WRITTEN_LATE           what is put off is DELAYED before its time is written
 *   EXPIRY_EMPTIED_LATE        the time of the first expiry is emptied behind the look
 *   READY_RELAXED              and FREE_RELAXED, LEVELS_RELAXED, SLOTS_RELAXED, TIERS_RELAXED, BACK_RELAXED, MAGIC_RELAXED:
 *                              what publishes this word is no release
 */
#ifndef SHMQ_BREAK_H
#define SHMQ_BREAK_H

/* Defined by -D, `pasted` is "0," and the second argument 1; otherwise it is one unknown word and the second 0. */
#define SHMQ_BROKEN(name) SHMQ_SWITCH_VALUE(SHMQ_BREAK_##name)
#define SHMQ_SWITCH_VALUE(value) SHMQ_SWITCH_PASTE(value)
#define SHMQ_SWITCH_PASTE(value) SHMQ_SWITCH_PICK(SHMQ_SWITCH_IS_##value)
#define SHMQ_SWITCH_PICK(pasted) SHMQ_SWITCH_SECOND(pasted 1, 0, 0)
#define SHMQ_SWITCH_SECOND(first, second, ...) second
#define SHMQ_SWITCH_IS_1 0,

#define SHMQ_RELEASE_UNLESS(name) (SHMQ_BROKEN(name) ? memory_order_relaxed : memory_order_release)
#define SHMQ_CAS_UNLESS(name, word, from, to) (SHMQ_BROKEN(name) ? shmq_cas_relaxed : shmq_cas)(word, from, to)

#endif
