"""A private broker: there when asked for, gone with all it made, however its owner ends."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_its_clients_learn_at_once_that_it_is_gone(mode: Any) -> None:
    with shmq.local() as url:
        conn, waiting = shmq.connect(url, mode=mode), shmq.connect(url, mode=mode)
        conn.declare_queue("q", capacity_messages=16)
        conn.publish(b"x", routing_key="q", confirm="memory")
        message = conn.get("q", timeout=1)
        blocked = ThreadPoolExecutor().submit(next, waiting.consume("q"))
    with conn, waiting:
        start = time.monotonic()
        calls: list[Any] = [
            lambda: blocked.result(scaled(5)),
            lambda: conn.get("q"),
            lambda: conn.get("q", timeout=None),
            lambda: conn.publish(b"x", routing_key="q"),
            lambda: conn.publish(b"x", routing_key="q", timeout=math.inf),
            lambda: next(conn.consume("q")),
            lambda: conn.queue_info("q"),
        ]
        for call in calls:
            with pytest.raises(shmq.ConnectionLost, match=r"ended for good.*its owner has let it go") as caught:
                call()
            assert caught.value.gone
        assert message is not None
        with contextlib.suppress(shmq.StaleDelivery):  # direct: its memory is still there
            message.ack()
        assert time.monotonic() - start < scaled(0.5)


def test_a_publisher_that_waits_for_room_learns_it_too() -> None:
    with ThreadPoolExecutor() as pool:
        with shmq.local() as url:
            conn = shmq.connect(url)
            conn.declare_queue("q", capacity_messages=16)
            with contextlib.suppress(shmq.QueueFull):
                while True:
                    conn.publish(b"x", routing_key="q", timeout=0)
            blocked = pool.submit(conn.publish, b"x", routing_key="q", timeout=60)
            wait_until(lambda: conn._attachments.attach("q").queue.stats()["ready"] == 16, "it is full")
        with conn, pytest.raises(shmq.ConnectionLost, match="ended for good"):
            blocked.result(scaled(5))


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
