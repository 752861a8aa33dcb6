"""What a channel does for Kombu: declare, publish, consume, get, settle."""

import itertools
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kombu
import pytest
from amqp import exceptions as amqp
from kombu.exceptions import BatchPublishError, OperationalError, SerializerNotInstalled

from shmq_clients.kombu.eta import held_for
from support.deadline import scaled

WAIT = 5.0
_numbers = itertools.count(1)


@pytest.fixture(params=["auto", "socket"])
def conn(connect: Callable[..., Any], request: pytest.FixtureRequest) -> Any:
    return connect(transport_options={"mode": request.param})


@pytest.fixture
def channel(conn: Any) -> Any:
    return conn.channel()


def new_queue(channel: Any, **arguments: Any) -> str:
    return str(channel.queue_declare(f"channel-{next(_numbers)}", auto_delete=False, **arguments).queue)


def publish(channel: Any, queue: str, *bodies: object, **properties: Any) -> None:
    producer = kombu.Producer(channel)
    for body in bodies:
        producer.publish(body, routing_key=queue, **properties)


class Consumer:
    """Collects what comes."""

    def __init__(self, channel: Any, queue: str, **keywords: Any) -> None:
        self.messages: list[Any] = []
        self.channel = channel
        self.tag = channel.basic_consume(queue, callback=self.messages.append, **keywords)

    def drain(self, count: int) -> list[Any]:
        """Wait until there are so many."""
        while len(self.messages) < count:
            self.channel.connection.drain_events(timeout=scaled(WAIT))
        return [message.decode() for message in self.messages]

    def nothing_more(self) -> bool:
        count = len(self.messages)
        with pytest.raises(socket.timeout):
            self.channel.connection.drain_events(timeout=0.2)
        return len(self.messages) == count


# -- declaring --------------------------------------------------------------------------------------------------------


def test_declaring_answers_name_messages_and_consumers(channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1, 2)

    assert channel.queue_declare(queue, passive=True) == (queue, 2, 0)
    Consumer(channel, queue, no_ack=True)
    assert channel.queue_declare(queue, passive=True).consumer_count == 1
    assert channel.queue_declare("", nowait=True) is None
    assert channel.queue_declare("").queue.startswith("amq.gen-")


def test_errors_have_amqps_codes_and_leave_the_channel_usable(channel: Any, connect: Callable[..., Any]) -> None:
    mine = connect().channel().queue_declare("of-another", exclusive=True).queue
    attempts: list[tuple[type[Exception], int, Callable[[], object]]] = [
        (amqp.NotFound, 404, lambda: channel.queue_declare("none", passive=True)),
        (amqp.NotFound, 404, lambda: channel.exchange_declare("none", "direct", passive=True)),
        (amqp.NotFound, 404, lambda: channel.basic_consume("none")),
        (amqp.NotFound, 404, lambda: channel.basic_get("none")),
        (amqp.NotFound, 404, lambda: publish(channel, "x", 1, exchange="none")),
        (amqp.AccessRefused, 403, lambda: channel.exchange_declare("amq.none", "direct")),
        (amqp.ResourceLocked, 405, lambda: channel.queue_declare(mine, exclusive=True)),
        (amqp.PreconditionFailed, 406, lambda: channel.exchange_declare("amq.topic", "direct", durable=True)),
        (amqp.PreconditionFailed, 406, lambda: channel.queue_declare("bad", arguments={"x-max-priority": 1000})),
        (amqp.InvalidCommand, 503, lambda: channel.exchange_declare("odd", "odd")),
        (amqp.AMQPNotImplementedError, 540, lambda: channel.basic_recover(requeue=False)),
        (amqp.AMQPNotImplementedError, 540, lambda: channel.basic_qos(1, 0, a_global=True)),
    ]
    for kind, code, attempt in attempts:
        with pytest.raises(kind) as raised:
            attempt()
        assert (raised.value.code, raised.value.reply_code) == (code, code)  # type: ignore[attr-defined] # py-amqp's

    queue = new_queue(channel)
    publish(channel, queue, "still")
    assert Consumer(channel, queue).drain(1) == ["still"]


