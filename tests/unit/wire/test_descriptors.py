"""Descriptors over a real socket: the kernel hands them over no later than the bytes they were sent with.

Invariant: however reads are cut, each frame gets the descriptors it was sent with.
"""

import os
import socket

import pytest

from shmq.limits import PENDING_DESCRIPTORS_MAX
from shmq.wire.connection import Connection, broker_connection, client_connection
from shmq.wire.frames import Attached, Bells, BrokerFrame, ClientFrame, Hello, Ok
from support.frame_samples import SAMPLES, WELCOME

BELLS, ATTACHED = SAMPLES["Bells"], SAMPLES["Attached"]
assert isinstance(BELLS, Bells)
assert isinstance(ATTACHED, Attached)
SENT: list[BrokerFrame] = [Ok(1), BELLS, Ok(2), ATTACHED, BELLS, Ok(3)]


def pipes(count: int) -> list[int]:
    """Read ends of pipes, each telling which one it is."""
    ends = []
    for number in range(count):
        read, write = os.pipe()
        os.write(write, bytes([number]))
        os.close(write)
        ends.append(read)
    return ends


def write(sender: socket.socket, broker: Connection[BrokerFrame, ClientFrame], frame: BrokerFrame) -> int:
    descriptors = pipes(getattr(frame, "descriptors", 0))
    socket.send_fds(sender, [broker.send(frame, descriptors)], descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return len(descriptors)


def identities(descriptors: tuple[int, ...]) -> bytes:
    found = b"".join(os.read(descriptor, 1) for descriptor in descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return found


@pytest.mark.parametrize("read_bytes", [1, 5, 17, 65_536])
def test_each_frame_gets_the_descriptors_it_was_sent_with(read_bytes: int) -> None:
    client, broker = client_connection(), broker_connection()
    broker.receive_data(client.send(Hello()))
    broker.next_event()
    sender, receiver = socket.socketpair()
    with sender, receiver:
        for frame in (WELCOME, *SENT):
            write(sender, broker, frame)
        sender.shutdown(socket.SHUT_WR)
        received = []
        while not client.ended:
            data, descriptors, *_ = socket.recv_fds(receiver, read_bytes, PENDING_DESCRIPTORS_MAX)
            client.receive_data(data, descriptors)
            while frames := client.next_events():
                received += [(frame, b"") for frame in frames[:-1]]
                received.append((frames[-1], identities(client.take_descriptors())))

    assert received == [(frame, bytes(range(getattr(frame, "descriptors", 0)))) for frame in (WELCOME, *SENT)]
