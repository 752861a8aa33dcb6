"""How Kombu finds a daemon, what a connection says of itself, and whose error is raised."""

import gc
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest
from amqp import exceptions as amqp
from kombu.exceptions import OperationalError
from kombu.utils.url import parse_url

from shmq_clients.kombu import Transport

NOWHERE = "shmq:///nowhere/shmq.sock"


def in_new_process(code: str, *arguments: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_alias_is_there_without_a_line_of_ours_once_kombu_can_serialize(url: str) -> None:
    code = "import sys, kombu, kombu.serialization; c = kombu.Connection(sys.argv[1]); c.connect(); print(c.connected)"

    assert in_new_process(code, url) == "True"


def test_importing_kombu_loads_nothing_of_ours_but_the_alias() -> None:
    code = "import sys, kombu.serialization; print(sorted(m for m in sys.modules if m.startswith('shmq')))"

    assert in_new_process(code) == "['shmq_clients', 'shmq_clients.kombu_alias']"


def test_the_transport_may_be_named_by_its_class(url: str) -> None:
    with kombu.Connection(url, transport="shmq_clients.kombu:Transport") as conn:
        assert conn.connect()


def test_raw_bytes_travel_as_they_are(conn: Any) -> None:
    body = bytes(range(256))
    with conn.SimpleQueue("raw", serializer="shmq-raw") as queue:
        queue.put(body)
        message = queue.get(timeout=5)
        message.ack()

    assert message.body == body
    assert kombu.serialization.loads(message.body, message.content_type, message.content_encoding) == body


def test_what_celery_asks_a_transport(conn: Any) -> None:
    transport = conn.transport

    assert (transport.driver_type, transport.driver_name) == ("amqp", "shmq")
    assert transport.driver_version()
    assert transport.implements.asynchronous
    assert not transport.implements.heartbeats
    assert conn.get_heartbeat_interval() == 0
    assert transport.implements.exchange_type == {"direct", "topic", "fanout", "headers"}
    assert conn.qos_semantics_matches_spec is False
    assert transport.default_connection_params["hostname"] == "shmq://"
    assert conn.connection.server_properties["product"] == "shmq"


def test_a_connection_survives_info_clone_and_pickle(url: str) -> None:
    conn = kombu.Connection(url, transport_options={"eta_lead": 5})
    for other in (conn.clone(), kombu.Connection(**conn.info()), pickle.loads(pickle.dumps(conn))):
        with other:
            assert other.connect()
            assert other.as_uri() == url
            assert other.info() == conn.info()
            assert other.__eqhash__() == conn.__eqhash__()
            assert other.connection.options.eta_lead == 5


def test_a_url_that_kombu_took_apart_means_the_same(url: str) -> None:
    parts = parse_url(url)
    conn = kombu.Connection(transport="shmq", hostname=parts["hostname"], virtual_host=parts["virtual_host"])
    with conn:
        assert conn.connect()
        assert conn.as_uri() == url
    with kombu.Connection(f"{NOWHERE};{url}") as conn:
        conn.ensure_connection(max_retries=3, interval_start=0)
        assert conn.as_uri() == url


@pytest.mark.parametrize(
    "wrong", ["shmq:///a.sock?x=1", "shmq://host/a.sock", "shmq://me@/a.sock", "shmq:///a.sock?virtual_host=other"]
)
def test_a_url_that_means_more_than_a_path_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        kombu.Connection(wrong).connect()


@pytest.mark.parametrize("option", [{"mode": "fast"}, {"eta_lead": "soon"}, {"confirm_publish": 1}])
def test_an_option_that_can_not_be_is_refused(url: str, option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        kombu.Connection(url, transport_options=option).connect()


def test_options_of_others_are_let_be(url: str) -> None:
    with kombu.Connection(url, transport_options={"visibility_timeout": 3600, "max_retries": 3}) as conn:
        assert conn.connect()


def test_nobody_there_is_an_oserror_and_after_retries_kombus_own() -> None:
    with pytest.raises(ConnectionRefusedError, match="shmqd is not running"):
        kombu.Connection(NOWHERE).connect()
    with pytest.raises(OperationalError, match="shmqd is not running"):
        kombu.Connection(NOWHERE).ensure_connection(max_retries=1, interval_start=0, interval_step=0)


def test_something_else_there_is_an_oserror(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        path = str(tmp_path / "other.sock")
        other.bind(path)
        other.listen()
        with pytest.raises(OSError, match=r"not shmqd|no answer"):
            kombu.Connection(f"shmq://{path}", connect_timeout=0.2).connect()


def test_errors_are_classes_that_kombu_can_retry_by() -> None:
    assert issubclass(amqp.RecoverableConnectionError, Transport.recoverable_connection_errors)
    assert issubclass(amqp.ConsumerCancelled, Transport.recoverable_connection_errors)
    assert issubclass(amqp.MessageNacked, Transport.recoverable_connection_errors)
    assert issubclass(ConnectionRefusedError, Transport.connection_errors)
    assert issubclass(amqp.NotFound, Transport.channel_errors)
    assert not issubclass(amqp.NotFound, Transport.recoverable_channel_errors)


def test_closing_twice_and_collecting_are_quiet(connect: Callable[..., Any]) -> None:
    conn = connect()
    low = conn.connection
    channel = conn.channel()
    conn.collect()
    assert low.channels is None
    assert channel.connection is None
    assert not low.connected
    low.close()
    low.collect()
    channel.close()
    assert conn.connect() is not low


def test_collecting_frees_exclusive_queues_at_once(connect: Callable[..., Any]) -> None:
    first, second = connect(), connect()
    for _ in range(5):
        first.channel().queue_declare("mine", exclusive=True)
        with pytest.raises(amqp.ResourceLocked) as raised:
            second.default_channel.queue_declare("mine", exclusive=True)
        assert raised.value.code == 405
        first.collect()


def test_a_connection_nobody_closed_is_closed_when_it_is_collected(url: str) -> None:
    conn = kombu.Connection(url)
    conn.default_channel.queue_declare("left", exclusive=True)
    low = conn.connection.shmq
    del conn
    gc.collect()

    assert not low.is_open


def test_the_socket_behind_it_may_be_poked(conn: Any) -> None:
    sock = conn.connection.transport.sock
    sock.settimeout(5)
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()

    assert conn.default_channel.queue_declare("poked").queue == "poked"


def test_queues_that_come_and_go_leave_no_descriptors(connect: Callable[..., Any]) -> None:
    def open_now() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    owner, publisher = connect(), connect()
    replies = kombu.Exchange("replies", "direct")
    counts = []
    for number in range(150):
        channel = owner.channel()
        queue = kombu.Queue(f"reply-{number}", replies, f"reply-{number}", exclusive=True, auto_delete=True)
        consumer = kombu.Consumer(channel, [queue], no_ack=True, on_message=bool)
        consumer.consume()
        producer = kombu.Producer(publisher)
        producer.publish("by key", routing_key=queue.name)
        producer.publish("by exchange", exchange=replies, routing_key=queue.name)
        for _ in range(2):
            owner.drain_events(timeout=5)
        consumer.cancel()
        channel.close()
        counts.append(open_now())

    assert max(counts[75:]) <= max(counts[:75])


def test_what_was_refused_without_confirms_is_told_once_and_costs_no_message(connect: Callable[..., Any]) -> None:
    conn = connect(transport_options={"mode": "socket", "confirm_publish": False})
    channel = conn.channel()
    channel.queue_declare("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.queue_declare("there")
    channel.basic_publish(channel.prepare_message(b"x"), routing_key="there")
    channel.basic_publish(channel.prepare_message(b"refused"), routing_key="full")

    message = channel.basic_get("there", no_ack=True)

    assert message is not None
    assert message.body == b"x"
    with pytest.raises(amqp.MessageNacked):
        channel.basic_get("there")
    assert channel.basic_get("there") is None
    for queue in ("full", "there"):
        channel.queue_delete(queue)
