"""core.Ledger: tags, what is kept under them, windows within windows; and the descriptor that is many."""

import gc
import os
import select
import weakref
from collections.abc import Iterator

import pytest

from shmq import core
from shmq.errors import AlreadySettled, StaleDelivery
from support.segments import segment


class Delivery:
    """What came by another way than a segment."""


@pytest.fixture
def queue() -> Iterator[core.Queue]:
    with segment() as made:
        queue = made.attach(33)
        for number in range(10):
            assert queue.publish(b"%d" % number) == core.OK
        yield queue


def consumer(queue: core.Queue, ledger: core.Ledger, *, prefetch: int = 0, no_ack: bool = False) -> core.Consumer:
    return core.Consumer((queue,), prefetch, no_ack, lambda: False, ledger)


def test_deliveries_are_numbered_and_kept_until_they_are_settled(queue: core.Queue) -> None:
    ledger = core.Ledger()
    taking = consumer(queue, ledger)
    tags = [next(taking).delivery_tag for _ in range(3)]

    assert (tags, ledger.last_tag, len(ledger), ledger.counted) == ([1, 2, 3], 3, 3, 3)
    assert [message.body for message in ledger.up_to(2)] == [b"0", b"1"]
    ledger.find(2).ack()
    assert ledger.find(2) is None
    ledger.find(1).nack()
    ledger.find(3).reject()
    assert (len(ledger), ledger.counted, ledger.last_tag) == (0, 0, 3)


def test_what_needs_no_ack_gets_a_tag_alone(queue: core.Queue) -> None:
    ledger = core.Ledger()
    ledger.prefetch = 1
    taking = consumer(queue, ledger, no_ack=True)

    assert [next(taking).delivery_tag for _ in range(3)] == [1, 2, 3]
    assert (len(ledger), ledger.counted) == (0, 0)


def test_a_window_stops_its_consumers_and_tells_when_there_is_room(queue: core.Queue) -> None:
    ledger = core.Ledger()
    told: list[int] = []
    ledger.on_room = lambda: told.append(ledger.counted)
    ledger.prefetch = 2
    one, other = consumer(queue, ledger), consumer(queue, ledger, prefetch=5)
    first = next(one)
    next(other)

    assert (list(one), other.take(), one.has_room, ledger.has_room, told) == ([], None, False, False, [])
    first.ack()
    assert (one.has_room, told) == (True, [1])
    ledger.prefetch = 1
    assert not ledger.has_room
    ledger.prefetch = 0
    assert (ledger.has_room, told) == (True, [1, 1])


def test_a_consumer_tells_when_its_own_prefetch_has_room(queue: core.Queue) -> None:
    told: list[bool] = []
    taking = consumer(queue, core.Ledger(), prefetch=1)
    taking.on_room = lambda: told.append(taking.has_room)
    message = taking.take()
    assert message is not None
    assert taking.take() is None

    message.ack()

    assert told == [True]


def test_an_error_of_who_is_told_is_nobody_elses(queue: core.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: shown.append(what.exc_type))
    ledger = core.Ledger()
    ledger.prefetch, ledger.on_room = 1, lambda: 1 / 0
    message = next(consumer(queue, ledger))

    message.ack()

    assert shown == [ZeroDivisionError]
    with pytest.raises(AlreadySettled):
        message.ack()


def test_a_ledger_in_another_one_counts_in_both_and_tags_are_the_roots(queue: core.Queue) -> None:
    root = core.Ledger()
    inner, beside = core.Ledger(root), core.Ledger(root)
    root.prefetch, inner.prefetch = 3, 2
    taking, others = consumer(queue, inner), consumer(queue, beside)
    mine = [taking.take(), taking.take(), taking.take()]
    assert mine[2] is None
    theirs = [others.take(), others.take()]
    assert theirs[1] is None

    assert [message.delivery_tag for message in (*mine[:2], theirs[0]) if message] == [1, 2, 3]
    assert (root.counted, inner.counted, beside.counted, len(root)) == (3, 2, 1, 3)
    root.find(1).ack()
    assert (root.counted, inner.counted, root.has_room, inner.has_room) == (2, 1, True, True)


