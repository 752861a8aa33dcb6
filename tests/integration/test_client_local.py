"""A private broker: there when asked for, gone with all it made, however its owner ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped] # ships no types
import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import in_shm


def daemons_in(folder: str) -> list[int]:
    """Processes that were started for a socket below `folder`."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(folder in word for word in process.info["cmdline"] or []) and process.pid != os.getpid()
    ]


def segments_of(instance: str) -> set[str]:
    """What an instance has in /dev/shm."""
    return {name for name in in_shm() if instance in name}


def test_it_serves_and_leaves_nothing() -> None:
    with shmq.local() as url:
        folder = Path(url.removeprefix("shmq://")).parent
        with shmq.connect(url) as conn:
            conn.declare_queue("q")
            conn.publish(b"x", routing_key="q")
            instance = conn.status().instance
        assert segments_of(instance)
        assert daemons_in(str(folder))

    assert daemons_in(str(folder)) == []
    assert not folder.exists()
    assert segments_of(instance) == set()


def test_two_do_not_see_each_other() -> None:
    with shmq.local() as one, shmq.local() as other, shmq.connect(one) as first, shmq.connect(other) as second:
        first.declare_queue("q")

        with pytest.raises(shmq.NotFound):
            second.queue_info("q")


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_owner(signal_number: signal.Signals) -> None:
    script = (
        "import shmq, time\n"
        "with shmq.local() as url, shmq.connect(url) as conn:\n"
        "    conn.declare_queue('q')\n"
        "    conn.publish(b'x' * 100000, routing_key='q')\n"
        "    print(url, conn.status().instance, flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert owner.stdout is not None
    url, instance = owner.stdout.readline().decode().split()
    folder = Path(url.removeprefix("shmq://")).parent
    assert segments_of(instance)

    owner.send_signal(signal_number)
    owner.wait(scaled(10))
    owner.stdout.close()

    wait_until(lambda: daemons_in(str(folder)) == [], "the daemon is gone")
    wait_until(lambda: segments_of(instance) == set(), "its memory is gone")
    wait_until(lambda: not folder.exists(), "its directory is gone")


def test_a_daemon_that_does_not_start_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(shmq.DaemonNotRunning, match="ended with code 1; its log"), shmq.local():
        pass
