"""shmq_clients.link and session: answers, refusals, lost sessions, what is said again and what is not."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from shmq.wire import frames as wire
from shmq_clients.link import Link
from support.deadline import scaled, wait_until
from support.scripted_broker import ScriptedBroker, scripted


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as broker:
        yield broker


@pytest.fixture
def conn(broker: ScriptedBroker) -> Iterator[shmq.Connection]:
    with shmq.connect(broker.url, mode="socket", timeout=scaled(2)) as conn:
        yield conn


def declared(frame: wire.DeclareQueue) -> list[wire.QueueDeclared]:
    return [wire.QueueDeclared(frame.seq, frame.definition.name or "amq.gen-1", 3, 1)]


def test_an_answer_goes_to_who_asked(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    broker.answers[wire.DeclareQueue] = declared

    assert conn.declare_queue("q", max_priority=3) == ("q", 3, 1)
    (frame,) = broker.received(wire.DeclareQueue)
    assert (frame.definition.name, frame.definition.durable, frame.definition.max_priority) == ("q", True, 3)


def test_answers_out_of_order_find_their_threads(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    waiting: list[wire.PurgeQueue] = []

    def later(frame: wire.PurgeQueue) -> list[wire.Counted]:
        waiting.append(frame)
        if len(waiting) < 8:
            return []
        return [wire.Counted(one.seq, int(one.queue)) for one in reversed(waiting)]

    broker.answers[wire.PurgeQueue] = later
    counts: dict[int, int] = {}

    def purge(number: int) -> None:
        counts[number] = conn.purge_queue(str(number))

    threads = [threading.Thread(target=purge, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(5))

    assert counts == {number: number for number in range(1, 9)}


def test_a_refusal_is_its_class_with_its_data(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    broker.answers[wire.PurgeQueue] = lambda frame: [wire.Error(frame.seq, 404, "", {"kind": "queue", "name": "x"})]

    with pytest.raises(shmq.NotFound) as caught:
        conn.purge_queue("x")

    assert caught.value.name == "x"


def test_what_may_be_repeated_is_asked_again_in_the_next_session(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    def hang_up_once(_frame: wire.DeclareQueue) -> None:
        broker.answers[wire.DeclareQueue] = declared

    broker.answers[wire.DeclareQueue] = hang_up_once

    assert conn.declare_queue("q").name == "q"
    assert len(broker.received(wire.DeclareQueue)) == 2
    first, second = broker.received(wire.Hello)
    assert first.resume is None
    assert second.resume.connection_id == "connection-1"


@pytest.mark.parametrize("call", [lambda conn: conn.purge_queue("q"), lambda conn: conn.declare_queue("")])
def test_what_must_not_be_repeated_is_lost_and_says_so(
    broker: ScriptedBroker, conn: shmq.Connection, call: object
) -> None:
    broker.answers[wire.PurgeQueue] = broker.answers[wire.DeclareQueue] = lambda _frame: None

    with pytest.raises(shmq.ConnectionLost, match="may or may not be done"):
        call(conn)  # type: ignore[operator] # one of the two above

    assert len(broker.received(wire.PurgeQueue) + broker.received(wire.DeclareQueue)) == 1


def test_a_refusal_of_what_wanted_no_answer_is_raised_by_a_later_call(
    broker: ScriptedBroker, conn: shmq.Connection
) -> None:
    broker.answers[wire.Publish] = lambda _frame: [wire.Error(0, 608, "", {"queue": "q", "depth": 5, "limit": 5})]
    conn.publish(b"x", routing_key="q")

    with pytest.raises(shmq.QueueFull, match="5 of 5") as caught:
        conn.wait_for_confirms()
    conn.wait_for_confirms()
    assert "not this call but an earlier one" in caught.value.__notes__[0]


def test_a_message_that_nobody_waits_for_any_more_goes_back(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    delivery = wire.Delivery(7, 0, 0, 1, 0, 1, 0, b"", b"body")
    conn.wait_for_confirms()
    broker.push(wire.Got(4_000_000, [delivery]))

    def came() -> bool:
        conn.wait_for_confirms()
        return bool(broker.received(wire.Nack))

    wait_until(came, "a nack")

    (nack,) = broker.received(wire.Nack)
    assert (nack.delivery_tags, nack.requeue) == ([7], True)


def test_a_consumer_consumes_again_in_the_next_session(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    def consuming(frame: wire.Consume) -> list[object]:
        body = b"%d" % broker.sessions
        return [
            wire.Consuming(frame.seq, frame.consumer_tag),
            wire.Deliver(frame.consumer_tag, [wire.Delivery(1, 0, 0, 1, 0, 1, 0, b"", body)]),
        ]

    broker.answers[wire.Consume] = consuming
    broker.answers[wire.Recover] = lambda frame: [wire.Counted(frame.seq, 1)]
    broker.answers[wire.Cancel] = lambda frame: [wire.Ok(frame.seq)]
    consumer = conn.consume("q", prefetch=5)
    first = next(consumer)
    broker.drop()
    second = next(consumer)

    assert (first.body, second.body) == (b"1", b"2")
    with pytest.raises(shmq.StaleDelivery):
        first.ack()
    second.ack()
    kinds = [type(frame) for frame in broker.frames if isinstance(frame, wire.Recover | wire.Consume)]
    assert kinds == [wire.Consume, wire.Recover, wire.Consume]


def test_a_publish_that_finds_its_session_ended_goes_into_the_next(
    broker: ScriptedBroker, conn: shmq.Connection
) -> None:
    conn.publish(b"1", routing_key="q")
    conn.wait_for_confirms()
    broker.drop()

    conn.publish(b"2", routing_key="q")
    conn.wait_for_confirms()

    assert [frame.body for frame in broker.received(wire.Publish)] == [b"1", b"2"]
    assert broker.sessions == 2


def test_an_instance_that_is_gone_is_not_waited_for(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    conn.wait_for_confirms()
    broker.push(wire.Closing(320, "", {"reason": "nobody wants it", "gone": True}))
    broker.drop()
    start = time.monotonic()

    for _ in range(2):
        with pytest.raises(shmq.ConnectionLost, match=r"ended for good.*nobody wants it") as caught:
            conn.queue_info("q")

    assert caught.value.gone
    assert time.monotonic() - start < scaled(0.5)
    assert broker.sessions == 1


def test_an_alarm_of_the_broker_is_seen_until_it_is_over(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    assert conn.blocked == ""
    broker.push(wire.Blocked("no memory"))
    wait_until(lambda: conn.blocked == "no memory", "it is told")
    broker.push(wire.Unblocked())

    wait_until(lambda: conn.blocked == "", "it is over")


def test_a_broker_that_does_not_answer_ends_a_request_at_its_deadline(
    broker: ScriptedBroker, conn: shmq.Connection
) -> None:
    assert broker.sessions == 1
    start = time.monotonic()

    with pytest.raises(shmq.OperationTimeout):
        conn._link.request(lambda seq: wire.InspectQueue(seq, "q"), timeout=0.2)

    assert time.monotonic() - start < scaled(1)


def test_goodbye_is_said_and_answered(broker: ScriptedBroker) -> None:
    conn = shmq.connect(broker.url, mode="socket", timeout=scaled(2))
    conn.close()

    (goodbye,) = broker.received(wire.Goodbye)
    assert goodbye.clean


def test_who_is_not_admitted_is_told_why(broker: ScriptedBroker) -> None:
    broker.answers[wire.Hello] = lambda _hello: [wire.Closing(403, "not you", {})]

    with pytest.raises(shmq.AccessRefused, match="not you"):
        shmq.connect(broker.url)


def test_another_protocol_is_refused_at_once(broker: ScriptedBroker) -> None:
    broker.answers[wire.Hello] = lambda _hello: [wire.Closing(601, "", {"ours": 9, "theirs": 1})]

    with pytest.raises(shmq.ProtocolMismatch):
        shmq.connect(broker.url)


def test_a_broker_that_stops_is_no_stranger(broker: ScriptedBroker) -> None:
    broker.answers[wire.Hello] = lambda _hello: [wire.Closing(320, "", {"reason": "it stops"})]

    with pytest.raises(shmq.ConnectionLost, match="it stops"):
        shmq.connect(broker.url, timeout=0.2)


def test_a_slow_hello_is_waited_for_as_long_as_wished(broker: ScriptedBroker) -> None:
    def slow(hello: wire.Hello) -> Any:
        time.sleep(1.2)
        return broker.welcome(hello)

    broker.answers[wire.Hello] = slow

    with shmq.connect(broker.url, mode="socket", timeout=scaled(5)):
        assert broker.sessions == 1


def test_mode_direct_says_why_it_cannot_be(broker: ScriptedBroker) -> None:
    with pytest.raises(shmq.DirectRefused, match="scripted"):
        shmq.connect(broker.url, mode="direct")


def test_a_refusal_that_nobody_waits_for_any_more_is_dropped(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    conn.wait_for_confirms()
    broker.push(wire.Error(4_000_000, 404, "late", {}))

    conn.wait_for_confirms()
    conn.wait_for_confirms()


# -- settling ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def message(broker: ScriptedBroker, conn: shmq.Connection) -> shmq.Message:
    broker.answers[wire.Get] = lambda frame: [wire.Got(frame.seq, [wire.Delivery(7, 0, 0, 1, 0, 1, 0, b"", b"body")])]
    message = conn.get("q")
    assert message is not None
    return message


def test_an_ack_is_sent_though_it_raises_what_an_earlier_publish_was_refused_for(
    broker: ScriptedBroker, conn: shmq.Connection, message: shmq.Message
) -> None:
    conn._link.failures.add(shmq.QueueFull(queue="other"))

    with pytest.raises(shmq.QueueFull):
        message.ack()
    conn.wait_for_confirms()

    assert [frame.delivery_tags for frame in broker.received(wire.Ack)] == [[7]]


def test_all_acks_of_many_are_sent_though_an_earlier_publish_was_refused(
    broker: ScriptedBroker, conn: shmq.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shmq_clients.subscription.BATCH_MESSAGES_MAX", 2)
    deliveries = [wire.Delivery(tag, 0, 0, 1, 0, 1, 0, b"", b"body") for tag in range(1, 6)]
    broker.answers[wire.Get] = lambda frame: [wire.Got(frame.seq, deliveries)]
    messages = conn.get_batch("q", max_messages=5)
    conn._link.failures.add(shmq.QueueFull(queue="other"))

    with pytest.raises(shmq.QueueFull):
        conn.ack_many(messages)
    conn.wait_for_confirms()

    assert [frame.delivery_tags for frame in broker.received(wire.Ack)] == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize("settle", [lambda message: message.nack(delay=-1), lambda message: message.nack(delay="soon")])
def test_a_nack_that_cannot_be_said_settles_nothing(
    broker: ScriptedBroker, conn: shmq.Connection, message: shmq.Message, settle: Any
) -> None:
    with pytest.raises(shmq.InvalidArgument):
        settle(message)
    message.ack()
    conn.wait_for_confirms()

    assert not broker.received(wire.Nack)
    assert broker.received(wire.Ack)


# -- confirms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["meanwhile", "before"])
def test_publishes_that_may_be_lost_with_their_session_are_not_confirmed(
    broker: ScriptedBroker, conn: shmq.Connection, when: str
) -> None:
    conn.publish(b"x", routing_key="q")
    if when == "meanwhile":
        broker.answers[wire.Ping] = lambda frame: None if broker.sessions == 1 else [wire.Ok(frame.seq)]
    else:
        wait_until(lambda: bool(broker.received(wire.Publish)), "it came")
        broker.drop()
        broker.answers[wire.Publish] = lambda frame: [wire.Ok(frame.seq)] if frame.seq else []
        conn.publish(b"y", routing_key="q", confirm="memory")

    with pytest.raises(shmq.ConnectionLost, match="may or may not be done"):
        conn.wait_for_confirms()
    conn.wait_for_confirms()


def test_what_was_confirmed_is_not_lost_with_its_session(broker: ScriptedBroker, conn: shmq.Connection) -> None:
    conn.publish(b"x", routing_key="q")
    conn.wait_for_confirms()
    broker.drop()

    conn.wait_for_confirms()
    assert len(broker.received(wire.Ping)) >= 2


# -- the end of a consumer --------------------------------------------------------------------------------------------


def test_a_consumer_that_the_next_session_does_not_know_is_cancelled_all_the_same(
    broker: ScriptedBroker, conn: shmq.Connection
) -> None:
    broker.answers[wire.Consume] = lambda frame: [wire.Consuming(frame.seq, frame.consumer_tag)]
    unknown: dict[str, Any] = {"kind": "consumer", "name": "tag"}
    broker.answers[wire.Cancel] = lambda frame: (
        None if broker.sessions == 1 else [wire.Error(frame.seq, 404, "", unknown)]
    )
    consumer = conn.consume("q", consumer_tag="tag")

    consumer.cancel()

    assert len(broker.received(wire.Cancel)) == 2
    assert list(consumer) == []


def test_a_refusal_names_the_places_where_nobody_was(tmp_path: Path) -> None:
    """The user's own daemon may be down while the system's is there and refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "other"))
        link = Link((tmp_path / "own.sock", tmp_path / "other"), "auto")

        with pytest.raises(shmq.NotShmqd, match=r"not a stream socket; nothing answers on .*own\.sock"):
            link.open(scaled(1))
