"""Queues, exchanges, bindings, and what is refused: the same errors in each mode, each within a second."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shmq
from support.deadline import scaled


@pytest.fixture(autouse=True)
def in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """No error takes longer than a second."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < scaled(2), request.node.name


@pytest.mark.rule("QUEUE-5", "QUEUE-7")
def test_declaring_again_is_a_check(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    queue = new_queue(max_priority=3)
    conn.publish(b"x", routing_key=queue, confirm="memory")

    assert conn.declare_queue(queue, max_priority=3) == (queue, 1, 0)
    assert conn.declare_queue(queue, arguments={"x-max-priority": 3}).messages == 1
    with pytest.raises(shmq.PreconditionFailed) as caught:
        conn.declare_queue(queue, max_priority=4)
    assert "max-priority" in caught.value.argument or "max_priority" in caught.value.argument


@pytest.mark.rule("QUEUE-1")
def test_times_of_a_queue_are_seconds(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    queue = new_queue(message_ttl=1.5, ack_timeout=30)

    definition = conn.queue_info(queue).definition
    assert (definition.message_ttl_ms, definition.ack_timeout_ms) == (1500, 30_000)
    assert conn.declare_queue(queue, arguments={"x-message-ttl": 1500, "x-consumer-timeout": 30_000}).name == queue
    with pytest.raises(shmq.InvalidArgument, match="a number of seconds"):
        conn.declare_queue("wrong", ack_timeout=-1)


@pytest.mark.rule("QUEUE-8")
def test_the_broker_makes_a_name(conn: shmq.Connection) -> None:
    name = conn.declare_queue("", exclusive=True).name

    assert name.startswith("amq.gen-")
    conn.delete_queue(name)


@pytest.mark.rule("QUEUE-6")
def test_passive_only_looks(conn: shmq.Connection, queue: str) -> None:
    assert conn.declare_queue(queue, passive=True).name == queue
    with pytest.raises(shmq.NotFound):
        conn.declare_queue("there-is-none", passive=True)


@pytest.mark.rule("NAME-1", "NAME-2")
@pytest.mark.parametrize("name", ["a\0b", "a\nb", "x" * 256, "amq.mine"])
def test_bad_names_are_refused(conn: shmq.Connection, name: str) -> None:
    with pytest.raises((shmq.InvalidName, shmq.AccessRefused)):
        conn.declare_queue(name)


@pytest.mark.rule("ERROR-1")
def test_the_session_survives_a_refusal(conn: shmq.Connection, queue: str) -> None:
    with pytest.raises(shmq.NotFound):
        conn.queue_info("there-is-none")

    assert conn.queue_info(queue).definition.name == queue


@pytest.mark.rule("PRIORITY-1")
@pytest.mark.parametrize("priority", [-1, 256, 1.5, "9", None, True])
def test_a_bad_priority_is_refused(conn: shmq.Connection, queue: str, priority: object) -> None:
    with pytest.raises(shmq.InvalidArgument):
        conn.publish(b"", routing_key=queue, priority=priority)  # type: ignore[arg-type] # that is the point


@pytest.mark.rule("ERROR-3")
@pytest.mark.parametrize(
    "keywords",
    [
        {"expiration": -1},
        {"expiration": "5"},
        {"delay": -0.1},
        {"delay": float("nan")},
        {"timeout": None},
        {"headers": {1: 2}},
        {"headers": {"a": object()}},
        {"confirm": "maybe"},
        {"message_id": 7},
        {"mesage_id": "typo"},
    ],
)
def test_bad_keywords_are_refused(conn: shmq.Connection, queue: str, keywords: dict[str, object]) -> None:
    with pytest.raises((shmq.InvalidArgument, TypeError)):
        conn.publish(b"", routing_key=queue, **keywords)  # type: ignore[arg-type] # that is the point

    assert conn.get(queue) is None


@pytest.mark.rule("PUBLISH-2")
def test_disk_confirms_are_refused_without_a_journal(conn: shmq.Connection, queue: str) -> None:
    with pytest.raises(shmq.NotDurable):
        conn.publish(b"", routing_key=queue, confirm="disk")


@pytest.mark.rule("ERROR-2")
@pytest.mark.parametrize("call", ["get", "get_batch", "consume", "purge_queue", "queue_info"])
def test_an_unknown_queue_is_not_found(conn: shmq.Connection, call: str) -> None:
    with pytest.raises(shmq.NotFound) as caught:
        getattr(conn, call)("there-is-none")

    assert "there-is-none" in str(caught.value)


@pytest.mark.rule("ROUTE-16")
def test_an_unroutable_message_is_dropped_unless_it_is_mandatory(conn: shmq.Connection) -> None:
    conn.publish(b"", routing_key="there-is-none", confirm="memory")

    with pytest.raises(shmq.Unroutable):
        conn.publish(b"", routing_key="there-is-none", mandatory=True)


@pytest.mark.rule("ROUTE-20", "ERROR-2")
def test_an_unknown_exchange_is_not_found(conn: shmq.Connection) -> None:
    with pytest.raises(shmq.NotFound):
        conn.publish(b"", exchange="there-is-none", routing_key="k", confirm="memory")


@pytest.mark.rule("PUBLISH-3")
def test_a_body_that_can_never_fit_is_refused(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    queue = new_queue(capacity_bytes=1_000_000)

    with pytest.raises(shmq.BodyTooLarge) as caught:
        conn.publish(bytes(20_000_000), routing_key=queue, confirm="memory")

    assert caught.value.size == 20_000_000
    assert 0 < caught.value.limit < 20_000_000
    assert conn.get(queue) is None


def fill(conn: shmq.Connection, queue: str) -> None:
    with contextlib.suppress(shmq.QueueFull):
        while True:
            conn.publish(b"x", routing_key=queue, timeout=0, confirm="memory")


@pytest.mark.rule("PUBLISH-7")
def test_a_full_queue_refuses_after_the_timeout(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    queue = new_queue(capacity_messages=16)
    fill(conn, queue)

    start = time.monotonic()
    with pytest.raises(shmq.QueueFull) as caught:
        conn.publish(b"x", routing_key=queue, timeout=0.2, confirm="memory")

    assert 0.19 < time.monotonic() - start < 1
    assert caught.value.depth == caught.value.limit >= 16
    assert queue in str(caught.value)


@pytest.mark.rule("PUBLISH-2")
def test_waiting_for_confirms_tells_of_a_publish_that_found_no_room(
    conn: shmq.Connection, new_queue: Callable[..., str]
) -> None:
    queue = new_queue(capacity_messages=16)
    fill(conn, queue)

    with pytest.raises(shmq.QueueFull):  # noqa: PT012 - direct mode knows at once
        conn.publish(b"x", routing_key=queue, timeout=0.3)
        conn.wait_for_confirms()


@pytest.mark.rule("PUBLISH-7")
def test_a_publisher_goes_on_when_there_is_room(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    queue = new_queue(capacity_messages=16)
    fill(conn, queue)
    message = conn.get(queue)
    assert message is not None
    message.ack()

    conn.publish(b"x", routing_key=queue, timeout=0.5, confirm="memory")


@pytest.mark.rule("QUEUE-12", "QUEUE-13")
def test_purge_and_delete_count(conn: shmq.Connection, queue: str) -> None:
    conn.publish_many([b"x"] * 7, routing_key=queue, confirm="memory")
    assert conn.purge_queue(queue) == 7
    conn.publish_many([b"x"] * 3, routing_key=queue, confirm="memory")

    with pytest.raises(shmq.PreconditionFailed):
        conn.delete_queue(queue, if_empty=True)
    assert conn.delete_queue(queue) == 3


@pytest.mark.rule("QUEUE-14")
def test_a_deleted_queue_may_be_declared_anew(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"old", routing_key=queue, confirm="memory")
    conn.delete_queue(queue)
    conn.declare_queue(queue)
    conn.publish(b"new", routing_key=queue, confirm="memory")

    message = conn.get(queue, timeout=1)

    assert message is not None
    assert message.body == b"new"
    message.ack()


def test_queues_are_listed(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    names = {new_queue() for _ in range(5)}

    assert names <= {info.definition.name for info in conn.queues()}


def test_queue_info_tells_how_long_messages_took(conn: shmq.Connection, queue: str) -> None:
    assert conn.queue_info(queue).time_in_queue.count == 0
    conn.publish_many([b"x"] * 10, routing_key=queue, confirm="memory")
    time.sleep(0.05)  # the time that they must have taken
    conn.ack_many(conn.get_batch(queue, max_messages=9))

    conn.wait_for_confirms()
    info = conn.queue_info(queue)

    assert (info.time_in_queue.count, info.time_to_ack.count) == (9, 9)
    assert 0.05e9 <= info.time_in_queue.p50_ns <= info.time_in_queue.p99_ns
    assert info.time_to_ack.p99_ns < scaled(5) * 1e9


def test_queue_info_tells_the_mode(conn: shmq.Connection, queue: str, mode: str) -> None:
    assert conn.queue_info(queue).mode == mode


@pytest.mark.rule("ROUTE-1")
def test_a_direct_exchange_routes_by_key(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    one, other = new_queue(), new_queue()
    conn.declare_exchange("images")
    conn.bind_queue(one, "images", "new")
    conn.bind_queue(other, "images", "new")
    conn.bind_queue(other, "images", "old")

    conn.publish(b"n", exchange="images", routing_key="new", confirm="memory")
    conn.publish(b"o", exchange="images", routing_key="old", confirm="memory")
    first = [message.body for message in conn.get_batch(one, no_ack=True)]
    second = [message.body for message in conn.get_batch(other, no_ack=True)]

    assert (first, second) == ([b"n"], [b"n", b"o"])
    conn.delete_exchange("images")


@pytest.mark.rule("ROUTE-17")
def test_a_route_follows_its_bindings(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    queue = new_queue()
    conn.declare_exchange("follow")
    conn.publish(b"0", exchange="follow", routing_key="k", confirm="memory")
    conn.bind_queue(queue, "follow", "k")
    conn.publish(b"1", exchange="follow", routing_key="k", confirm="memory")
    conn.unbind_queue(queue, "follow", "k")
    conn.publish(b"2", exchange="follow", routing_key="k", confirm="memory")

    message = conn.get(queue, no_ack=True)
    assert message is not None
    assert (message.body, message.exchange, message.routing_key) == (b"1", "follow", "k")
    assert conn.get(queue) is None
    with pytest.raises(shmq.Unroutable):
        conn.publish(b"3", exchange="follow", routing_key="k", mandatory=True)
    conn.delete_exchange("follow")


@pytest.mark.rule("ROUTE-3")
def test_the_default_exchange_cannot_be_changed(conn: shmq.Connection, queue: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: conn.declare_exchange(""),
        lambda: conn.declare_exchange("", passive=True),
        lambda: conn.delete_exchange(""),
        lambda: conn.bind_queue(queue, "", "k"),
        lambda: conn.unbind_queue(queue, "", queue),
        lambda: conn.bind_exchange("amq.fanout", "", "k"),
        lambda: conn.bind_exchange("", "amq.fanout", "k"),
        lambda: conn.unbind_exchange("", "amq.fanout", "k"),
    ]
    for call in calls:
        with pytest.raises(shmq.AccessRefused, match="default exchange"):
            call()


@pytest.mark.rule("QUEUE-12", "ROUTE-11")
def test_what_is_not_there_is_deleted_and_unbound_without_a_word(conn: shmq.Connection, queue: str) -> None:
    assert conn.delete_queue("there-is-none", if_unused=True, if_empty=True) == 0
    conn.delete_exchange("there-is-none", if_unused=True)
    conn.unbind_queue(queue, "there-is-none", "k")
    conn.unbind_queue("there-is-none", "amq.direct", "k")
    conn.unbind_queue(queue, "amq.direct", "never bound")
    conn.unbind_exchange("there-is-none", "amq.direct", "k")

    assert conn.queue_info(queue).messages == 0


@pytest.mark.rule("QUEUE-9")
def test_an_exclusive_queue_is_its_connections(conn: shmq.Connection, connect: Callable[[], shmq.Connection]) -> None:
    owner = connect()
    owner.declare_queue("mine", exclusive=True)
    with pytest.raises(shmq.ResourceLocked):
        conn.get("mine")

    owner.close()

    with pytest.raises(shmq.NotFound):
        conn.get("mine")


@pytest.mark.rule("CONSUME-7")
def test_a_consumer_tag_is_used_once(conn: shmq.Connection, queue: str) -> None:
    consumer = conn.consume(queue, consumer_tag="t")

    with pytest.raises(shmq.NotAllowed):
        conn.consume(queue, consumer_tag="t")
    consumer.cancel()
    with pytest.raises(shmq.NotFound):
        conn.cancel("unknown")


@pytest.mark.rule("ERROR-4")
def test_a_closed_connection_says_so(connect: Callable[[], shmq.Connection], queue: str) -> None:
    closed = connect()
    closed.publish(b"x", routing_key=queue, confirm="memory")
    closed.close()
    closed.close()

    for call in (lambda: closed.publish(b"", routing_key=queue), lambda: closed.get(queue), closed.status):
        with pytest.raises(shmq.ConnectionClosed):
            call()


@pytest.mark.rule("ERROR-4")
@pytest.mark.parametrize("work", ["consume", "get", "get_batch", "publish"])
def test_a_call_that_waits_when_its_connection_is_closed_says_so(
    connect: Callable[[], shmq.Connection], mode: str, new_queue: Callable[..., str], work: str
) -> None:
    closing, queue = connect(), new_queue(capacity_messages=1)
    if work == "publish":
        fill(closing, queue)
    calls: dict[str, Callable[[], object]] = {
        "consume": lambda: next(iter(closing.consume(queue))),
        "get": lambda: closing.get(queue, timeout=30),
        "get_batch": lambda: closing.get_batch(queue, max_wait=30),
        "publish": lambda: closing.publish(b"x", routing_key=queue, timeout=30, confirm="memory"),
    }
    timer = threading.Timer(0.1, closing.close)
    timer.start()

    with pytest.raises(shmq.ConnectionLost if (work, mode) == ("publish", "socket") else shmq.ConnectionClosed):
        calls[work]()
    timer.join()


def test_status_says_what_survives(conn: shmq.Connection) -> None:
    report = conn.status()

    assert report.durability == "memory"
    assert {process.role for process in report.processes} >= {"broker", "supervisor"}


@pytest.fixture
def going_queue(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], new_queue: Callable[..., str]
) -> Iterator[str]:
    """Give a full queue that will be gone in a moment."""
    name, other = new_queue(capacity_messages=1), connect()
    conn.publish(b"x", routing_key=name, confirm="memory")
    timer = threading.Timer(0.2, other.delete_queue, [name])
    timer.start()
    yield name
    timer.join()


def test_a_mandatory_publish_whose_queue_goes_while_it_waits_is_told(conn: shmq.Connection, going_queue: str) -> None:
    with pytest.raises((shmq.Unroutable, shmq.NotFound)):
        conn.publish(b"y", routing_key=going_queue, mandatory=True, confirm="memory", timeout=scaled(5))


def test_a_loan_of_a_queue_that_goes_while_it_waits_is_lent_all_the_same(
    conn: shmq.Connection, going_queue: str
) -> None:
    with conn.loan(3, routing_key=going_queue, timeout=scaled(5)) as buffer:
        buffer[:] = b"abc"

    with contextlib.suppress(shmq.NotFound):  # of what waited at the broker
        conn.wait_for_confirms()


def test_an_exchange_that_is_no_text_is_refused_here(conn: shmq.Connection, queue: str) -> None:
    with pytest.raises(shmq.InvalidName):
        conn.publish(b"x", exchange=None, routing_key=queue)  # type: ignore[arg-type] # what is refused


@pytest.mark.parametrize("arguments", [{"a": [1]}, {"a": b"bytes"}, {1: "a"}, {"a": 1 << 70}, {"a": "x" * 5000}])
def test_arguments_of_a_binding_that_cannot_travel_are_refused_here(
    conn: shmq.Connection, queue: str, arguments: dict[str, Any]
) -> None:
    for call in (conn.bind_queue, conn.unbind_queue):
        with pytest.raises(shmq.InvalidArgument, match="64-bit"):
            call(queue, "amq.direct", "key", arguments=arguments)
