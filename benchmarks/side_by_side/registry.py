"""Which peers there are, and which of them this host can run.

Owns: the list, and the reason why one is left out. Does not own: the peers.
"""

import importlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from .peer import Peer
from .servers.server import find_program

PACKAGE: Final = "benchmarks.side_by_side.peers"
MODULES: Final = (
    "shmq_peer",
    "zeromq",
    "in_python",
    "iceoryx",
    "redis_streams",
    "beanstalk",
    "rabbitmq_pika",
    "rabbitmq_amqp",
)


class Found(NamedTuple):
    """What can run, and why the rest cannot."""

    peers: Sequence[type[Peer]]
    skipped: dict[str, str]


def find(only: Sequence[str]) -> Found:
    """Return the peers, those alone whose name contains a word of `only` if there are any."""
    peers: list[type[Peer]] = []
    skipped: dict[str, str] = {}
    for name in MODULES:
        try:
            module = importlib.import_module(f"{PACKAGE}.{name}")
        except ImportError as error:
            skipped[name] = f"{error.name} is not installed: pip install 'shmq[bench]'"
            continue
        for peer in module.PEERS:
            if only and not any(word.lower() in peer.name.lower() for word in only):
                continue
            if peer.program and find_program(peer.program) is None:
                skipped[peer.name] = f"{peer.program} is not installed (Debian: apt install {peer.program})"
            else:
                peers.append(peer)
    return Found(peers, skipped)
