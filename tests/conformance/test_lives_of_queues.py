"""Queues from their declaration to their end: what is told of them, what keeps them, what goes with them."""

import time
from collections.abc import Callable

import pytest

import shmq
from support.adapted import LoopThread, connect_adapted
from support.deadline import scaled, wait_until
from support.messages import WAIT, QueueMaker, ready_bodies, wait_for

Connect = Callable[[], shmq.Connection]


@pytest.mark.rule("NAME-3")
@pytest.mark.parametrize("tail", ["?virtual_host=other", "?virtual_host=", "#other"])
def test_there_is_one_virtual_host(broker: str, client: str, mode: str, loop: LoopThread, tail: str) -> None:
    def connect(url: str) -> shmq.Connection:
        if client == "asyncio":
            return connect_adapted(loop, url, mode=mode)
        return shmq.connect(url, mode=mode)  # type: ignore[arg-type] # one of its words

    connect(f"{broker}?virtual_host=/").close()
    with pytest.raises(shmq.InvalidArgument, match=r"virtual host|fragment"):
        connect(f"{broker}{tail}")
    with pytest.raises(shmq.InvalidArgument, match="no host or user"):
        connect(broker.replace("shmq://", "shmq://guest@localhost"))


@pytest.mark.rule("QUEUE-7", "CONSUME-11")
def test_declaring_tells_what_is_ready_and_who_consumes(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue()
    conn.publish_many([b"1", b"2", b"3"], routing_key=queue, confirm="memory")
    held = wait_for(conn, queue)
    assert conn.declare_queue(queue) == (queue, 2, 0)
    consumers = [conn.consume(queue, prefetch=1) for _ in range(2)]
    wait_until(lambda: conn.declare_queue(queue, passive=True).consumers == 2, "two consumers", WAIT)
    held.nack()
    for consumer in consumers:
        consumer.cancel()

    wait_until(lambda: conn.declare_queue(queue) == (queue, 3, 0), "no consumers", WAIT)


@pytest.mark.rule("QUEUE-12")
def test_a_queue_in_use_or_not_empty_is_not_deleted_when_that_was_asked(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    queue = new_queue()
    consumer = conn.consume(queue, prefetch=1)
    wait_until(lambda: conn.queue_info(queue).consumers == 1, "it consumes", WAIT)
    with pytest.raises(shmq.PreconditionFailed, match="in use"):
        conn.delete_queue(queue, if_unused=True)
    consumer.cancel()
    conn.publish(b"x", routing_key=queue, confirm="memory")
    with pytest.raises(shmq.PreconditionFailed, match="not empty"):
        conn.delete_queue(queue, if_empty=True)

    wait_until(lambda: conn.queue_info(queue).consumers == 0, "it is unused", WAIT)
    assert conn.delete_queue(queue, if_unused=True) == 1
    with pytest.raises(shmq.NotFound):
        conn.queue_info(queue)


@pytest.mark.rule("QUEUE-13")
def test_purging_leaves_what_is_unacked(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue()
    conn.publish_many([b"held", b"2", b"3"], routing_key=queue, confirm="memory")
    held = wait_for(conn, queue)

    assert conn.purge_queue(queue) == 2
    assert conn.purge_queue(queue) == 0
    held.nack()
    assert ready_bodies(conn, queue) == [b"held"]


@pytest.mark.rule("QUEUE-14")
def test_a_queue_that_is_declared_anew_has_no_bindings(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue()
    conn.bind_queue(queue, "amq.direct", queue)
    conn.delete_queue(queue)
    conn.declare_queue(queue)

    with pytest.raises(shmq.Unroutable):
        conn.publish(b"x", exchange="amq.direct", routing_key=queue, mandatory=True)


@pytest.mark.rule("DEATH-8", "QUEUE-11")
def test_what_goes_with_an_unused_queue_is_not_dead(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(expires=0.2, dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    wait_until(lambda: queue not in {info.definition.name for info in conn.queues()}, "it is gone", WAIT)

    assert conn.get(dead, timeout=0.3) is None


@pytest.mark.rule("QUEUE-9")
def test_an_exclusive_queue_is_gone_when_its_connections_close_returns(
    conn: shmq.Connection, connect: Connect, by_broker: Connect
) -> None:
    publisher = by_broker()
    for turn in range(5):
        owner = connect()
        owner.declare_queue("exclusive to one", exclusive=True)
        publisher.publish(b"others may publish", routing_key="exclusive to one", confirm="memory", mandatory=True)
        calls: list[Callable[[], object]] = [
            lambda: conn.declare_queue("exclusive to one", exclusive=True),
            lambda: conn.purge_queue("exclusive to one"),
            lambda: conn.delete_queue("exclusive to one"),
            lambda: conn.bind_queue("exclusive to one", "amq.direct", "k"),
            lambda: conn.consume("exclusive to one"),
        ]
        for call in calls:
            with pytest.raises(shmq.ResourceLocked):
                call()
        assert ready_bodies(owner, "exclusive to one") == [b"others may publish"]
        owner.close()

        assert conn.declare_queue("exclusive to one").messages == 0, turn
        conn.delete_queue("exclusive to one")


@pytest.mark.rule("QUEUE-9")
def test_publishing_directly_to_what_is_anothers_alone_says_why_it_is_refused(
    conn: shmq.Connection, connect: Connect, mode: str
) -> None:
    owner = connect()
    owner.declare_queue("another's", exclusive=True)
    if mode == "direct":
        with pytest.raises(shmq.DirectRefused, match="another connection's"):
            conn.publish(b"x", routing_key="another's")
    else:
        conn.publish(b"x", routing_key="another's", confirm="memory")

    assert ready_bodies(owner, "another's") == ([] if mode == "direct" else [b"x"])


@pytest.mark.rule("LENGTH-1")
def test_of_two_lengths_both_hold(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue(max_length=3, max_length_bytes=10)
    for body in (b"1", b"2", b"3", b"4", b"longer"):
        conn.publish(body, routing_key=queue, confirm="memory")
    assert ready_bodies(conn, queue) == [b"3", b"4", b"longer"]
    for body in (b"1", b"long enough"[:9]):
        conn.publish(body, routing_key=queue, confirm="memory")
    conn.publish(b"22", routing_key=queue, confirm="memory")

    assert ready_bodies(conn, queue) == [b"22"]


@pytest.mark.rule("ERROR-1")
def test_every_refusal_leaves_the_connection_as_it_was(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queue = new_queue()
    conn.publish_many([b"1", b"2"], routing_key=queue, confirm="memory")
    held, consumer = wait_for(conn, queue), conn.consume(queue, prefetch=1)
    calls: list[Callable[[], object]] = [
        lambda: conn.declare_queue(queue, max_length=1),
        lambda: conn.declare_queue("nobody", passive=True),
        lambda: conn.declare_exchange("amq.mine"),
        lambda: conn.bind_queue(queue, "nowhere"),
        lambda: conn.publish(b"x", exchange="nowhere", confirm="memory"),
        lambda: conn.get("nobody"),
        lambda: conn.cancel("nobody"),
    ]
    start = time.monotonic()
    for call in calls:
        with pytest.raises(shmq.ShmqError):
            call()

    assert time.monotonic() - start < scaled(5)
    assert next(iter(consumer)).body == b"2"
    held.ack()
    assert conn.queue_info(queue).unacked == 1
