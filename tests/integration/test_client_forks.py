"""A forked child: every use of the parent's handles raises ForkedHandle, and the parent goes on unharmed."""

import gc
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import shmq
from support.deadline import scaled


def in_child(check: Callable[[], None]) -> int:
    """Run `check` in a forked child and return its exit code: 0 if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the child ends here whatever it was
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_every_use_in_a_child_raises_and_the_parent_goes_on(mode: Any) -> None:
    with shmq.local() as url, shmq.connect(url, mode=mode) as conn:
        conn.declare_queue("q")
        conn.publish_many([b"x"] * 10, routing_key="q", confirm="memory")
        message = conn.get("q")
        consumer = conn.consume("q", prefetch=3)
        held = next(consumer)
        assert message is not None

        def check() -> None:
            for use in (
                lambda: conn.publish(b"y", routing_key="q"),
                lambda: conn.get("q"),
                lambda: conn.get("other"),
                conn.status,
                lambda: next(consumer),
                conn.close,
                message.ack,
            ):
                with pytest.raises(shmq.ForkedHandle):
                    use()

        assert in_child(check) == 0
        message.ack()
        held.ack()
        consumer.cancel()
        conn.wait_for_confirms()
        assert conn.queue_info("q").consumers in {0, 1}


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_child_that_exits_closes_nothing(mode: Any) -> None:
    with shmq.local() as url, shmq.connect(url, mode=mode) as conn:
        conn.declare_queue("q")
        conn.publish(b"x", routing_key="q", confirm="memory")
        message = conn.get("q")
        assert message is not None

        def collect() -> None:
            nonlocal conn, message
            conn = message = None  # type: ignore[assignment] # as at the end of a process
            gc.collect()

        for _ in range(5):
            assert in_child(collect) == 0

        message.ack()
        conn.wait_for_confirms()
        info = conn.queue_info("q")
        assert (info.messages, info.unacked) == (0, 0)


def test_a_child_connects_anew() -> None:
    with shmq.local() as url, shmq.connect(url) as conn:
        conn.declare_queue("q")
        conn.publish(b"from the parent", routing_key="q")

        def work() -> None:
            with shmq.connect(url) as own:
                own.publish(b"from the child", routing_key="q")

        assert in_child(work) == 0
        assert [message.body for message in conn.get_batch("q")] == [b"from the parent", b"from the child"]


def test_a_child_leaves_the_local_broker_alone() -> None:
    with shmq.local() as url, shmq.connect(url) as conn:

        def leave() -> None:
            with shmq.connect(url) as own:
                own.declare_queue("q")

        assert in_child(leave) == 0
        assert conn.queue_info("q").messages == 0


def test_a_lock_that_another_thread_held_at_the_fork_holds_up_no_child() -> None:
    def ask() -> None:
        signal.alarm(int(scaled(5)))  # ends a child that waits
        with pytest.raises(shmq.ForkedHandle):
            _ = conn.blocked

    with shmq.local() as url, shmq.connect(url) as conn:
        held, forked = threading.Event(), threading.Event()

        def hold() -> None:
            with conn._link._turn:
                held.set()
                forked.wait(scaled(10))

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(scaled(5))
        code = in_child(ask)
        forked.set()
        holder.join()

        assert code == 0
