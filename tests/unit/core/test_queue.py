"""Queue: how it begins and ends, bodies of every kind in and out, its words and statistics."""

import gc
import os
import sys
import weakref
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from shmq import core
from shmq.errors import DetachedQueue, LayoutMismatch
from support.segments import QUEUE_ID, SMALL, Segment, segment

LARGE = 1 << 20


def take(queue: core.Queue) -> core.Message:
    message = queue.take()
    assert message is not None
    return message


def closes_when_collected(queue: core.Queue) -> None:
    """Leave garbage whose end closes a queue."""

    class Closer:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            queue.close()

    Closer()


def settled_bodies(queue: core.Queue) -> list[bytes]:
    bodies = []
    while message := queue.take():
        bodies.append(message.body)
        message.ack()
    return bodies


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 4096, 65_535, 65_536, LARGE])
def test_a_body_comes_out_as_it_went_in(queue: core.Queue, size: int) -> None:
    body = os.urandom(size)

    assert queue.publish(body) == core.OK
    message = take(queue)

    assert (message.body, message.body_bytes, message.priority, message.redelivered) == (body, size, 0, False)
    message.ack()
    assert (message.state, message.body) == ("acked", body)
    assert queue.take() is None
    assert queue.check() == []


def test_a_body_of_100_mib_comes_out_as_it_went_in() -> None:
    with segment(1, 16, 64, 4, 128 << 20) as made:
        queue = made.attach(32)
        body = os.urandom(1 << 20) * 100

        assert queue.publish(body) == core.OK
        message = take(queue)

        assert message.body == body
        message.ack()
        assert queue.stats()["arena_used_bytes"] == 0


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="collects garbage between instructions only")
@pytest.mark.parametrize("begin", [core.Queue.take, lambda queue: queue.loan(8)])
def test_a_queue_that_the_garbage_collector_closes_hands_out_nothing(
    small: Segment, begin: Callable[[core.Queue], object]
) -> None:
    queue, other = small.attach(32), small.attach(33)
    refused = False
    spares = [other.publish(b"") == core.OK and other.take(no_ack=True) for _ in range(300)]
    queue.publish(b"")
    gc.collect()
    closes_when_collected(queue)
    gc.set_threshold(1)
    try:
        begin(queue)
    except DetachedQueue:
        refused = True
    finally:
        gc.set_threshold(700, 10, 10)

    states = other.count_states()
    assert refused
    assert all(spares)
    assert (states[core.READY], states[core.UNACKED], states[core.WRITING]) == (1, 0, 0)


@pytest.mark.parametrize("size", [12, LARGE])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda body: array("B", body)])
def test_any_contiguous_buffer_is_a_body(queue: core.Queue, kind: Callable[[bytes], Any], size: int) -> None:
    body = os.urandom(size)

    assert queue.publish(kind(body)) == core.OK

    assert settled_bodies(queue) == [body]


def test_a_message_is_a_body_too(queue: core.Queue) -> None:
    queue.publish(b"x" * LARGE)
    message = take(queue)

    assert queue.publish(message) == core.OK

    message.ack()
    assert settled_bodies(queue) == [b"x" * LARGE]


def test_a_buffer_with_gaps_is_refused(queue: core.Queue) -> None:
    with pytest.raises(BufferError):
        queue.publish(memoryview(b"abcdef")[::2])
    with pytest.raises(TypeError):
        queue.publish("text")  # type: ignore[arg-type] # what is refused

    assert queue.stats()["published"] == 0


def test_metadata_travel_with_the_message() -> None:
    with segment(10, 64, 256, 4, 16 << 20) as made:
        queue = made.attach(32)
        before = core.monotonic_ns()
        queue.publish(b"low", level=0)
        queue.publish(b"high", 200, b"envelope", 10**12, flags=core.PERSISTENT)

        first, second = take(queue), take(queue)

        assert (first.body, first.priority, first.envelope, first.flags) == (b"high", 200, b"envelope", core.PERSISTENT)
        assert first.expires_ns > before + 10**12
        assert (second.body, second.priority, second.envelope, second.expires_ns) == (b"low", 0, b"", 0)
        assert before < second.sequence < first.sequence
        assert (second.delivery_count, second.failure_count) == (1, 0)


