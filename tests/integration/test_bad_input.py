"""What a caller does wrong, or meets at the end of a socket: a typed error in under a second, nothing lost or hung.

Invariant of every test here: a bystander's messages, ready and unacked, are all there afterwards, its session goes on,
and no process of the daemon had to be started again.
"""

import contextlib
import mmap
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from shmq.message import encode_envelope, make_properties
from support.bystander import unharmed
from support.deadline import scaled
from support.shmqd import Shmqd, instance

IN_TIME = 1.0  # seconds for an error
BAD_NAMES = ["a\0b", "a\nb", "\x1b[31m", "a\x7f", "a\x85", "x" * 256, "é" * 128, "\ud800"]
Answer = Callable[[socket.socket], object]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shmqd]:
    with instance(tmp_path_factory.mktemp("shmqd")) as running:
        yield running


@pytest.fixture(params=["direct", "socket"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def bystander(daemon: Shmqd) -> Iterator[None]:
    with unharmed(daemon):
        yield


@pytest.fixture
def conn(daemon: Shmqd, mode: str) -> Iterator[shmq.Connection]:
    with daemon.connect(mode) as connection:
        yield connection


@pytest.fixture
def small(conn: shmq.Connection) -> Iterator[str]:
    """A queue of 16 messages and 1 MiB."""
    name = conn.declare_queue("", capacity_messages=16, capacity_bytes=1 << 20).name
    yield name
    with contextlib.suppress(shmq.NotFound):
        conn.delete_queue(name)


@contextlib.contextmanager
def refused(error: type[shmq.ShmqError], within: float = IN_TIME) -> Iterator[pytest.ExceptionInfo[Any]]:
    """Expect an error, and that it comes soon."""
    started = time.monotonic()
    with pytest.raises(error) as caught:
        yield caught
    assert time.monotonic() - started <= within


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_body_that_can_never_fit_is_refused_with_size_and_limit(conn: shmq.Connection, small: str) -> None:
    with refused(shmq.BodyTooLarge) as caught:
        conn.publish(bytes(5_000_000), routing_key=small, confirm="memory")

    assert caught.value.size == 5_000_000
    assert caught.value.queue == small
    conn.publish(bytes(caught.value.limit), routing_key=small, confirm="memory", timeout=0)
    with refused(shmq.BodyTooLarge):
        conn.publish(bytes(caught.value.limit + 1), routing_key=small, confirm="memory")
    assert conn.queue_info(small).messages == 1


def test_a_batch_stops_before_the_body_that_can_never_fit(conn: shmq.Connection, small: str) -> None:
    with refused(shmq.BodyTooLarge) as caught:
        conn.publish_many([b"1", b"2", bytes(5_000_000), b"4"], routing_key=small, confirm="memory")

    assert "2 of 4 were published" in str(caught.value)
    assert [message.body for message in conn.get_batch(small, no_ack=True)] == [b"1", b"2"]


def test_a_batch_that_fills_the_queue_says_how_far_it_came(conn: shmq.Connection, small: str) -> None:
    with refused(shmq.QueueFull, 0.3 + IN_TIME) as caught:
        conn.publish_many([b""] * 20, routing_key=small, confirm="memory", timeout=0.3)

    assert "16 of 20 were published" in str(caught.value)
    assert (caught.value.depth, caught.value.limit, caught.value.timeout) == (16, 16, 0.3)


def test_a_body_over_a_gibibyte_is_refused_without_being_read(conn: shmq.Connection, small: str) -> None:
    giant = mmap.mmap(-1, (1 << 30) + 1)

    with refused(shmq.BodyTooLarge) as caught:
        conn.publish(giant, routing_key=small, confirm="memory")

    assert caught.value.size == (1 << 30) + 1


def test_a_loan_that_can_never_fit_is_refused(conn: shmq.Connection, small: str) -> None:
    with refused(shmq.BodyTooLarge), conn.loan(5_000_000, routing_key=small, confirm="memory"):
        pass
    with refused(shmq.InvalidArgument):
        conn.loan((1 << 30) + 1, routing_key=small)

    assert conn.queue_info(small).messages == 0


@pytest.mark.parametrize("body", ["text", 7, None, memoryview(bytes(8))[::2]])
def test_what_is_no_buffer_is_refused(conn: shmq.Connection, small: str, body: object) -> None:
    with pytest.raises((TypeError, BufferError)):
        conn.publish(body, routing_key=small)

    assert conn.get(small) is None


# -- queues that are not there, or full -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["get", "get_batch", "consume", "purge_queue", "queue_info"])
def test_an_unknown_queue_is_not_found(conn: shmq.Connection, call: str) -> None:
    with refused(shmq.NotFound) as caught:
        getattr(conn, call)("there-is-none")

    assert (caught.value.kind, caught.value.name) == ("queue", "there-is-none")


def test_publishing_to_an_unknown_queue_is_unroutable_and_to_an_unknown_exchange_not_found(
    conn: shmq.Connection,
) -> None:
    with refused(shmq.Unroutable):
        conn.publish(b"", routing_key="there-is-none", mandatory=True)
    with refused(shmq.NotFound):
        conn.publish(b"", exchange="there-is-none", routing_key="k", confirm="memory")
    with refused(shmq.NotFound):
        conn.bind_queue("there-is-none", "there-is-none", "k")


@pytest.mark.parametrize("timeout", [0.0, 0.3])
def test_a_full_queue_blocks_until_the_deadline_and_tells_depth_and_limit(
    conn: shmq.Connection, small: str, timeout: float
) -> None:
    conn.publish_many([b"%d" % number for number in range(16)], routing_key=small, confirm="memory")

    started = time.monotonic()
    with refused(shmq.QueueFull, timeout + IN_TIME) as caught:
        conn.publish(b"late", routing_key=small, timeout=timeout, confirm="memory")

    assert time.monotonic() - started >= timeout
    error = caught.value
    assert (error.queue, error.depth, error.limit, error.unit) == (small, 16, 16, "messages")
    assert len(conn.get_batch(small, no_ack=True)) == 16


def test_a_queue_full_of_bytes_says_so(conn: shmq.Connection, small: str) -> None:
    conn.publish(bytes(1 << 20), routing_key=small, confirm="memory")

    with refused(shmq.QueueFull) as caught:
        for _ in range(3):  # there is a little room beside a largest body
            conn.publish(bytes(700_000), routing_key=small, timeout=0.1, confirm="memory")

    assert caught.value.unit == "bytes"
    assert caught.value.limit == 1 << 20


def test_a_refusal_that_nobody_waited_for_is_told_later(daemon: Shmqd) -> None:
    with daemon.connect("socket") as conn:
        name = conn.declare_queue("", capacity_messages=4).name
        for _ in range(5):
            conn.publish(b"", routing_key=name, timeout=0.2)

        with refused(shmq.QueueFull):
            conn.wait_for_confirms()

        assert conn.delete_queue(name) == 4


def test_a_blocked_publisher_goes_on_as_soon_as_there_is_room(daemon: Shmqd, conn: shmq.Connection, small: str) -> None:
    conn.publish_many([b""] * 16, routing_key=small, confirm="memory")
    with daemon.connect() as other:
        message = other.get(small)
        assert message is not None
        timer = threading.Timer(0.2, message.ack)
        started = time.monotonic()
        timer.start()

        conn.publish(b"late", routing_key=small, timeout=scaled(10), confirm="memory")

        assert 0.2 <= time.monotonic() - started <= 0.2 + IN_TIME
        timer.join()


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", [-1, 256, 1.5, "9", None, True, 1 << 70])
def test_a_bad_priority_is_refused_with_what_is_allowed(conn: shmq.Connection, small: str, priority: Any) -> None:
    with refused(shmq.InvalidArgument) as caught:
        conn.publish(b"", routing_key=small, priority=priority)

    assert (caught.value.argument, caught.value.value) == ("priority", priority)
    assert "255" in str(caught.value)
    assert conn.get(small) is None


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_wherever_a_name_stands(conn: shmq.Connection, small: str, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: conn.declare_queue(name),
        lambda: conn.declare_exchange(name),
        lambda: conn.get(name),
        lambda: conn.consume(name),
        lambda: conn.consume(small, consumer_tag=name),
        lambda: conn.bind_queue(small, name, "k"),
        lambda: conn.delete_queue(name),
        lambda: conn.publish(b"", exchange=name),
    ]
    for call in calls:
        with refused(shmq.InvalidName) as caught:
            call()
        assert "\0" not in str(caught.value)
        assert "\n" not in str(caught.value)
        str(caught.value).encode()


@pytest.mark.parametrize("priority", [0, 256])
def test_a_bad_number_of_levels_is_refused(conn: shmq.Connection, priority: int) -> None:
    with refused(shmq.InvalidArgument):
        conn.declare_queue("levels", max_priority=priority)


# -- the wrong end of a socket ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(path: Path, answer: Answer) -> Iterator[str]:
    """Something that is not shmqd: does `answer` to each who connects, and holds the socket until the end."""
    over = threading.Event()

    def serve() -> None:
        listener.settimeout(0.05)
        with contextlib.ExitStack() as peers:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    peer, _ = listener.accept()
                    peers.enter_context(peer)
                    with contextlib.suppress(OSError):
                        answer(peer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"shmq://{path}"
        finally:
            over.set()
            thread.join()


def connect(url: str, mode: str, timeout: float = 0.5) -> None:
    """As a caller does; less patient than the default, so that a busy host does not make it a second."""
    shmq.connect(url, mode=mode, timeout=timeout).close()  # type: ignore[arg-type] # one of its words


def test_connecting_to_nothing_names_the_path_and_the_command(tmp_path: Path, mode: str) -> None:
    with refused(shmq.DaemonNotRunning) as caught:
        connect(f"shmq://{tmp_path}/none.sock", mode)

    assert list(caught.value.paths) == [f"{tmp_path}/none.sock"]
    assert f"Start it: shmqd --socket {tmp_path}/none.sock" in str(caught.value)


def test_a_stale_socket_is_nobody(tmp_path: Path, mode: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "stale.sock"))

    with refused(shmq.DaemonNotRunning):
        connect(f"shmq://{tmp_path}/stale.sock", mode)


ANSWERS: dict[str, Answer] = {
    "closes": lambda peer: peer.close(),
    "closes when spoken to": lambda peer: [peer.recv(1), peer.shutdown(socket.SHUT_RDWR)],  # type: ignore[func-returns-value] # shutdown gives None
    "speaks HTTP": lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "sends noise": lambda peer: peer.sendall(random.Random(7).randbytes(1 << 16)),
    "announces a giant": lambda peer: peer.sendall(b"\xff\xff\xff\xff\x9f\x40"),
    "echoes": lambda peer: peer.sendall(peer.recv(4096)),
    "sends a frame of nothing": lambda peer: peer.sendall(b"\0\0\0\0"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_who_is_not_shmqd_is_recognised(tmp_path: Path, answer: str, mode: str) -> None:
    with listening(tmp_path / "other.sock", ANSWERS[answer]) as url, refused(shmq.NotShmqd) as caught:
        connect(url, mode)

    assert "other.sock" in str(caught.value)


def test_who_is_silent_is_given_up(tmp_path: Path, mode: str) -> None:
    with listening(tmp_path / "other.sock", lambda _peer: None) as url, refused(shmq.OperationTimeout) as caught:
        connect(url, mode)

    assert "other.sock" in str(caught.value)


def test_the_patience_of_connect_is_below_a_second_unless_told_otherwise(tmp_path: Path) -> None:
    with listening(tmp_path / "other.sock", lambda _peer: None) as url, refused(shmq.OperationTimeout) as caught:
        shmq.connect(url)

    assert caught.value.timeout <= 0.9 * IN_TIME


def test_a_full_backlog_is_given_up(tmp_path: Path, mode: str) -> None:
    """A listener that accepts nobody, with no room for another: the client does not block in connect(2)."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as others:
        listener.bind(str(tmp_path / "full.sock"))
        listener.listen(0)
        for _ in range(2):
            other = others.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            with contextlib.suppress(BlockingIOError):
                other.connect(str(tmp_path / "full.sock"))

        with refused(shmq.SessionError):
            connect(f"shmq://{tmp_path}/full.sock", mode)


# -- what nobody can see to -------------------------------------------------------------------------------------------


def test_who_writes_in_a_queues_memory_without_our_client_may_say_to_be_anybody(daemon: Shmqd) -> None:
    """As docs/OPERATIONS.md says: whoever has `direct` is trusted with `user_id`."""
    forged = encode_envelope("", "trusting", make_properties(user_id=str(os.getuid() + 1)))
    with daemon.connect("direct") as conn:
        conn.declare_queue("trusting")
        with refused(shmq.PreconditionFailed):
            conn.publish(b"", routing_key="trusting", user_id=str(os.getuid() + 1))
        conn._attachments.attach("trusting").queue.publish(b"", envelope=forged)

        message = conn.get("trusting")
        assert message is not None
        assert message.user_id == str(os.getuid() + 1)
        message.ack()
        conn.delete_queue("trusting")
