"""The wheel of delayed messages: nothing fires early, nothing is forgotten, what waits is left alone."""

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.core._core import DELAYED
from shmq_daemon.delays import BATCH, SHIFTS, SPAN, TURNED_MAX, Delays, Entry, Wheel
from support.segments import segment

MS = 1_000_000
DAY = 86_400_000 * MS
DELAY_NS = 10**12
LATER_NS = 1 << 62
times = st.one_of(st.integers(0, 50 * MS), st.integers(0, 2 * DAY), st.integers(0, 400 * DAY))


def fire_all(wheel: Wheel, now_ns: int) -> list[tuple[int, Entry]]:
    """Let time pass from one deadline to the next; return (when, what)."""
    fired: list[tuple[int, Entry]] = []
    while (next_ns := wheel.next_due()) is not None:
        now_ns = max(now_ns, next_ns)
        fired += [(now_ns, entry) for entry in wheel.due(now_ns)]
    return fired


@given(st.lists(times, max_size=60), st.integers(0, DAY))
def test_each_fires_once_within_a_bucket_of_its_time(delays: list[int], start: int) -> None:
    """Invariant: an entry comes out once, not before it is due, and at most two of the finest buckets later."""
    wheel = Wheel()
    for number, delay in enumerate(delays):
        wheel.add(Entry(start + delay, number, (number, 7)), start)

    fired = fire_all(wheel, start)

    assert sorted(entry.number for _, entry in fired) == list(range(len(delays)))
    assert all(0 <= now - entry.due_ns <= 2 << SHIFTS[0] for now, entry in fired)
    assert len(wheel) == 0


def test_those_due_in_one_bucket_come_in_the_order_of_their_times() -> None:
    wheel = Wheel()
    order = list(range(0, 900_000, 9_000))
    random.Random(3).shuffle(order)
    for due in order:
        wheel.add(Entry(DAY + due, due, (due, 1)), 0)

    assert [entry.number for _, entry in fire_all(wheel, 0)] == sorted(order)


def test_equal_times_keep_their_order() -> None:
    wheel = Wheel()
    for number in range(50):
        wheel.add(Entry(DAY, number, (number, 1)), 0)

    assert [entry.number for _, entry in fire_all(wheel, 0)] == list(range(50))


def test_what_waits_is_touched_a_few_times_in_all() -> None:
    wheel = Wheel()
    for number in range(1000):
        wheel.add(Entry(DAY + number * MS, number, (number, 1)), 0)
    looks = 0
    while (next_ns := wheel.next_due()) is not None and next_ns < DAY - 1000 * MS:
        assert wheel.due(next_ns) == []
        looks += 1

    assert looks <= 2 * len(SHIFTS) * 4
    assert len(wheel) == 1000


def test_what_comes_near_is_turned_in_parts_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, start, placed = Wheel(), DAY + 30_000 * MS, [0]
    for number in range(5 * TURNED_MAX):
        wheel.add(Entry(start + number * 1000, number, (number, 1)), 0)
    place = wheel._place

    def counted(entry: Entry, now_ns: int) -> None:
        placed[-1] += 1
        place(entry, now_ns)

    monkeypatch.setattr(wheel, "_place", counted)  # the real one, counted
    fired: list[Entry] = []
    while (next_ns := wheel.next_due()) is not None:
        placed.append(0)
        fired += wheel.due(next_ns)
        assert all(next_ns - entry.due_ns <= 2 << SHIFTS[0] for entry in fired[-1:])

    assert max(placed) <= TURNED_MAX
    assert [entry.number for entry in fired] == list(range(5 * TURNED_MAX))


def test_times_over_centuries_need_few_buckets() -> None:
    wheel = Wheel()
    for number in range(20_000):
        wheel.add(Entry(number << 49, number, (number, 1)), 0)

    assert max(map(len, wheel._buckets)) <= SPAN


def test_a_batch_is_bounded() -> None:
    wheel = Wheel()
    for number in range(BATCH + 10):
        wheel.add(Entry(5, number, (number, 1)), 10)

    assert len(wheel.due(10)) == BATCH
    assert wheel.next_due() == 5
    assert len(wheel.due(10)) == 10


class Core:
    """A queue's delayed messages: slot -> (control word, due time)."""

    def __init__(self) -> None:
        self.delayed: dict[int, tuple[int, int]] = {}
        self.ring: list[tuple[int, int, int]] = []
        self.fired: list[int] = []

    def delay(self, slot: int, ctl: int, due_ns: int, *, in_ring: bool = True) -> None:
        self.delayed[slot] = ctl, due_ns
        if in_ring:
            self.ring.append((slot, ctl, due_ns))

    def delayed_pop(self) -> tuple[int, int, int] | None:
        return self.ring.pop(0) if self.ring else None

    def due_ns(self, slot: int, _ctl: int) -> int:
        return self.delayed[slot][1]

    def fire_delayed(self, slot: int, ctl: int, now_ns: int) -> int:
        if self.delayed.get(slot, (0, 0))[0] != ctl:
            return -1
        if self.delayed[slot][1] > now_ns:
            return 0
        del self.delayed[slot]
        self.fired.append(slot)
        return 1


