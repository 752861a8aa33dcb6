"""A client in socket mode that says, frame by frame, what a test wants."""

import socket
from typing import Any

from shmq.wire import frames as wire
from shmq.wire.connection import Signal, client_connection
from shmq.wire.fields import Resume
from support.deadline import scaled
from support.shmqd import Shmqd


class Peer:
    """A client that says exactly what a test wants."""

    def __init__(self, daemon: Shmqd) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(scaled(8))
        self.socket.connect(str(daemon.socket))
        self.wire = client_connection()

    def say(self, *frames: wire.ClientFrame) -> None:
        self.socket.sendall(b"".join(self.wire.send(frame) for frame in frames))

    def hear(self) -> Any:  # the test knows what it expects
        while (event := self.wire.next_event()) is Signal.NEED_DATA:
            data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 8)
            self.wire.receive_data(data, descriptors)
        return event

    def ask(self, frame: wire.ClientFrame) -> Any:
        self.say(frame)
        return self.hear()

    def hello(self, resume: Resume | None = None) -> wire.Welcome:
        welcome = self.ask(wire.Hello(mode="socket", resume=resume))
        assert isinstance(welcome, wire.Welcome)
        return welcome

    def close(self) -> None:
        self.socket.close()
        self.wire.close()