def test_other_deliveries_are_kept_too_and_say_when_they_leave() -> None:
    ledger = core.Ledger()
    ledger.prefetch = 1
    one, other = Delivery(), Delivery()
    assert (ledger.enter(one), ledger.enter(None), ledger.enter(other, counted=False)) == (1, 2, 3)

    assert ledger.up_to(9) == [one, other]
    assert (ledger.counted, ledger.has_room) == (1, False)
    assert ledger.leave(1)
    assert not ledger.leave(1)
    assert not ledger.leave(2)
    assert (ledger.counted, ledger.has_room, ledger.find(3)) == (0, True, other)


def test_a_message_is_entered_once(queue: core.Queue) -> None:
    ledger = core.Ledger()
    message = queue.take()
    assert ledger.enter(message, counted=False) == 1
    with pytest.raises(ValueError, match="in a ledger"):
        ledger.enter(message)

    assert (ledger.counted, len(ledger)) == (0, 1)


def test_a_delivery_that_went_stale_leaves_when_that_is_found_out(queue: core.Queue) -> None:
    ledger = core.Ledger()
    message = next(consumer(queue, ledger))
    assert queue.requeue_owned() == 1

    with pytest.raises(StaleDelivery):
        message.ack()
    assert (len(ledger), ledger.counted) == (0, 0)


def test_what_is_forgotten_is_its_holders_alone(queue: core.Queue) -> None:
    ledger = core.Ledger()
    other = Delivery()
    message = next(consumer(queue, ledger))
    ledger.enter(other)

    assert ledger.forget() == [message, other]
    assert (len(ledger), ledger.find(1)) == (0, None)
    message.ack()
    assert message.delivery_tag == 1


def test_what_is_entered_while_others_are_forgotten_stays(queue: core.Queue) -> None:
    ledger = core.Ledger()
    ledger.prefetch = 1
    next(consumer(queue, ledger))
    late = queue.take()
    assert late is not None

    def on_room() -> None:
        ledger.on_room = None
        ledger.enter(late)

    ledger.on_room = on_room
    assert len(ledger.forget()) == 1
    assert (ledger.find(2), ledger.counted) == (late, 1)
    late.ack()
    assert (len(ledger), ledger.counted) == (0, 0)


def test_a_ledger_that_keeps_nothing_counts(queue: core.Queue) -> None:
    ledger = core.Ledger(keeps=False)
    ledger.prefetch = 1
    message = next(consumer(queue, ledger))

    assert (message.delivery_tag, ledger.counted, len(ledger), ledger.find(1)) == (0, 1, 0, None)
    assert ledger.up_to(9) == []
    message.ack()
    assert ledger.counted == 0


def test_nothing_is_left_when_it_was_forgotten(queue: core.Queue) -> None:
    ledger = core.Ledger()
    taking = consumer(queue, ledger)
    for _ in range(5):
        next(taking)
    kept = Delivery()
    gone = weakref.ref(kept)
    ledger.enter(kept)
    del kept
    ledger.forget()
    del ledger, taking
    gc.collect()

    assert gone() is None


def test_what_is_wrong_is_refused(queue: core.Queue) -> None:
    ledger = core.Ledger()
    with pytest.raises(TypeError):
        core.Ledger(1)  # type: ignore[arg-type] # what is refused
    with pytest.raises(TypeError):
        core.Consumer((queue,), 0, False, bool, 1)  # type: ignore[arg-type] # what is refused
    with pytest.raises(ValueError, match="prefetch"):
        ledger.prefetch = -1
    with pytest.raises(TypeError):
        ledger.enter()  # type: ignore[call-arg] # what is refused


def test_one_descriptor_is_readable_while_one_of_many_is() -> None:
    epoll, bells = core.epoll_open(), [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
    try:
        for bell in [*bells, *bells]:
            core.epoll_watch(epoll, bell, True)
        assert core.epoll_ready(epoll) == []
        os.eventfd_write(bells[1], 1)
        assert select.select([epoll], [], [], 0)[0] == [epoll]
        assert core.epoll_ready(epoll) == core.epoll_ready(epoll) == [bells[1]]
        core.epoll_watch(epoll, bells[1], False)
        core.epoll_watch(epoll, bells[1], False)
        assert core.epoll_ready(epoll) == []
        with pytest.raises(OSError, match="Bad file descriptor"):
            core.epoll_watch(epoll, 1 << 20, True)
        with pytest.raises(TypeError):
            core.epoll_watch(epoll)  # type: ignore[call-arg] # what is refused
    finally:
        for fd in (epoll, *bells):
            os.close(fd)
