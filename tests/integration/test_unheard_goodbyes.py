"""Connections that are closed while no daemon hears it: the next one knows all the same, also of those it never meets
again; who is alive and merely slow to come back keeps what it had.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from shmq_daemon.absent import LOOK_NS
from support.adapted import LoopThread, connect_adapted
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance

Connect = Callable[..., shmq.Connection]
LOOK_SECONDS = LOOK_NS / 1e9
TESTS = Path(__file__).parents[1]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running, running.connect() as connection:
        connection.declare_queue("q")
        yield running


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest, daemon: Shmqd, mode: str, loop: LoopThread) -> Connect:
    """Connect with the client and in the mode under test."""
    if request.param == "asyncio":
        return lambda **options: connect_adapted(loop, daemon.url, mode=mode, timeout=scaled(5), **options)
    return lambda **options: shmq.connect(daemon.url, mode=mode, timeout=scaled(5), **options)  # type: ignore[arg-type] # a mode


def begin(conn: shmq.Connection) -> Any:
    """Have an exclusive queue with a message, and an unacked delivery of another."""
    conn.declare_queue("mine", exclusive=True)
    conn.publish(b"old", routing_key="mine", confirm="memory")
    conn.publish(b"held", routing_key="q", confirm="memory")
    return conn.get("q", timeout=scaled(5))


def check_released(conn: shmq.Connection) -> None:
    """What `begin` had is anybody's: the name is free, the queue of before is gone, the message comes again."""
    conn.declare_queue("mine", exclusive=True)
    assert conn.get("mine", timeout=0) is None
    again = conn.get("q", timeout=scaled(5))
    assert again is not None
    assert (again.body, again.redelivered) == (b"held", True)
    again.ack()


@pytest.mark.parametrize("end", ["kill_all", "stop"])
def test_closed_while_the_daemon_is_away(daemon: Shmqd, connect: Connect, end: str) -> None:
    conn = connect()
    begin(conn)
    getattr(daemon, end)()
    conn.close()
    daemon.start()

    with connect() as other:
        check_released(other)


def test_closed_after_it_gave_up(daemon: Shmqd, connect: Connect) -> None:
    conn = connect(reconnect_timeout=0.2)
    begin(conn)
    daemon.kill_all()
    with pytest.raises(shmq.DaemonNotRunning):
        conn.get("q", timeout=scaled(10))
    conn.close()
    daemon.start()

    with connect() as other:
        check_released(other)


def test_closed_after_the_daemon_is_back_and_before_it_was_met(daemon: Shmqd, connect: Connect) -> None:
    conn = connect()
    begin(conn)
    daemon.kill_all()
    daemon.start()
    conn.close()

    with connect() as other:
        check_released(other)


def test_what_others_hold_is_not_touched(daemon: Shmqd, connect: Connect) -> None:
    conn, other = connect(), connect()
    begin(conn)
    other.declare_queue("theirs", exclusive=True)
    other.publish(b"kept", routing_key="theirs", confirm="memory")
    daemon.kill_all()
    conn.close()
    daemon.start()

    kept = other.get("theirs", timeout=scaled(5))
    assert kept is not None
    assert kept.body == b"kept"
    check_released(other)
    other.close()


