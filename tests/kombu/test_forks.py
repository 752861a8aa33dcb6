"""What becomes of a connection in children: forked by Python, by billiard, spawned; and after their parent's death."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import billiard
import kombu
import pytest
from amqp import exceptions as amqp

import shmq
from support.deadline import scaled, wait_until

WAIT = 10.0


def forked_by_os(child: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked_by_billiard(child: Callable[[], None]) -> int:
    process = billiard.get_context("fork").Process(target=child)
    process.start()
    process.join(scaled(WAIT))
    code: int = process.exitcode
    return code


def publish_one(conn: Any, queue: str) -> None:
    with conn.SimpleQueue(queue) as simple:
        simple.put("from the child")


@pytest.mark.parametrize("fork", [forked_by_os, forked_by_billiard])
def test_in_a_child_it_is_dead_connects_anew_and_the_parent_goes_on(
    conn: Any, fork: Callable[[Callable[[], None]], int]
) -> None:
    queue = conn.SimpleQueue("forks")
    queue.put("before")
    before = queue.get(timeout=WAIT)
    low, channel = conn.connection, conn.default_channel

    def child() -> None:
        assert not low.connected
        for call in (low.drain_events, low.channel, before.ack, lambda: channel.queue_declare("x")):
            with pytest.raises(amqp.RecoverableConnectionError):
                call()
        conn.collect()
        assert low.channels is None
        publish_one(conn, "forks")
        conn.release()

    assert fork(child) == 0
    before.ack()
    message = queue.get(timeout=WAIT)
    assert message.payload == "from the child"
    message.ack()
    assert conn.connection is low
    queue.close()


def test_a_child_may_be_forked_while_others_hold_locks(conn: Any) -> None:
    conn.connection.fileno()
    low = conn.connection
    lock = low.shmq._paths.watch._lock
    with lock:

        def child() -> None:
            with pytest.raises(amqp.RecoverableConnectionError):
                low.drain_events(timeout=1)
            low.collect()

        assert forked_by_os(child) == 0


def _in_spawned(pickled: bytes) -> None:
    import kombu.serialization  # noqa: F401, PLC0415 - as Celery does: it sets the alias

    conn = pickle.loads(pickled)
    publish_one(conn, "spawned")
    conn.release()


def test_a_spawned_child_gets_its_connection_pickled(conn: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_in_spawned, args=(pickle.dumps(conn),))
    process.start()
    process.join(scaled(30))

    assert process.exitcode == 0
    with conn.SimpleQueue("spawned") as queue:
        assert queue.get(timeout=WAIT).payload == "from the child"


def test_a_dead_owner_s_exclusive_queues_and_deliveries_are_free_at_once_whoever_has_its_socket(
    conn: Any, url: str
) -> None:
    with conn.SimpleQueue("of-the-dead") as queue:
        queue.put("x")
    read, write = os.pipe()
    owner = os.fork()
    if owner == 0:
        mine = kombu.Connection(url)
        message = mine.SimpleQueue("of-the-dead").get(timeout=WAIT)
        mine.default_channel.queue_declare("exclusively", exclusive=True)
        if os.fork() == 0:  # a grandchild inherits all descriptors that are not closed at fork
            os.write(write, b"%d\n" % os.getpid())
            time.sleep(60)  # until it is killed
        os.write(write, b"0\n")
        time.sleep(60)  # until it is killed
        del message
        os._exit(0)
    said = b""
    while said.count(b"\n") < 2:
        said += os.read(read, 100)
    grandchild = max(map(int, said.split()))
    with pytest.raises(amqp.ResourceLocked):
        conn.default_channel.queue_declare("exclusively", exclusive=True)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)

    def is_free() -> bool:
        try:
            conn.default_channel.queue_declare("exclusively", exclusive=True)
        except amqp.ResourceLocked:
            return False
        return True

    assert wait_until(is_free, "the queue is free") < scaled(1)
    message = conn.SimpleQueue("of-the-dead").get(timeout=WAIT)
    assert message.delivery_info["redelivered"]
    message.ack()
    os.kill(grandchild, signal.SIGKILL)
    os.close(read)
    os.close(write)


def test_importing_opens_nothing() -> None:
    def descriptors() -> set[str]:
        return {path.name for path in Path("/proc/self/fd").iterdir()}

    def child() -> None:
        for name in [name for name in sys.modules if name.startswith("shmq")]:
            del sys.modules[name]
        before = descriptors()
        __import__("shmq_clients.kombu")
        assert descriptors() == before

    assert forked_by_os(child) == 0
    assert shmq.__version__
