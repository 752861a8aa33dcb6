"""The link between broker and supervisor: its frames, and one class for both ends.

    broker -> supervisor   Opening (registry, supervisor's bell), ClientJoined (pidfd), QueueOpened (its bells), events
                           of the topology, ... Synced; from then on each change, SessionLost, ClientLeft, ClientDied
    supervisor -> broker   KeptBell ..., KeptEnd; from then on ClientReaped, AlarmRaised, AlarmCleared, Counters

Owns: the frames and moving them with their descriptors. Does not own: what either end does.
Invariants: one frame is one packet (SOCK_SEQPACKET), its descriptors travel with it; nothing here blocks; a frame
that is not sent at once keeps copies of its descriptors. Both ends are ours, so what arrives is trusted to be what
was sent.
"""

import array
import errno
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from shmq_daemon.descriptors import close_all, copies
from shmq_daemon.events import (
    Bound,
    Exchange,
    ExchangeDeclared,
    ExchangeDeleted,
    Queue,
    QueueDeleted,
    Unbound,
)

Declared = TypeVar("Declared", Queue, Exchange)

PACKET_BYTES_MAX: Final = 128 * 1024
PACKET_DESCRIPTORS_MAX: Final = 4
BUFFER_BYTES: Final = 1024 * 1024
PACKETS_READ_MAX: Final = 64  # before the loop looks at others


class LinkFrame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of the link's own frames."""


class Opening(LinkFrame, frozen=True):
    """The broker's first frame. Descriptors: the registry, the supervisor's bell."""

    broker: int  # index of the broker
    supervisor: int  # the index that the supervisor works with from now on


class QueueOpened(LinkFrame, frozen=True):
    """A queue to look after. Descriptors: the consumers' and the producers' bell; of one that is new also its segment,
    whose name may be gone when this is read, though something died there.
    """

    queue: Queue
    epoch: int


class ClientJoined(LinkFrame, frozen=True):
    """A client index is in use. Descriptor: its pidfd; none if it is dead, or known by its socket alone."""

    owner: int
    incarnation: int
    pid: int
    alive: bool = True


class SessionLost(LinkFrame, frozen=True):
    """A living process did not resume in time: only its unacked messages go back."""

    owner: int


class ClientLeft(LinkFrame, frozen=True):
    """Goodbye was said. Clean: nothing half written, no view alive, so the index may be used again after a reap."""

    owner: int
    clean: bool


class ClientDied(LinkFrame, frozen=True):
    """A process without a pidfd ended, as far as its socket tells."""

    owner: int


class Synced(LinkFrame, frozen=True):
    """All that there is was told."""


class KeptBell(LinkFrame, frozen=True):
    """Bells of the previous broker. Descriptors: consumers', producers'; queue 0: the supervisor's own."""

    queue_id: int
    epoch: int


class KeptEnd(LinkFrame, frozen=True):
    """No more kept bells; the broker may open. Who answers for repairs: shown in the status."""

    pid: int
    restarts: int
    started_ns: int


class ClientReaped(LinkFrame, frozen=True):
    """Nothing of this client is left in any queue it was ever given."""

    owner: int
    incarnation: int


class QueueReleased(LinkFrame, frozen=True):
    """The supervisor has unmapped a queue that was deleted: its memory is free, if no client has it."""

    queue_id: int


class AlarmRaised(LinkFrame, frozen=True):
    """Something that a person should look at; raised again with another text it is the same alarm."""

    kind: str
    subject: str
    text: str


class AlarmCleared(LinkFrame, frozen=True):
    """That is over."""

    kind: str
    subject: str


class Counters(LinkFrame, frozen=True):
    """What the supervisor did since the last of these, by name."""

    counts: dict[str, int]


ToSupervisor = (
    Opening
    | QueueOpened
    | QueueDeleted
    | ExchangeDeclared
    | ExchangeDeleted
    | Bound
    | Unbound
    | ClientJoined
    | SessionLost
    | ClientLeft
    | ClientDied
    | Synced
)
ToBroker = KeptBell | KeptEnd | ClientReaped | QueueReleased | AlarmRaised | AlarmCleared | Counters
AnyFrame = ToSupervisor | ToBroker


class Packet(NamedTuple):
    """One frame with the descriptors that came with it, which now are the receiver's."""

    frame: AnyFrame
    descriptors: tuple[int, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyFrame).decode


class Link:
    """One end. `wants_write` says when the loop should call `flush`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._socket = connection
        self._pending: deque[tuple[bytes, tuple[int, ...]]] = deque()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._pending)

    def send(self, frame: AnyFrame, descriptors: Sequence[int] = ()) -> None:
        """Send, or keep until there is room. Raises OSError when the other end is gone."""
        data = _encode(frame)
        if self._pending or not self._try_send(data, descriptors):
            self._pending.append((data, copies(*descriptors)))

    def flush(self) -> None:
        """Send what was kept, as far as there is room. Raises OSError when the other end is gone."""
        while self._pending and self._try_send(*self._pending[0]):
            close_all(self._pending.popleft()[1])

    def _try_send(self, data: bytes, descriptors: Sequence[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:  # descriptors under way that the other end has not taken yet
                return False
            raise
        return True

    def receive(self) -> list[Packet] | None:
        """What has arrived; None when the other end is gone."""
        packets: list[Packet] = []
        while len(packets) < PACKETS_READ_MAX:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, PACKET_BYTES_MAX, PACKET_DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            except OSError:
                data, descriptors = b"", []
            if not data:
                return packets or None
            packets.append(Packet(_decode(data), tuple(descriptors)))
        return packets

    def close(self) -> None:
        while self._pending:
            close_all(self._pending.popleft()[1])
        self._socket.close()


def without_unknown_arguments(what: Declared) -> Declared:
    """What the supervisor needs of it: a packet is bounded, what an application adds to a definition is not."""
    return msgspec.structs.replace(what, definition=msgspec.structs.replace(what.definition, other={}))


def connect(path: str) -> Link:
    """The broker's end. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    connection.connect(path)
    return Link(connection)