def test_a_large_body_has_its_envelope(queue: core.Queue) -> None:
    queue.publish(b"x" * LARGE, envelope=b"e" * core.ENVELOPE_BYTES_MAX)

    message = take(queue)

    assert message.envelope == b"e" * core.ENVELOPE_BYTES_MAX
    assert message.body == b"x" * LARGE


def test_outcomes_are_answers_not_errors(queue: core.Queue) -> None:
    assert queue.publish(bytes(SMALL[4] + 1)) == core.TOO_LARGE
    assert [queue.publish(b"") for _ in range(SMALL[1])] == [core.OK] * SMALL[1]
    assert queue.publish(b"") == core.FULL
    assert queue.loan(1) == core.FULL

    queue.mark_deleted()

    assert queue.deleted
    assert queue.publish(b"") == core.DELETED


def test_publish_many_stops_where_one_does_not_go(queue: core.Queue) -> None:
    bodies = [b"%d" % i for i in range(100)]

    assert queue.publish_many(bodies, start=10) == (64, core.FULL)
    assert [m.body for m in queue.take_many(1000)] == bodies[10:74]
    assert queue.publish_many([], level=0) == (0, core.OK)
    assert queue.publish_many(bodies, start=1000) == (0, core.OK)


def test_no_ack_settles_at_delivery(queue: core.Queue) -> None:
    queue.publish(b"small", envelope=b"e")
    queue.publish(b"x" * LARGE)

    small, large = queue.take_many(2, no_ack=True)

    assert (small.state, small.body, small.envelope, large.body) == ("auto", b"small", b"e", b"x" * LARGE)
    large.ack()
    assert not large.is_current
    assert queue.count_states()[core.FREE] == 2
    assert queue.stats()["acked"] == 2


def test_a_clean_close_requeues_what_was_unacked(small: Segment, queue: core.Queue) -> None:
    queue.publish_many([b"1", b"2", b"3"])
    held = queue.take_many(3)

    assert queue.requeue_owned() == 3

    other = small.attach(33)
    again = other.take_many(3)
    assert [(m.body, m.redelivered, m.failure_count) for m in again] == [(m.body, True, 0) for m in held]


@pytest.mark.parametrize(
    ("index", "value", "field"),
    [
        (0, 0, "levels"),
        (0, 257, "levels"),
        (1, 0, "slots"),
        (1, 1 << 23, "slots"),
        (2, 63, "inline_bytes"),
        (3, 3, "ring_entries"),
        (3, 48, "ring_entries"),
        (4, 1000, "arena_bytes"),
        (4, -1, "arena_bytes"),
    ],
)
def test_a_geometry_out_of_range_is_named(index: int, value: int, field: str) -> None:
    numbers = list(SMALL)
    numbers[index] = value
    levels, slots, inline_bytes, ring_entries, arena_bytes = numbers

    with pytest.raises(ValueError, match=f"{field} is {value}"):
        core.segment_bytes((levels, slots, inline_bytes, ring_entries, arena_bytes))