def test_who_has_lost_its_presence_is_not_taken_to_have_left(daemon: Shmqd) -> None:
    """It says so when it resumes, and is from then on as one that keeps none."""
    with shmq.connect(daemon.url, mode="direct") as conn:
        begin(conn)
        with socket.socket(fileno=os.dup(conn.control_fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
        conn._link._present.leave(clean=True)
        assert conn.queue_info("mine").messages == 1
        kill_broker(daemon)
        with daemon.connect() as other:
            assert other.get("q", timeout=4 * LOOK_SECONDS) is None
        assert not is_free(daemon, "mine")


def test_who_keeps_no_presence_has_what_it_had_for_as_long_as_its_process_lives(
    daemon: Shmqd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As clients of other kinds may do."""
    monkeypatch.setattr("shmq_clients.present.Present.position", None)  # says in its hello that it wants none
    with shmq.connect(daemon.url, mode="direct") as conn:
        begin(conn)
        kill_broker(daemon)
        with daemon.connect() as other:
            assert other.get("q", timeout=4 * LOOK_SECONDS) is None
        assert not is_free(daemon, "mine")
        mine = conn.get("mine")
        assert mine is not None
        assert mine.body == b"old"


def test_a_view_that_outlives_its_connection_keeps_its_bytes(daemon: Shmqd) -> None:
    body = os.urandom(100_000)
    conn = shmq.connect(daemon.url, mode="direct")
    conn.declare_queue("mine", exclusive=True)
    conn.publish(body, routing_key="q")
    message = conn.get("q")
    assert message is not None
    view = message.view()
    message.ack()
    daemon.kill_all()
    conn.close()
    daemon.start()

    with daemon.connect("direct") as other:
        other.declare_queue("mine", exclusive=True)
        for _ in range(50):
            other.publish(bytes(100_000), routing_key="q")
            taken = other.get("q")
            assert taken is not None
            taken.ack()
    assert view == body
    view.release()


# -- another process, of which the daemon hears nothing ----------------------------------------------------------------

PROCESS = """
import os, sys, time
import shmq
url, mode = sys.argv[1:]
conn = shmq.connect(url, mode=mode, reconnect_timeout=None)
conn.declare_queue("mine", exclusive=True)
conn.publish(b"old", routing_key="mine", confirm="memory")
conn.publish(b"held", routing_key="q", confirm="memory")
held = conn.get("q", timeout=None)
print("ready", flush=True)
for line in sys.stdin:
    try:
        said = str(eval(line))
    except shmq.ShmqError as error:
        said = type(error).__name__
    print(said, flush=True)
"""


class Process:
    """A client of its own that does what it is told."""

    def __init__(self, daemon: Shmqd, mode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, daemon.url, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self._said() == "ready"

    def do(self, what: str) -> str:
        """Evaluate an expression; returns what came of it, or the name of the error."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        """With the children that it was told to have."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def process(daemon: Shmqd, mode: str) -> Iterator[Process]:
    one = Process(daemon, mode)
    yield one
    one.close()


def kill_broker(daemon: Shmqd) -> None:
    daemon.kill("broker")
    wait_until(daemon.serves, "the next one serves")


def is_free(daemon: Shmqd, name: str) -> bool:
    with daemon.connect() as conn, contextlib.suppress(shmq.ResourceLocked):
        conn.declare_queue(name, exclusive=True)
        return True
    return False


@pytest.mark.parametrize("when", ["away", "back"])
def test_a_process_that_does_not_connect_again_holds_nothing_up(daemon: Shmqd, process: Process, when: str) -> None:
    daemon.kill_all()
    if when == "away":
        process.do("conn.close()")
    daemon.start()
    if when == "back":
        assert not is_free(daemon, "mine")
        process.do("conn.close()")

    wait_until(lambda: is_free(daemon, "mine"), "the exclusive queue is gone")
    with daemon.connect() as conn:
        check_released(conn)


def test_a_program_that_takes_the_process_over_holds_nothing_up(daemon: Shmqd, process: Process) -> None:
    daemon.kill_all()
    daemon.start()
    process.do("print('gone', flush=True) or __import__('os').execv(sys.executable, [sys.executable, '-c', 'input()'])")

    wait_until(lambda: is_free(daemon, "mine"), "the exclusive queue is gone")


def test_who_is_alive_and_slow_keeps_everything(daemon: Shmqd, process: Process, mode: str) -> None:
    process.signal(signal.SIGSTOP)
    daemon.kill_all()
    daemon.start()
    for _ in range(3):
        kill_broker(daemon)
    with daemon.connect() as conn:
        again = conn.get("q", timeout=4 * LOOK_SECONDS)
        assert (again is None) == (mode == "direct")  # in socket mode a broker had it, which is dead
        assert not is_free(daemon, "mine")
        process.signal(signal.SIGCONT)

        assert process.do("conn.get('mine').body") == "b'old'"
        assert process.do("held.ack()") == ("None" if mode == "direct" else "StaleDelivery")
        assert not is_free(daemon, "mine")


def test_a_process_that_dies_later_has_died_and_not_closed(daemon: Shmqd) -> None:
    """What it held counts as a failure, so that a message that kills who takes it comes to its end."""
    process = Process(daemon, "direct")
    daemon.kill_all()
    daemon.start()
    process.close()

    with daemon.connect() as conn:
        again = conn.get("q", timeout=scaled(5))
        assert again is not None
        assert again.headers["x-delivery-count"] == 1
        again.ack()


def test_a_forked_child_lets_go_of_nothing(daemon: Shmqd, process: Process) -> None:
    process.do("os.fork() or os._exit(0)")
    daemon.kill_all()
    process.do("os.fork() or (time.sleep(1), os._exit(0))")  # it ends while the next daemon runs
    daemon.start()
    assert not is_free(daemon, "mine")
    process.do("os.fork() or time.sleep(60)")  # it outlives the test's questions
    daemon.kill_all()
    process.do("conn.close()")
    daemon.start()

    wait_until(lambda: is_free(daemon, "mine"), "a child holds nothing up")


def test_no_descriptor_stays_open(daemon: Shmqd, connect: Connect) -> None:
    connect().close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        conn = connect()
        begin(conn).ack()
        kill_broker(daemon)
        conn.close()

    assert len(list(Path("/proc/self/fd").iterdir())) == before