def test_a_queue_declared_otherwise_stays_as_it_is(
    channel: Any, connect: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    queue = new_queue(channel, arguments={"x-message-ttl": 1000})
    publish(channel, queue, 1)

    assert channel.queue_declare(queue, auto_delete=False, arguments={"x-message-ttl": 5000}).message_count == 1
    assert "x-message-ttl = 1000, asked for 5000" in caplog.text
    strict = connect(transport_options={"strict_declare": True}).channel()
    with pytest.raises(amqp.PreconditionFailed, match="x-message-ttl"):
        strict.queue_declare(queue, auto_delete=False, arguments={"x-message-ttl": 5000})


def test_what_celerys_delayed_delivery_declares_is_accepted(channel: Any) -> None:
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-message-ttl": 2**27 * 1000,
        "x-dead-letter-exchange": "amq.topic",
    }
    queue = new_queue(channel, durable=True, arguments=arguments)
    channel.exchange_declare("levels", "topic", durable=True, auto_delete=False)
    channel.queue_bind(queue, "levels", ".".join("1" * 28) + ".#")
    channel.exchange_bind("levels", "amq.topic", "a.#")
    channel.exchange_unbind("levels", "amq.topic", "a.#")
    channel.queue_unbind(queue, "levels", ".".join("1" * 28) + ".#")
    channel.exchange_delete("levels")


def test_bindings_are_told(conn: Any, channel: Any) -> None:
    queue = new_queue(channel)
    channel.exchange_declare("told", "headers")
    channel.exchange_bind("told", "amq.topic", "a.#")
    channel.queue_bind(queue, "told", arguments={"x-match": "any", "a": 1})

    told = [one for one in channel.get_bindings() if "told" in (one["source"], one["destination"])]
    assert [(one["source"], one["destination"], one["destination_type"], one["routing_key"]) for one in told] == [
        ("amq.topic", "told", "exchange", "a.#"),
        ("told", queue, "queue", ""),
    ]
    assert told[1]["arguments"] == {"x-match": "any", "a": 1}
    assert conn.manager.get_bindings() == channel.get_bindings()
    channel.exchange_delete("told")


def test_purging_and_deleting_count(channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1, 2)

    assert channel.queue_purge(queue) == 2
    publish(channel, queue, 3)
    with pytest.raises(amqp.PreconditionFailed):
        channel.queue_delete(queue, if_empty=True)
    assert channel.queue_delete(queue) == 1


# -- publishing -------------------------------------------------------------------------------------------------------


def test_properties_arrive_in_py_amqps_types(channel: Any) -> None:
    queue = new_queue(channel)
    stamp = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    given = {"correlation_id": "c", "reply_to": "r", "message_id": "m", "type": "t", "app_id": "a"}
    publish(channel, queue, {"a": 1}, priority=3, expiration=60, delivery_mode=1, timestamp=stamp, unknown=1, **given)

    message = channel.basic_get(queue)

    assert message.properties == given | {
        "delivery_mode": 1,
        "priority": 3,
        "expiration": "60000",
        "timestamp": stamp.replace(tzinfo=None),
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "application_headers": {},
    }
    assert message.body == '{"a": 1}'
    assert message.delivery_info == {
        "delivery_tag": 1,
        "redelivered": False,
        "exchange": "",
        "routing_key": queue,
        "message_count": 0,
    }


