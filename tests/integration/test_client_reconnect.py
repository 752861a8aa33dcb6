"""The daemon's deaths as a client sees them: the data path goes on, requests wait, consumers resume."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running, running.connect() as connection:
        connection.declare_queue("q")
        yield running


def kill(daemon: Shmqd, role: str) -> None:
    """Kill the child that serves now; the one before may still be what the status knows."""

    def killed() -> bool:
        try:
            daemon.kill(role)
        except (ProcessLookupError, StopIteration, shmq.SessionError):
            return False
        return True

    wait_until(killed, f"a {role} to kill")


class Collector:
    """Consumes in a thread until cancelled; keeps bodies and what ended it."""

    def __init__(self, connection: shmq.Connection) -> None:
        self.bodies: list[bytes] = []
        self.ended_by: BaseException | None = None
        self._consumer = connection.consume("q", prefetch=10)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for message in self._consumer:
                self.bodies.append(message.body)
                message.ack()
        except shmq.ShmqError as error:
            self.ended_by = error

    def stop(self) -> None:
        self._consumer.cancel()
        self._thread.join(scaled(5))
        assert not self._thread.is_alive()


@pytest.mark.parametrize("mode", ["direct", "socket"])
@pytest.mark.parametrize("role", ["broker", "supervisor"])
def test_a_waiting_consumer_outlives_a_child_of_the_daemon(daemon: Shmqd, mode: Any, role: str) -> None:
    with daemon.connect(mode) as conn:
        collector = Collector(conn)
        for number in range(3):
            kill(daemon, role)
            with shmq.connect(daemon.url, timeout=scaled(5)) as other:
                other.publish(b"%d" % number, routing_key="q", confirm="memory")
            wait_until(lambda number=number: len(collector.bodies) == number + 1, "it is delivered", 2)  # type: ignore[misc] # bound now
        collector.stop()

    assert collector.bodies == [b"0", b"1", b"2"]
    assert collector.ended_by is None


def test_a_direct_publisher_does_not_notice(daemon: Shmqd) -> None:
    """Of three deaths, because a busy host holds up a publish, too: what waits for the broker does so each time."""
    with daemon.connect("direct") as conn:
        conn.publish(b"x", routing_key="q")
        slowest, count = [0.0] * 3, 1
        for death in range(3):
            os.kill(daemon.child("broker"), signal.SIGKILL)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                start = time.monotonic()
                conn.publish(b"x", routing_key="q")
                slowest[death] = max(slowest[death], time.monotonic() - start)
                count += 1
                time.sleep(0.0001)  # to the next one

        assert min(slowest) < 0.1 * scaled(1)
        assert len(conn.get_batch("q", max_messages=65_536)) == min(count, 65_536)


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_request_waits_for_the_next_broker(daemon: Shmqd, mode: Any) -> None:
    with daemon.connect(mode) as conn:
        for _ in range(5):
            kill(daemon, "broker")
            assert conn.declare_queue("q").name == "q"
            assert conn.queue_info("q").messages == 0


def test_a_stopped_daemon_is_told_and_a_new_one_found(daemon: Shmqd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmq_clients.link.REQUEST_TIMEOUT", 0.5)
    with daemon.connect("direct") as conn:
        collector = Collector(conn)
        conn.publish(b"before", routing_key="q")
        daemon.stop()
        conn.publish(b"without", routing_key="q")
        with pytest.raises(shmq.DaemonNotRunning) as caught:
            conn._link.request(lambda seq: pytest.fail(f"{seq}"), timeout=0.3)
        assert str(daemon.socket) in str(caught.value)

        daemon.start()

        conn.publish(b"after", routing_key="q")
        wait_until(lambda: conn.status().durability == "memory", "it is connected again")
        wait_until(lambda: len(collector.bodies) == 3, "all three are delivered")
        collector.stop()
    assert collector.bodies == [b"before", b"without", b"after"]


WAITING: dict[str, Any] = {
    "consume": lambda conn: next(conn.consume("q")),
    "get": lambda conn: conn.get("q", timeout=None),
    "get_batch": lambda conn: conn.get_batch("q", max_wait=None),
    "publish by the broker": lambda conn: conn.publish(b"", routing_key="k", headers={"CC": ["q"]}, timeout=100),
    "queue_info": lambda conn: conn.queue_info("q"),
}


@pytest.mark.parametrize("mode", ["auto", "socket"])
@pytest.mark.parametrize("call", WAITING)
def test_nobody_waits_for_ever_for_a_daemon_that_is_gone(daemon: Shmqd, mode: Any, call: str) -> None:
    with shmq.connect(daemon.url, mode=mode, reconnect_timeout=0.3) as conn:
        conn.get("q")
        daemon.stop()
        start = time.monotonic()
        with pytest.raises(shmq.DaemonNotRunning) as caught:
            WAITING[call](conn)
        assert 0.25 < time.monotonic() - start < scaled(2)
        assert str(daemon.socket) in str(caught.value)
        assert "shmqd stops" in str(caught.value)
        assert "Start it" in str(caught.value)
        with pytest.raises(shmq.DaemonNotRunning):
            WAITING[call](conn)
        daemon.start()


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_consumer_that_was_told_of_it_goes_on_with_the_next_daemon(daemon: Shmqd, mode: Any) -> None:
    with shmq.connect(daemon.url, mode=mode, reconnect_timeout=0.2) as conn:
        consumer = conn.consume("q")
        daemon.stop()
        for _ in range(2):
            with pytest.raises(shmq.DaemonNotRunning):
                next(consumer)
        daemon.start()
        with daemon.connect() as other:
            other.publish(b"x", routing_key="q", confirm="memory")

        message = next(consumer)

        assert message.body == b"x"
        message.ack()


def test_direct_traffic_goes_on_when_the_daemon_is_given_up(daemon: Shmqd) -> None:
    with shmq.connect(daemon.url, mode="direct", reconnect_timeout=0.1) as conn:
        consumer = conn.consume("q")
        daemon.stop()
        with pytest.raises(shmq.DaemonNotRunning):
            next(consumer)

        conn.publish_many([b"1", b"2", b"3"], routing_key="q")

        one, two, three = next(consumer), conn.get("q", timeout=5), conn.get("q")
        assert two is not None
        assert three is not None
        assert [one.body, two.body, three.body] == [b"1", b"2", b"3"]
        conn.ack_many([one, two, three])
        daemon.start()


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_who_wants_to_waits_for_ever(daemon: Shmqd, mode: Any) -> None:
    with shmq.connect(daemon.url, mode=mode, reconnect_timeout=None) as conn:
        collector = Collector(conn)
        daemon.stop()
        wait_until(lambda: isinstance(conn._link._last_error, shmq.DaemonNotRunning), "the loss is noticed")
        time.sleep(0.5)  # it stays away for some tries
        daemon.start()
        with daemon.connect() as other:
            other.publish(b"x", routing_key="q", confirm="memory")

        wait_until(lambda: collector.bodies == [b"x"], "it is delivered")
        collector.stop()
    assert collector.ended_by is None


def test_a_daemon_that_hangs_is_as_good_as_gone(daemon: Shmqd) -> None:
    with shmq.connect(daemon.url, mode="socket", reconnect_timeout=0.5) as conn:
        consumer = conn.consume("q")
        os.killpg(daemon.pid, signal.SIGSTOP)
        try:
            cut(conn, forgotten=False)
            with pytest.raises(shmq.ConnectionLost, match="there was no other: no answer to hello"):
                next(consumer)
        finally:
            os.killpg(daemon.pid, signal.SIGCONT)


def test_a_time_to_reconnect_is_a_time() -> None:
    with pytest.raises(shmq.InvalidArgument, match="reconnect_timeout"):
        shmq.connect(reconnect_timeout=-1)


def test_what_was_unacked_by_frames_is_stale_after_the_brokers_death(daemon: Shmqd) -> None:
    with daemon.connect("socket") as conn:
        conn.publish(b"x", routing_key="q", confirm="memory")
        message = conn.get("q", timeout=1)
        assert message is not None
        daemon.kill("broker")
        assert conn.queue_info("q").definition.name == "q"

        with pytest.raises(shmq.StaleDelivery):
            message.ack()

        again = conn.get("q", timeout=2)
        assert again is not None
        assert again.redelivered
        again.ack()


@pytest.mark.parametrize("mode", ["direct", "socket"])
@pytest.mark.parametrize("call", ["conn.get('q', timeout=30)", "next(conn.consume('q'))", "list(conn.consume('q'))"])
def test_ctrl_c_ends_a_blocked_call_at_once(daemon: Shmqd, mode: str, call: str) -> None:
    script = f"import shmq\nconn = shmq.connect({daemon.url!r}, mode={mode!r})\nprint(1, flush=True)\n{call}"
    waiting = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
    )
    assert waiting.stdout is not None
    waiting.stdout.read(1)
    time.sleep(0.1)  # from its word until it waits
    start = time.monotonic()

    waiting.send_signal(signal.SIGINT)

    assert waiting.wait(scaled(5)) == -signal.SIGINT
    assert time.monotonic() - start < scaled(3)
    waiting.stdout.close()


def cut(conn: shmq.Connection, *, forgotten: bool) -> None:
    """End the socket without a goodbye; forgotten: the session can't be resumed, as after more than ten seconds."""
    session = conn._link.session
    assert session is not None
    if forgotten:
        conn._link._resume = None
    session.stream._socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_cut_connection_goes_on(daemon: Shmqd, mode: Any, *, forgotten: bool) -> None:
    with daemon.connect(mode) as conn, daemon.connect() as other:
        collector = Collector(conn)
        for number in range(5):
            other.publish(b"%d" % number, routing_key="q", confirm="memory")
            wait_until(lambda number=number: len(collector.bodies) == number + 1, "it is delivered")  # type: ignore[misc] # bound now
            cut(conn, forgotten=forgotten)
            wait_until(lambda: conn.queue_info("q").definition.name == "q", "it asks again")
            conn.publish(b"own", routing_key="q", confirm="memory", priority=0)
            wait_until(lambda: collector.bodies[-1:] == [b"own"], "its own is delivered")
            collector.bodies.pop()
        collector.stop()

    assert collector.bodies == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("forgotten", [False, True])
def test_direct_consumers_are_counted_by_the_next_broker_too(daemon: Shmqd, *, forgotten: bool) -> None:
    with daemon.connect("direct") as conn:
        consumer = conn.consume("q")
        assert conn.queue_info("q").consumers == 1
        cut(conn, forgotten=forgotten)
        assert conn.queue_info("q").consumers == 1
        kill(daemon, "broker")
        assert conn.queue_info("q").consumers == 1
        consumer.cancel()
        assert conn.queue_info("q").consumers == 0


def test_direct_deliveries_of_a_resumed_session_are_still_ours(daemon: Shmqd) -> None:
    with daemon.connect("direct") as conn:
        conn.publish(b"x", routing_key="q")
        message = conn.get("q")
        assert message is not None
        owner = conn._attachments.attach("q").queue.owner

        cut(conn, forgotten=False)
        assert conn.queue_info("q").unacked == 1
        message.ack()

        assert conn._attachments.attach("q").queue.owner == owner
        assert conn.queue_info("q").unacked == 0