def test_a_foreign_segment_is_refused_and_the_descriptors_stay_the_callers(small: Segment) -> None:
    with pytest.raises(LayoutMismatch):
        core.Queue(small.fd, (2, *SMALL[1:]), 32, queue_id=QUEUE_ID)
    with pytest.raises(LayoutMismatch):
        core.Queue(small.fd, SMALL, 32, queue_id=QUEUE_ID + 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.Queue(1 << 20, SMALL, 32)

    os.fstat(small.fd)


@pytest.mark.parametrize("attribute", [{}, {"__slots__": ("extra",)}, {"__slots__": (), "__del__": print}])
def test_a_message_type_that_adds_to_a_message_is_refused(small: Segment, attribute: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="message_type"):
        small.attach(32, message_type=type("Wrong", (core.Message,), attribute))


def test_a_message_type_of_ones_own_adds_properties(small: Segment) -> None:
    class Delivery(core.Message):
        __slots__ = ()

        @property
        def shout(self) -> bytes:
            return self.body.upper() + bytes(self.queue.context)

    queue = small.attach(32, message_type=Delivery, context=b"!")
    queue.publish(b"hello")

    message = take(queue)

    assert isinstance(message, Delivery)
    assert message.shout == b"HELLO!"
    with pytest.raises(TypeError):
        Delivery()


def test_after_close_everything_that_is_shared_raises(small: Segment, queue: core.Queue) -> None:
    queue.publish(b"x" * LARGE)
    queue.publish(b"small")
    large, little = queue.take_many(2)
    queue.close()
    queue.close()

    for call in (queue.take, queue.stats, large.ack, large.nack, large.view, lambda: queue.publish(b"")):
        with pytest.raises(DetachedQueue):
            call()
    with pytest.raises(DetachedQueue):
        _ = large.body
    with pytest.raises(DetachedQueue):
        core.wait([queue], core.CONSUMERS, 0)
    assert (queue.closed, little.body, queue.geometry) == (True, b"small", SMALL)
    assert small.attach(33).count_states()[core.UNACKED] == 2


def test_close_gives_the_descriptors_back_and_the_last_view_the_mapping(small: Segment) -> None:
    queue = small.attach(32)
    queue.publish(b"x" * LARGE)
    view = take(queue).view()
    fd = queue.bell_fd(core.CONSUMERS)
    queue.close()
    gone = weakref.ref(queue)
    small.forget()
    del queue

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert gone() is not None
    assert bytes(view[-3:]) == b"xxx"
    view.release()
    assert gone() is None


def test_a_queue_is_collected_with_what_refers_to_it(small: Segment) -> None:
    class Connection:
        queue: core.Queue

    connection = Connection()
    connection.queue = small.attach(32, context=connection)
    small.forget()
    gone = weakref.ref(connection)
    del connection
    gc.collect()

    assert gone() is None


def test_a_read_only_handle_reads_statistics_and_nothing_else(small: Segment, queue: core.Queue) -> None:
    queue.publish(b"hello")
    reader = small.attach(0, read_only=True)

    for call in (reader.take, lambda: reader.publish(b""), lambda: reader.loan(1), reader.heal, reader.purge):
        with pytest.raises(PermissionError, match="read-only"):
            call()
    with pytest.raises(PermissionError):
        core.wait([reader], core.CONSUMERS, 0)
    (slot, ctl) = reader.scan(core.READY)[0]
    snapshot = reader.peek(slot, ctl)
    assert snapshot is not None
    assert (snapshot.body, reader.stats()["ready"], reader.check()) == (b"hello", 1, [])


def test_the_owner_changes_only_while_nothing_is_under_way(queue: core.Queue) -> None:
    loan = queue.loan(10)
    assert isinstance(loan, core.Loan)
    with pytest.raises(ValueError, match="loan"):
        queue.set_owner(40)
    loan.abort()

    queue.set_owner(40)

    queue.publish(b"")
    assert (queue.owner, take(queue).state) == (40, "unacked")
    assert queue.scan(core.UNACKED)[0][1] >> 20 & 0xFFFF == 40


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda q: q.publish(), TypeError),
        (lambda q: q.publish(b"", body=b""), TypeError),
        (lambda q: q.publish(b"", size=1), TypeError),
        (lambda q: q.publish(b"", -1), ValueError),
        (lambda q: q.publish(b"", envelope="text"), TypeError),
        (lambda q: q.publish(b"", envelope=bytes(65_536)), ValueError),
        (lambda q: q.publish(b"", delay_ns=-1), ValueError),
        (lambda q: q.publish(b"", flags=256), ValueError),
        (lambda q: q.publish(b"", 1 << 80), ValueError),
        (lambda q: q.loan(-1), ValueError),
        (lambda q: q.take_many(-1), ValueError),
        (lambda q: q.set_owner(65_536), ValueError),
        (lambda q: q.set_limits(delivery_limit=255), ValueError),
        (lambda q: q.bell_fd(2), ValueError),
        (lambda q: q.histogram("other"), ValueError),
        (lambda q: q.reap_except(b"", count_failure=True), ValueError),
        (lambda q: q.reap(1), TypeError),
        (lambda q: q.peek(64, 0), ValueError),
        (lambda q: q.peek(1), TypeError),
        (lambda q: q.__init__(0, SMALL, 1), RuntimeError),
    ],
)
def test_arguments_out_of_range_are_refused(queue: core.Queue, call: Callable[[Any], object], error: type) -> None:
    with pytest.raises(error):
        call(queue)


def test_histograms_count_what_went_through(queue: core.Queue) -> None:
    for _ in range(10):
        queue.publish(b"")
        take(queue).ack()

    assert sum(queue.histogram("queue")) == 10
    assert sum(queue.histogram("ack")) == 10
    bounds = queue.histogram_bounds()
    assert len(bounds) == len(queue.histogram("queue"))
    assert bounds == sorted(bounds)
