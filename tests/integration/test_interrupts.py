"""Calls of the blocking client that a signal interrupts: what came for them is nobody's loss."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

import shmq
from support.deadline import scaled


class Interrupted(BaseException):
    """As KeyboardInterrupt, of our own."""


@contextlib.contextmanager
def interrupted_in(seconds: float) -> Iterator[None]:
    """A signal comes, and its handler raises."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, scaled(seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with shmq.local() as at:
        yield at


@pytest.mark.parametrize("mode", ["direct", "socket"])
@pytest.mark.parametrize("no_ack", [False, True])
@pytest.mark.parametrize("call", ["get", "get_batch"])
def test_an_interrupted_get_takes_nothing_that_comes_later(url: str, mode: Any, call: str, *, no_ack: bool) -> None:
    with shmq.connect(url, mode=mode) as conn, shmq.connect(url, mode=mode) as other:
        queue = conn.declare_queue("").name
        wait: dict[str, Any] = {"timeout": 60} if call == "get" else {"max_wait": 60}
        with pytest.raises(Interrupted), interrupted_in(0.2):
            getattr(conn, call)(queue, no_ack=no_ack, **wait)

        other.publish(b"x", routing_key=queue, confirm="memory")
        message = other.get(queue, timeout=scaled(1))

        assert message is not None
        message.ack()
        conn.delete_queue(queue)