class Watched:
    def __init__(self) -> None:
        self.core = Core()
        self.queue: Any = type("Queue", (), {"queue_id": 11, "number": 3})()


@pytest.fixture
def watched() -> Any:
    return Watched()


@pytest.fixture
def delays(watched: Any) -> Delays:
    return Delays({11: watched})


def run(delays: Delays, now_ns: int) -> int:
    return sum(delays.fire(queue, at, now_ns) for queue, at in delays.due(now_ns))


def word(generation: int, deliveries: int = 0) -> int:
    return generation << 36 | deliveries << 12 | 3


def test_a_message_fires_when_it_is_due(delays: Delays, watched: Any) -> None:
    watched.core.delay(5, word(1), 10 * MS)
    assert not delays.step(watched, 0)

    assert run(delays, 9 * MS) == 0
    assert run(delays, 12 * MS) == 1
    assert watched.core.fired == [5]


def test_one_whose_time_was_moved_goes_back(delays: Delays, watched: Any) -> None:
    watched.core.delay(5, word(1), 10 * MS)
    delays.step(watched, 0)
    watched.core.delayed[5] = word(1), 50 * MS

    assert run(delays, 12 * MS) == 0
    assert run(delays, 52 * MS) == 1


def test_what_a_scan_finds_is_taken_up_once(delays: Delays, watched: Any) -> None:
    watched.core.delay(5, word(1), 10 * MS)
    watched.core.delay(900, word(1), 10 * MS, in_ring=False)
    delays.step(watched, 0)
    for _ in range(3):
        delays.adopt(watched, [(5, word(1)), (900, word(1))], 0)

    assert len(delays) == 2
    assert run(delays, 12 * MS) == 2


def test_another_delivery_in_a_known_slot_is_another_message(delays: Delays, watched: Any) -> None:
    for generation, deliveries in ((1, 0), (1, 1), (2, 1)):
        watched.core.delay(5, word(generation, deliveries), 10 * MS)
        delays.adopt(watched, [(5, word(generation, deliveries))], 0)

    assert len(delays) == 3
    assert run(delays, 12 * MS) == 1


def test_no_two_deliveries_are_taken_for_one(delays: Delays, watched: Any) -> None:
    for generation, deliveries in ((2, 0), (3, 16), (1 << 27, 255)):
        watched.core.delay(5, word(generation, deliveries), 10 * MS)
        delays.adopt(watched, [(5, word(generation, deliveries))], 0)

    assert len(delays) == 3


def test_a_queue_that_is_gone_is_let_go(watched: Any) -> None:
    queues = {11: watched}
    delays = Delays(queues)
    watched.core.delay(5, word(1), 10 * MS)
    delays.step(watched, 0)
    del queues[11]
    delays.forget(watched)

    assert run(delays, 12 * MS) == 0
    assert delays.next_due() is None


# -- a queue as it is -------------------------------------------------------------------------------------------------


@pytest.fixture
def real() -> Iterator[Any]:
    with segment(1, 4 * BATCH, 64, 4, 0) as made:
        queue = SimpleNamespace(queue_id=11, number=3)
        yield SimpleNamespace(core=made.attach(16), queue=queue, client=made.attach(32))


def known(delays: Delays) -> list[Any]:
    return [entry.at for entry in delays._wheel.due(LATER_NS)]


def test_what_a_full_look_finds_is_taken_up_in_bounded_steps(real: Any) -> None:
    real.client.publish_many([b"x"] * 3 * BATCH, delay_ns=DELAY_NS)
    delays = Delays({11: real})
    while real.core.delayed_pop() is not None:
        pass  # by a supervisor that died
    grown = []
    for first in range(0, 4 * BATCH, BATCH):
        delays.adopt(real, real.core.scan(DELAYED, first, BATCH), 0)
        grown.append(len(delays))

    assert all(after - before <= BATCH for before, after in zip([0, *grown], grown, strict=False))
    assert grown[-1] == 3 * BATCH


def test_what_the_ring_had_is_not_taken_up_again(real: Any) -> None:
    real.client.publish_many([b"x"] * 5, delay_ns=DELAY_NS)
    delays = Delays({11: real})
    delays.step(real, 0)
    for _ in range(2):
        delays.adopt(real, real.core.scan(DELAYED), 0)

    assert sorted(known(delays)) == sorted(real.core.scan(DELAYED))


def test_one_that_was_taken_out_and_is_not_due_is_known_again(real: Any) -> None:
    real.client.publish(b"x", delay_ns=DELAY_NS)
    delays = Delays({11: real})
    delays.step(real, 0)
    ((_, at),) = delays.due(LATER_NS)
    assert delays.fire(real, at, 1) == 0
    delays.adopt(real, [at], 1)

    assert known(delays) == [at]


def test_entries_of_a_queue_that_is_gone_fire_nothing(real: Any) -> None:
    real.client.publish(b"x", delay_ns=DELAY_NS)
    queues = {11: real}
    delays = Delays(queues)
    delays.step(real, 0)
    del queues[11]
    delays.forget(real)

    assert delays.due(LATER_NS) == []
    assert delays.next_due() is None
