"""The daemon does its whole work with the system calls and capabilities that its unit leaves it."""

import ctypes.util
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from support import needs
from support.deadline import scaled, wait_until

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/shmqd.service"


def calls_in(group: str) -> set[str]:
    """Return the system calls in one of systemd's groups."""
    command = [needs.program("systemd-analyze"), "syscall-filter", "--no-pager", group]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = {line.strip() for line in lines[1:] if not line.strip().startswith("#")} - {"", group}
    return {word for word in words if word[0] != "@"}.union(*(calls_in(word) for word in words if word[0] == "@"))


@pytest.fixture
def sandboxed() -> Iterator[list[subprocess.Popen[str]]]:
    """What was started; nothing of it outlives the test."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def allowed() -> str:
    """The names of the calls that the unit allows."""
    if ctypes.util.find_library("seccomp") is None:
        needs.missing("libseccomp")
    filters = re.findall(r"^SystemCallFilter=(~?)(.+)$", UNIT.read_text(), re.MULTILINE)
    names: set[str] = set()
    for without, groups in filters:
        listed = set[str]().union(*map(calls_in, groups.split()))
        names = names - listed if without else names | listed
    return "\n".join(names)


def shmqd(folder: Path, allowed: str, *flags: str) -> subprocess.Popen[str]:
    """Start shmqd in the sandbox."""
    command = [sys.executable, str(ROOT / "tests/support/sandbox.py"), sys.executable, "-I", "-m", "shmq_daemon.main"]
    paths = ["--socket", str(folder / "s.sock"), "--data", str(folder / "data")]
    process = subprocess.Popen(
        [*command, *paths, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdin is not None
    process.stdin.write(allowed)
    process.stdin.close()
    process.stdin = None
    return process


def test_the_daemon_works_within_its_unit(tmp_path: Path, allowed: str, sandboxed: list[subprocess.Popen[str]]) -> None:
    daemon = shmqd(tmp_path, allowed)
    sandboxed.append(daemon)
    wait_until(lambda: (tmp_path / "s.sock").exists() or daemon.poll() is not None, "shmqd listens", 10)
    assert daemon.poll() is None, daemon.communicate()[0]

    for mode in ("direct", "socket"):
        with shmq.connect(f"shmq://{tmp_path}/s.sock", mode=mode) as conn:
            conn.declare_queue(mode, max_priority=3)
            conn.publish(b"x" * 200_000, routing_key=mode, persistent=True)
            message = conn.get(mode, timeout=scaled(2))
            assert message is not None
            message.ack()

    daemon.send_signal(signal.SIGTERM)
    log = daemon.communicate(timeout=scaled(10))[0]
    assert daemon.returncode == 0, log
    assert "Operation not permitted" not in log
    discard = shmqd(tmp_path, allowed, "--discard")
    sandboxed.append(discard)
    assert "segments" in discard.communicate(timeout=scaled(10))[0]
