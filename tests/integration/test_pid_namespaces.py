"""Clients and daemons in containers: a process that the daemon can't name by a pid is served and outlived like others.

A container is made here of what it consists of: namespaces of its own for pids and mounts, and of the host's files
nothing but the socket.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # ships no types
import pytest

import shmq
from support import containers, needs
from support.deadline import scaled, wait_until
from support.shmqd import COMMAND, Shmqd
from support.subjects import DAEMON, Subject, daemon_of

CLIENT = """
import sys, shmq
with shmq.connect(sys.argv[1], mode=sys.argv[2], timeout=5) as conn:
    message = conn.get("jobs", timeout=5)
    conn.publish(b"", routing_key="said")
    print(message.body.decode(), flush=True)
    while True:
        conn.get("nothing", timeout=0.05)
"""
INSIDE = """
set -e
mount -t tmpfs none /dev/shm
mount --bind "$1" "$2"
mount -t tmpfs none "$3"
shift 3
exec "$@"
"""
AS_BEFORE_LINUX_6_5 = """
import sys
from shmq_daemon import main, peer
peer.SO_PEERPIDFD = 9999
sys.exit(main.main())
"""
DAEMONS = {
    "pid namespace": COMMAND,
    "pid namespace, no pidfd of a peer": [sys.executable, "-P", "-c", AS_BEFORE_LINUX_6_5],
}


@pytest.fixture(scope="module")
def unshare() -> list[str]:
    """Give the command that runs another one in namespaces of its own."""
    command = [needs.program("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        needs.missing("the right to make namespaces")
    return command


class Contained(Shmqd):
    """A daemon in a pid namespace: no pid outside has a number in there."""

    def __init__(self, folder: Path, unshare: list[str], command: list[str]) -> None:
        super().__init__(folder)
        self.command = [*unshare, *command]

    def host_pid(self, role: str) -> int:
        """The pid of a child as we see it."""
        inside = self.child(role)
        family: list[int] = [process.pid for process in psutil.Process(self.pid).children(recursive=True)]
        return next(pid for pid in family if pids(pid)[-1] == inside)


def pids(pid: int) -> list[int]:
    """The numbers of a process in all namespaces from ours inwards."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [int(word) for line in lines if line.startswith("NSpid:") for word in line.split()[1:]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    """A daemon on the host."""
    yield from serving(Shmqd(tmp_path))


@pytest.fixture(params=DAEMONS)
def contained(tmp_path: Path, unshare: list[str], request: pytest.FixtureRequest) -> Iterator[Contained]:
    """A daemon in a container."""
    yield from serving(Contained(tmp_path, unshare, DAEMONS[request.param]))


def serving(daemon: Any) -> Iterator[Any]:
    try:
        daemon.start()
        prepare(daemon)
        yield daemon
    finally:
        daemon.close()


def prepare(daemon: Shmqd) -> None:
    """Have something to work on."""
    with daemon.connect() as conn:
        conn.declare_queue("jobs", delivery_limit=5)
        conn.declare_queue("nothing")
        conn.declare_queue("said")
        conn.publish(b"work", routing_key="jobs", confirm="memory")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Clients that a test starts; nothing of them is left."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


def working(process: subprocess.Popen[bytes]) -> int:
    """Return the pid of a client that has the message."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"work\n"
    return next((child.pid for child in psutil.Process(process.pid).children()), process.pid)


def redelivered_after(daemon: Shmqd, pid: int, *, failures: int = 1) -> float:
    """Kill a client, and take what it had. Returns the seconds that this took."""
    with daemon.connect() as conn:
        assert conn.get("jobs") is None
        os.kill(pid, signal.SIGKILL)
        start = time.monotonic()
        message = conn.get("jobs", timeout=scaled(5))
        assert message is not None
        assert (message.redelivered, message.failure_count) == (True, failures)  # type: ignore[attr-defined] # a Message
        message.ack()
        return time.monotonic() - start