class Text(str):
    """A type of somebody's own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "odd", [{"timestamp": 1_700_000_000_000}, {"timestamp": 2**62}, {"content_encoding": "undefined"}]
)
def test_what_others_publish_arrives_however_odd(channel: Any, odd: dict[str, Any]) -> None:
    """An error here would end a worker, and the next one that gets the message."""
    queue = new_queue(channel)
    channel.connection.shmq.publish(b"x", routing_key=queue, **odd)
    consumer = Consumer(channel, queue)
    while not consumer.messages:
        channel.connection.drain_events(timeout=scaled(WAIT))

    (message,) = consumer.messages
    assert message.body == b"x"
    assert odd.items() <= message.properties.items() or message.content_encoding == odd["content_encoding"]
    message.ack()


def test_a_consumer_whose_queue_is_gone_can_be_cancelled(channel: Any) -> None:
    gone, stays = new_queue(channel), new_queue(channel)
    first, second = Consumer(channel, gone), Consumer(channel, stays)
    channel.queue_delete(gone)

    for consumer in (first, second):
        channel.basic_cancel(consumer.tag)

    assert channel.queue_declare(stays, passive=True).consumer_count == 0


def test_headers_of_types_of_ones_own_travel_as_what_they_are(channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1, headers={"a": Text("x"), "b": [Text("y"), 1], Text("c"): {"d": (1, None)}})

    assert channel.basic_get(queue).headers == {"a": "x", "b": ["y", 1], "c": {"d": [1, None]}}


def test_an_unroutable_mandatory_message_comes_back(channel: Any) -> None:
    returned: list[tuple[Any, ...]] = []
    with pytest.raises(amqp.ChannelError, match="routes 'nowhere' to no queue"):
        publish(channel, "nowhere", 1, mandatory=True)
    producer = kombu.Producer(channel, on_return=lambda *what: returned.append(what))
    producer.publish({"a": 1}, routing_key="nowhere", mandatory=True)

    ((error, exchange, routing_key, message),) = returned
    assert error.reply_code == 312
    assert (exchange, routing_key, message.body) == ("", "nowhere", b'{"a": 1}')


def test_what_does_not_fit_is_an_error_that_names_the_limit(channel: Any) -> None:
    small = new_queue(channel, arguments={"x-capacity-bytes": 1 << 20})
    with pytest.raises(amqp.PreconditionFailed, match=rf"a body of \d+ bytes.*{small}.*1048576"):
        publish(channel, small, b"x" * (2 << 20))
    full = new_queue(channel, arguments={"x-capacity-messages": 1})
    with pytest.raises(amqp.IrrecoverableChannelError, match=f"{full}.*is full after 0.1 s"):
        publish(channel, full, *range(100_000), timeout=0.1)
    retry = {"retry": True, "retry_policy": {"max_retries": 2}}
    with pytest.raises(OperationalError, match=f"{full}.*is full after 0.1 s"):
        publish(channel, full, 1, timeout=0.1, **retry)
    with pytest.raises(OperationalError, match="a body of"):
        publish(channel, small, b"x" * (2 << 20), **retry)
    refusing = new_queue(channel, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    with pytest.raises(amqp.MessageNacked, match=refusing):
        publish(channel, refusing, 1, 2)


def in_a_batch(producer: Any, *keywords: dict[str, Any]) -> None:
    with producer.batch():
        for number, each in enumerate(keywords):
            producer.publish(number, **each)


def test_a_batch_goes_together_or_says_that_it_did_not(channel: Any) -> None:
    queue = new_queue(channel)
    producer = kombu.Producer(channel)
    assert producer.supports_batch_publish
    with producer.batch(max_size=3) as batch:
        for number in range(5):
            producer.publish(number, routing_key=queue)
        assert channel.queue_declare(queue, passive=True).message_count == 3
        batch.flush()
        producer.publish(5, routing_key=queue, headers={"other": 1})
    consumer = Consumer(channel, queue, no_ack=True)
    assert consumer.drain(6) == [0, 1, 2, 3, 4, 5]
    channel.basic_cancel(consumer.tag)
    with pytest.raises(BatchPublishError, match="none"):
        in_a_batch(producer, {"routing_key": queue}, {"routing_key": queue, "exchange": "none"})
    with pytest.raises(SerializerNotInstalled):
        in_a_batch(producer, {"routing_key": queue}, {"routing_key": queue, "serializer": "none"})
    assert channel.basic_get(queue, no_ack=True).decode() == 0
    assert channel.basic_get(queue) is None


# -- ETA --------------------------------------------------------------------------------------------------------------


def test_how_long_a_task_is_held() -> None:
    now = time.time()
    due = datetime.fromtimestamp(now + 60, UTC)

    assert held_for({"eta": due.isoformat()}, 10, now) == pytest.approx(50, abs=0.001)
    assert held_for({"eta": due.astimezone(None).isoformat()}, 10, now) == pytest.approx(50, abs=0.001)
    assert held_for({"eta": due.replace(tzinfo=None).isoformat()}, 10, now) == pytest.approx(50, abs=0.001)
    for headers, lead in (({"eta": due.isoformat()}, 61), ({"eta": due.isoformat()}, None), ({"eta": "soon"}, 1)):
        assert held_for(headers, lead, now) == 0
    assert held_for({"eta": None}, 1, now) == held_for(None, 1, now) == held_for({}, 1, now) == 0


@pytest.mark.parametrize("exchange", ["", "amq.direct", "amq.fanout", "amq.topic"])
def test_a_task_with_an_eta_is_held_on_any_exchange(connect: Callable[..., Any], exchange: str) -> None:
    channel = connect(transport_options={"eta_lead": 0.5}).channel()
    queue = new_queue(channel)
    if exchange:
        channel.queue_bind(queue, exchange, queue)
    eta = (datetime.now(UTC) + timedelta(seconds=1.2)).isoformat()
    start = time.monotonic()
    publish(channel, queue, 1, exchange=exchange, headers={"eta": eta})
    consumer = Consumer(channel, queue)

    assert consumer.drain(1) == [1]
    assert 0.6 < time.monotonic() - start < 0.7 + scaled(1)


# -- consuming --------------------------------------------------------------------------------------------------------


def test_one_event_at_a_time_and_the_rest_when_the_consumer_ends(channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1, 2, 3)
    consumer = Consumer(channel, queue)
    channel.connection.drain_events(timeout=scaled(WAIT))
    assert len(consumer.messages) == 1

    channel.basic_cancel(consumer.tag)

    assert [message.decode() for message in consumer.messages] == [1, 2, 3]
    publish(channel, queue, 4)
    assert consumer.nothing_more()
    channel.basic_cancel(consumer.tag)


def test_who_gets_without_acks_loses_nothing_at_the_end(channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1, 2, 3)
    consumer = Consumer(channel, queue, no_ack=True)
    assert consumer.drain(1) == [1]
    assert consumer.tag in channel.no_ack_consumers
    consumer.messages[0].ack()

    channel.basic_cancel(consumer.tag)

    left = channel.queue_declare(queue, passive=True).message_count
    assert len(consumer.messages) + left == 3
    assert left == (2 if channel.connection.options.mode == "auto" else 0)


def test_draining_without_waiting_and_for_a_time(channel: Any) -> None:
    start = time.monotonic()
    for timeout in (0, 0.3):
        with pytest.raises(socket.timeout):
            channel.connection.drain_events(timeout=timeout)
    assert 0.3 <= time.monotonic() - start < 0.3 + scaled(1)


@pytest.mark.parametrize("a_global", [True, False])
@pytest.mark.parametrize("arguments", [None, {"x-priority": 1}])
def test_the_window_changes_at_once_under_a_running_consumer(
    channel: Any, arguments: dict[str, int] | None, *, a_global: bool
) -> None:
    queue = new_queue(channel)
    channel.basic_qos(0, 2, a_global)
    publish(channel, queue, *range(10))
    consumer = Consumer(channel, queue, arguments=arguments)
    assert consumer.drain(2) == [0, 1]
    assert consumer.nothing_more()

    channel.basic_qos(0, 4, a_global)
    assert consumer.drain(4) == [0, 1, 2, 3]
    assert consumer.nothing_more()
    channel.basic_qos(0, 1, a_global)
    channel.basic_ack(3, multiple=True)
    assert consumer.nothing_more()
    channel.basic_ack(4)
    assert consumer.drain(5) == [0, 1, 2, 3, 4]
    channel.basic_qos(0, 0, a_global)
    assert consumer.drain(10) == list(range(10))


def test_flow_stops_and_resumes_deliveries(channel: Any) -> None:
    queue = new_queue(channel)
    consumer = Consumer(channel, queue)
    channel.flow(False)
    publish(channel, queue, 1)
    assert consumer.nothing_more()

    channel.flow(True)
    assert consumer.drain(1) == [1]


@pytest.mark.parametrize("arguments", [None, {"x-priority": 1}])
def test_the_end_of_a_queue_is_told_or_raised(channel: Any, arguments: dict[str, int] | None) -> None:
    told: list[str] = []
    queue = new_queue(channel)
    Consumer(channel, queue, consumer_tag="told", on_cancel=told.append, arguments=arguments)
    channel.queue_delete(queue)
    channel.connection.drain_events(timeout=scaled(WAIT))
    assert told == ["told"]
    queue = new_queue(channel)
    Consumer(channel, queue, consumer_tag="raised", arguments=arguments)
    channel.queue_delete(queue)
    with pytest.raises(amqp.ConsumerCancelled, match="raised"):
        channel.connection.drain_events(timeout=scaled(WAIT))

    assert isinstance(amqp.ConsumerCancelled(), channel.connection.client.recoverable_connection_errors)


def test_tags_and_consumers_are_each_channels_own(conn: Any) -> None:
    one, other = conn.channel(), conn.channel()
    queue = new_queue(one)
    first = Consumer(one, queue, consumer_tag="same")
    publish(one, queue, "a")
    assert first.drain(1) == ["a"]
    one.basic_cancel("same")
    second = Consumer(other, queue, consumer_tag="same")
    publish(one, queue, "b")
    assert second.drain(1) == ["b"]

    assert (first.messages[0].delivery_tag, second.messages[0].delivery_tag) == (1, 1)
    assert (one.channel_id, other.channel_id) == (1, 2)
    with pytest.raises(amqp.NotAllowed):
        other.basic_consume(queue, consumer_tag="same")


# -- settling ---------------------------------------------------------------------------------------------------------


def test_late_and_double_acks_do_nothing(channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1)
    consumer = Consumer(channel, queue)
    consumer.drain(1)
    for _ in range(2):
        channel.basic_ack(1)
    channel.basic_reject(1, requeue=True)
    channel.basic_nack(1)
    channel.basic_ack(77)

    assert channel.queue_declare(queue, passive=True).message_count == 0


def test_an_ack_behind_the_ack_timeout_does_nothing(channel: Any) -> None:
    queue = new_queue(channel, arguments={"x-consumer-timeout": 200})
    publish(channel, queue, 1)
    consumer = Consumer(channel, queue)
    consumer.drain(2)
    assert consumer.messages[1].delivery_info["redelivered"]
    consumer.messages[0].ack()

    channel.queue_declare(queue, passive=True)
    assert consumer.drain(3) == [1, 1, 1]
    consumer.messages[2].ack()
    channel.queue_declare(queue, passive=True)


def test_recover_and_requeue_deliver_again(channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1, 2)
    consumer = Consumer(channel, queue)
    consumer.drain(2)
    channel.basic_recover(requeue=True)
    assert consumer.drain(4) == [1, 2, 1, 2]
    assert [message.delivery_info["redelivered"] for message in consumer.messages] == [False, False, True, True]
    consumer.messages[2].requeue()
    assert consumer.drain(5)[-1] == 1
    consumer.messages[3].reject()
    consumer.messages[4].ack()
    assert consumer.nothing_more()


def test_closing_gives_back_and_is_the_end(conn: Any, channel: Any) -> None:
    queue = new_queue(channel)
    publish(channel, queue, 1)
    message = channel.basic_get(queue)
    channel.close()
    channel.close()

    assert channel.connection is None
    for call in (message.ack, lambda: publish(channel, queue, 2), lambda: channel.basic_consume(queue)):
        with pytest.raises(amqp.RecoverableConnectionError):
            call()
    again = conn.channel().basic_get(queue)
    assert (again.decode(), again.delivery_info["redelivered"]) == (1, True)
