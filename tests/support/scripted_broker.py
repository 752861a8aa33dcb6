"""A broker that says what a test wants, on a real socket: what a true one never says, or not when it suits a test."""

import itertools
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shmq.wire.connection import broker_connection
from shmq.wire.frames import Closing, Counted, Goodbye, Hello, Ok, Ping, PublishMany, Welcome

Answer = Callable[[Any], Sequence[Any] | None]
"""Frames in answer to one; None: hang up."""


class ScriptedBroker:
    """Serves one client at a time; `answers` by type of frame may change at any time."""

    def __init__(self, folder: Path) -> None:
        self.url = f"shmq://{folder}/scripted.sock"
        self.frames: list[Any] = []
        self.sessions = 0
        self.answers: dict[type, Answer] = {
            Hello: self.welcome,
            Ping: lambda frame: [Ok(frame.seq)],
            PublishMany: lambda frame: [Counted(frame.seq, len(frame.bodies))],
            Goodbye: lambda _frame: [Closing(200)],
        }
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "scripted.sock"))
        self._listener.listen()
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def welcome(self, hello: Hello) -> Sequence[Any]:
        number = next(self._numbers)
        resumed = hello.resume is not None
        return [
            Welcome(1, 1, "0", "instance", f"connection-{number}", b"s" * 16, 40, resumed=resumed, reason="scripted")
        ]

    def received(self, kind: type) -> list[Any]:
        """All frames of a kind, in order."""
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def push(self, *frames: Any) -> None:
        """Say something unasked."""
        assert self._peer is not None
        self._peer.sendall(b"".join(self._wire.send(frame) for frame in frames))

    def drop(self) -> None:
        """Hang up on the client of now."""
        assert self._peer is not None
        self._peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._over.is_set():
            if select.select([self._listener], [], [], 0.02)[0]:
                self._peer, _ = self._listener.accept()
                with self._peer:
                    self._serve(self._peer)

    def _serve(self, peer: socket.socket) -> None:
        self._wire = broker_connection()
        self.sessions += 1
        while not self._over.is_set():
            if not select.select([peer], [], [], 0.02)[0]:
                continue
            try:
                data = peer.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                return
            self._wire.receive_data(data)
            while frames := self._wire.next_events():
                for frame in frames:
                    self.frames.append(frame)
                    answer = self.answers.get(type(frame), lambda _frame: [])(frame)
                    if answer is None:
                        return
                    self.push(*answer)


@contextmanager
def scripted(folder: Path) -> Iterator[ScriptedBroker]:
    """Run one; it is gone at the end."""
    broker = ScriptedBroker(folder)
    try:
        yield broker
    finally:
        broker.close()
