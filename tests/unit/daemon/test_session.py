"""shmq_daemon.session: what the kernel does not take now is written later, as long as the peer is there."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from shmq.wire.connection import client_connection
from shmq.wire.frames import Bells, Hello, Ok, Welcome
from shmq_daemon.loop import Loop, Timers
from shmq_daemon.peer import identify
from shmq_daemon.session import Session
from support.deadline import wait_until


class Broker:
    """Its loop and its sessions; it welcomes who says hello."""

    def __init__(self) -> None:
        self.loop, self.timers = Loop(), Timers(time.monotonic_ns)
        self.unflushed: set[Session] = set()
        self.polls = 0

    def on_frame(self, session: Session, _hello: Any) -> None:
        session.send(Welcome(1, 1, "1", "instance", "id", b"s" * 16, 32))

    def on_session_end(self, _session: Session) -> None: ...
    def on_room(self, _client: Any) -> None: ...

    def tick(self) -> None:
        self.polls += 1
        deadline = self.timers.tick(now := time.monotonic_ns())
        for session in list(self.unflushed):
            session.go_on()
        self.loop.poll(10_000_000 if deadline is None else min(deadline - now, 10_000_000))


class Full:
    """A socket for which the kernel takes no descriptors until told otherwise: too many are under way elsewhere."""

    def __init__(self, real: socket.socket, error: int) -> None:
        self.error = error
        self._real = real

    def sendmsg(self, *arguments: Any) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self._real.sendmsg(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("error", [errno.ETOOMANYREFS, errno.ENOMEM])
def test_an_answer_for_whose_descriptors_there_is_no_room_yet_comes_later_and_nobody_spins(
    ends: tuple[socket.socket, socket.socket], error: int
) -> None:
    ours, theirs = ends
    broker, wire = Broker(), client_connection()
    session = Session(ours, identify(ours), broker.loop, broker.timers, broker)
    theirs.sendall(wire.send(Hello(mode="auto")))
    broker.tick()
    full: Any = Full(ours, error)
    session._socket = full
    session.send(Bells(1, 7, 1), (os.eventfd(3), os.eventfd(0)))
    session.send(Ok(2))
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        broker.tick()

    assert broker.polls < 50
    full.error = 0
    events: list[Any] = []
    bells: list[int] = []
    theirs.setblocking(False)

    def all_came() -> bool:
        broker.tick()
        with contextlib.suppress(BlockingIOError):
            data, descriptors, _, _ = socket.recv_fds(theirs, 1 << 16, 2)
            wire.receive_data(data, descriptors)
        while came := wire.next_events():
            events.extend(came)
            bells.extend(wire.take_descriptors() if isinstance(came[-1], Bells) else ())
        return len(events) == 3

    wait_until(all_came, "all answers come")
    assert [type(event) for event in events] == [Welcome, Bells, Ok]
    assert os.eventfd_read(bells[0]) == 3
    for fd in bells:
        os.close(fd)
    session.close()
