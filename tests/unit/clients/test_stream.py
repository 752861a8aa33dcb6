"""shmq_clients.stream: whole frames out, whatever interrupts; the end of the socket is one error."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from shmq.wire.connection import Connection, broker_connection
from shmq.wire.frames import BrokerFrame, ClientFrame, Hello, Ping, Publish, Welcome
from shmq_clients.stream import Stream
from support.deadline import scaled


def nothing() -> None:
    """Read nothing."""


class Peer:
    """The other end of a stream's socket, after the welcome."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.wire: Connection[BrokerFrame, ClientFrame] = broker_connection()

    def take(self, count: int) -> list[ClientFrame]:
        """Read until so many frames are there."""
        frames: list[ClientFrame] = []
        while len(frames) < count:
            self.wire.receive_data(self.socket.recv(1 << 20))
            frames += self.wire.next_events()
        return frames


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Stream, Peer]]:
    """Give a stream that was welcomed, and its peer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        stream = Stream(tmp_path / "s.sock")
        peer = Peer(listener.accept()[0])
    stream.send(Hello(), nothing)
    peer.take(1)
    peer.socket.sendall(peer.wire.send(Welcome(1, 1, "", "i", "c", b"s" * 16, 40)))
    assert isinstance(stream.receive()[0], Welcome)
    yield stream, peer
    peer.socket.close()
    stream.close()


def test_a_frame_that_was_interrupted_is_finished_by_the_next(ends: tuple[Stream, Peer]) -> None:
    stream, peer = ends

    def interrupt() -> None:
        raise KeyboardInterrupt

    peer.socket.sendall(b"\0")  # so that a writer without room has something to read, and is interrupted there
    with pytest.raises(KeyboardInterrupt):
        stream.send(Publish(0, "", "q", b"", bytes(5_000_000)), interrupt)

    frames: list[ClientFrame] = []
    reader = threading.Thread(target=lambda: frames.extend(peer.take(2)))
    reader.start()
    stream.send(Ping(1), nothing)
    reader.join(scaled(5))

    assert [type(frame) for frame in frames] == [Publish, Ping]


def test_the_end_of_the_socket_is_one_error_for_reader_and_writer(ends: tuple[Stream, Peer]) -> None:
    stream, peer = ends
    peer.socket.close()

    with pytest.raises(shmq.ConnectionLost, match=r"s\.sock"):
        stream.receive()
    with pytest.raises(shmq.ConnectionLost):
        stream.send(Ping(1), nothing)


def test_who_writes_after_another_thread_saw_the_end_is_told_the_same(ends: tuple[Stream, Peer]) -> None:
    stream, _ = ends
    stream.close()

    with pytest.raises(shmq.ConnectionLost):
        stream.send(Ping(1), nothing)


def test_a_forked_child_lets_go_without_shutting_down(ends: tuple[Stream, Peer]) -> None:
    stream, peer = ends
    pid = os.fork()
    if pid == 0:
        stream.forked()
        os._exit(0 if stream.fileno() == -1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    stream.send(Ping(7), nothing)

    assert peer.take(1) == [Ping(7)]
