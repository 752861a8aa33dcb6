"""Fork: in a child its parent's handles are dead, say so, and harm nothing when they go."""

import gc
import os
from collections.abc import Callable

import pytest

from shmq import core
from shmq.errors import ForkedHandle
from support.segments import Segment, run_in_child

LARGE = b"x" * 100_000


class Held:
    """All kinds of objects that a process may hold when it forks."""

    def __init__(self, small: Segment) -> None:
        self.queue = small.attach(32)
        self.queue.publish_many([LARGE] * 4)
        self.queue.publish(b"small")
        consumer = core.Consumer([self.queue], 0, no_ack=False, on_empty=lambda: False)
        self.unread, self.viewed, self.kept, self.read, self.small = consumer
        self.view = self.viewed.view()
        self.kept.ack()
        self.body = self.read.body
        loan = self.queue.loan(100_000)
        assert isinstance(loan, core.Loan)
        self.loan = loan
        self.consumer = consumer
        self.publisher = core.Publisher(lambda *_a, **_k: None)
        self.publisher.routes["jobs"] = self.queue


CALLS: list[Callable[[Held], object]] = [
    lambda h: h.queue.publish(b""),
    lambda h: h.queue.publish(LARGE),
    lambda h: h.queue.loan(1),
    lambda h: h.queue.take(),
    lambda h: h.queue.take_many(1),
    lambda h: h.queue.stats(),
    lambda h: h.queue.heal(),
    lambda h: h.queue.reap(1, count_failure=False),
    lambda h: h.queue.bell_register(0),
    lambda h: h.queue.set_bells((-1, -1, -1), 0),
    lambda h: h.queue.deleted,
    lambda h: core.wait([h.queue], 0, 0),
    lambda h: h.unread.body,
    lambda h: h.unread.view(),
    lambda h: h.unread.is_current,
    lambda h: h.small.ack(),
    lambda h: h.small.nack(),
    lambda h: h.small.reject(),
    lambda h: h.small.touch(1),
    lambda h: h.kept.body,
    lambda h: h.loan.commit(),
    lambda h: h.loan.abort(),
    lambda h: h.loan.view(),
    lambda h: next(h.consumer),
]


@pytest.fixture
def held(small: Segment) -> Held:
    return Held(small)


def test_every_entry_point_raises_in_a_forked_child(held: Held) -> None:
    def call_all() -> None:
        for call in CALLS:
            with pytest.raises(ForkedHandle):
                call(held)

    run_in_child(call_all)


def test_what_is_private_can_still_be_read_in_a_forked_child(held: Held) -> None:
    def read() -> None:
        assert (held.small.body, held.read.body, held.small.priority) == (b"small", LARGE, 0)
        assert held.queue.owner == 32

    run_in_child(read)


def test_a_publisher_in_a_forked_child_calls_its_fallback(held: Held) -> None:
    def publish() -> None:
        calls: list[bytes] = []
        publisher = core.Publisher(lambda body, **_keywords: calls.append(bytes(body)))
        publisher.routes = held.publisher.routes
        publisher(b"body", routing_key="jobs")
        assert calls == [b"body"]

    run_in_child(publish)


def test_the_end_of_everything_in_a_forked_child_changes_nothing(small: Segment, held: Held) -> None:
    size = core.segment_bytes(small.geometry)
    before = os.pread(small.fd, size, 0)

    def drop_all() -> None:
        held.view.release()
        held.queue.close()
        vars(held).clear()
        small.forget()
        gc.collect()

    run_in_child(drop_all)

    assert os.pread(small.fd, size, 0) == before
    assert held.unread.body == held.view == LARGE
    held.unread.ack()
    assert held.loan.commit() == core.OK
    assert held.kept.body == LARGE


def test_the_descriptors_of_the_parent_stay_open(held: Held) -> None:
    run_in_child(held.queue.close)

    os.fstat(held.queue.bell_fd(core.CONSUMERS))
    assert held.queue.publish(b"") == core.OK


def test_a_child_works_with_a_handle_of_its_own(small: Segment, held: Held) -> None:
    def work() -> None:
        mine = small.attach(33)
        assert mine.publish(b"from the child") == core.OK

    run_in_child(work)

    message = held.queue.take()
    assert message is not None
    assert message.body == b"from the child"


def test_a_grandchild_is_forked_too(held: Held) -> None:
    def fork_again() -> None:
        def take() -> None:
            with pytest.raises(ForkedHandle):
                held.queue.take()

        run_in_child(take)

    run_in_child(fork_again)
