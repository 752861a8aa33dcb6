"""The states of a session, as tables. Rules: all legal moves stand here as data; there is no other place that decides.

Both ends run the same table. A state changes when a frame of the table is sent or received; every other frame that the
sender may send in that state leaves it as it is. Frames cross on the way: after Closing the broker drops what still
comes, and a client that said Goodbye goes on reading until Closing. FAILED: the peer broke the protocol; the broker may
still say why.
"""

import enum
from collections.abc import Mapping
from typing import Any, Final, get_args

from shmq.wire.frames import BrokerFrame, ClientFrame, Closing, Goodbye, Hello, Welcome


class Role(enum.Enum):
    """The two ends."""

    CLIENT = "client"
    BROKER = "broker"


class State(enum.Enum):
    """Of a session, as one end sees it."""

    HELLO = "hello"  # nothing said: the client speaks first
    WELCOME = "welcome"  # hello said: the broker answers
    OPEN = "open"
    LEAVING = "leaving"  # goodbye said
    CLOSED = "closed"  # the broker has said its last word
    FAILED = "failed"  # the peer broke the protocol


Frames = frozenset[type[Any]]

CLIENT_FRAMES: Final[Frames] = frozenset(get_args(ClientFrame))
BROKER_FRAMES: Final[Frames] = frozenset(get_args(BrokerFrame))

MAY_SEND: Final[Mapping[Role, Mapping[State, Frames]]] = {
    Role.CLIENT: {
        State.HELLO: frozenset({Hello}),
        State.WELCOME: frozenset(),
        State.OPEN: CLIENT_FRAMES - {Hello},
        State.LEAVING: frozenset(),
        State.CLOSED: frozenset(),
        State.FAILED: frozenset(),
    },
    Role.BROKER: {
        State.HELLO: frozenset({Closing}),
        State.WELCOME: frozenset({Welcome, Closing}),
        State.OPEN: BROKER_FRAMES - {Welcome},
        State.LEAVING: BROKER_FRAMES - {Welcome},
        State.CLOSED: frozenset(),
        State.FAILED: frozenset({Closing}),
    },
}

TRANSITIONS: Final[Mapping[State, Mapping[type[Any], State]]] = {
    State.HELLO: {Hello: State.WELCOME, Closing: State.CLOSED},
    State.WELCOME: {Welcome: State.OPEN, Closing: State.CLOSED},
    State.OPEN: {Goodbye: State.LEAVING, Closing: State.CLOSED},
    State.LEAVING: {Closing: State.CLOSED},
    State.CLOSED: {},
    State.FAILED: {Closing: State.CLOSED},
}

TURNING_FRAMES: Final[Frames] = frozenset(frame for moves in TRANSITIONS.values() for frame in moves)
"""Frames that change a state somewhere."""


def peer_of(role: Role) -> Role:
    """The other end."""
    return Role.BROKER if role is Role.CLIENT else Role.CLIENT