def enclosed(daemon: Shmqd, mode: str, unshare: list[str], door: Path) -> subprocess.Popen[bytes]:
    """Start a client that sees nothing of the host but the socket, at the door."""
    door.touch()
    command = [sys.executable, "-c", CLIENT, f"shmq://{door}", mode]
    mounts = [str(daemon.socket), str(door), str(daemon.data)]
    inside = [*unshare, "--mount", "sh", "-c", INSIDE, "sh", *mounts, *command]
    return subprocess.Popen(inside, stdout=subprocess.PIPE)


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_client_in_a_container_that_has_only_the_socket(
    daemon: Shmqd, mode: str, unshare: list[str], started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    started.append(enclosed(daemon, mode, unshare, tmp_path / "door"))
    pid = working(started[-1])
    assert len(pids(pid)) > 1

    assert redelivered_after(daemon, pid) < scaled(1)


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_its_messages_name_it_as_the_host_does(
    daemon: Shmqd, mode: str, unshare: list[str], started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    started.append(enclosed(daemon, mode, unshare, tmp_path / "door"))
    pid = working(started[-1])

    with daemon.connect() as conn:
        message = conn.get("said", timeout=scaled(5), no_ack=True)
    assert message is not None
    assert message.sender == (os.geteuid(), os.getegid(), pid)


FOREIGN = Subject(61_001, 61_001)
FOR_FOREIGN = """
socket_mode = 0o666
[[permissions]]
uid = 61001
read = ["jobs"]
write = ["jobs"]
direct = ["jobs"]
"""


def work_inside(daemon: Shmqd, door: Path, mode: str, told: int) -> None:
    """In a child: tell the pid of the one inside, who tells what it got and what it sees, and waits to be killed."""
    pid = containers.enter(FOREIGN, daemon.socket, door)
    if pid:
        os.write(told, f"{pid}\n".encode())
        os.waitpid(pid, 0)
        return
    with shmq.connect(f"shmq://{door}", mode=mode, timeout=scaled(5)) as conn:  # type: ignore[arg-type] # a mode
        message = conn.get("jobs", timeout=scaled(5))
        assert message is not None
        seen = [str(len(list(Path("/dev/shm").iterdir()))), str(os.getpid()), str(os.geteuid())]
        os.write(told, b" ".join([message.body, *map(str.encode, seen)]) + b"\n")
        signal.pause()


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_client_in_a_container_of_another_user_that_has_only_the_socket(mode: str) -> None:
    with daemon_of(DAEMON, FOR_FOREIGN) as daemon:
        containers.need_containers(FOREIGN)
        prepare(daemon)
        door = daemon.folder / "door"
        door.touch()
        read, write = os.pipe()
        outside = os.fork()
        if outside == 0:
            with contextlib.suppress(BaseException):
                work_inside(daemon, door, mode, write)
            os._exit(1)
        os.close(write)
        with os.fdopen(read) as told:
            lines = [told.readline(), told.readline()]
            pid = next(int(line) for line in lines if line.strip().isdigit())

            assert "work 0 1 0\n" in lines
            assert redelivered_after(daemon, pid) < scaled(1)
        os.waitpid(outside, 0)


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_client_whose_pid_the_daemon_cannot_see(
    contained: Contained, mode: str, started: list[subprocess.Popen[bytes]]
) -> None:
    started.append(subprocess.Popen([sys.executable, "-c", CLIENT, contained.url, mode], stdout=subprocess.PIPE))
    pid = working(started[-1])

    assert redelivered_after(contained, pid) < scaled(1)
    wait_until(lambda: "pid=0 " in contained.log.read_text(), "the log says of whom it does not know more")


@pytest.mark.parametrize("role", ["broker", "supervisor"])
def test_such_a_client_outlives_a_child_of_the_daemon(
    contained: Contained, role: str, started: list[subprocess.Popen[bytes]]
) -> None:
    started.append(subprocess.Popen([sys.executable, "-c", CLIENT, contained.url, "direct"], stdout=subprocess.PIPE))
    pid = working(started[-1])
    with contained.connect() as conn:
        before = conn.status().totals["connections"]
        os.kill(contained.host_pid(role), signal.SIGKILL)
        wait_until(lambda: restarts(conn, role) == 1, "it is there again")
        wait_until(lambda: conn.status().totals["connections"] == before, "the client has come back")
        assert conn.queue_info("jobs").unacked == 1

    assert redelivered_after(contained, pid) < scaled(1)


def test_such_a_client_is_known_again_by_its_pidfd_when_it_comes_back(tmp_path: Path, unshare: list[str]) -> None:
    for daemon in serving(Contained(tmp_path, unshare, COMMAND)):
        with daemon.connect("direct") as conn:
            message = conn.get("jobs")
            owner = conn._attachments.attach("jobs").queue.owner
            os.kill(daemon.host_pid("broker"), signal.SIGKILL)
            assert conn.queue_info("jobs").unacked == 1
            conn._link.session.stream._socket.shutdown(socket.SHUT_RDWR)

            assert conn.queue_info("jobs").unacked == 1  # the end of a socket is not the death of this process
            assert conn._attachments.attach("jobs").queue.owner == owner
            message.ack()


@pytest.mark.slow
def test_such_a_client_that_dies_with_the_broker_is_given_up_after_ten_seconds(
    contained: Contained, started: list[subprocess.Popen[bytes]]
) -> None:
    started.append(subprocess.Popen([sys.executable, "-c", CLIENT, contained.url, "direct"], stdout=subprocess.PIPE))
    pid = working(started[-1])
    broker = contained.host_pid("broker")
    os.kill(broker, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    os.kill(broker, signal.SIGKILL)

    with shmq.connect(contained.url, timeout=scaled(5)) as conn:
        message = conn.get("jobs", timeout=scaled(15))
        assert message is not None
        assert message.redelivered


def restarts(conn: shmq.Connection, role: str) -> int:
    return next((process.restarts for process in conn.status().processes if process.role == role), 0)
