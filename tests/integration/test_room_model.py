"""Consumers of one connection with prefetches of their own, shared ones, and windows of channels, changed at random.

Invariant: when the broker has answered all that it was asked, no queue has a ready message for a consumer with room.
"""

import contextlib
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

import shmq
from shmq.wire import frames as wire
from support.deadline import wait_until
from support.peers import Peer
from support.shmqd import Shmqd, instance

QUEUES = ("a", "b", "c")
CHANNELS = (0, 1)
STEPS = 300
CONSUMERS_MAX = 4
MOVES = (
    ("publish",) * 4 + ("ack",) * 4 + ("nack", "consume", "consume", "cancel", "cancel", "window", "prefetch", "delete")
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shmqd]:
    with instance(tmp_path_factory.mktemp("shmqd")) as running:
        yield running


class Allowed:
    """What may be unacked at a time, and what is. `consumers`: those whose prefetch it is."""

    def __init__(self, most: int = 0) -> None:
        self.most = most  # 0: any number
        self.unacked = 0
        self.consumers = 0

    @property
    def has_room(self) -> bool:
        return not self.most or self.unacked < self.most


class Consumer:
    """As the broker should know it."""

    def __init__(self, queue: str, channel: int, window: Allowed, prefetch: Allowed) -> None:
        self.queue, self.channel, self.window, self.prefetch = queue, channel, window, prefetch

    def count(self, deliveries: int) -> None:
        self.window.unacked += deliveries
        self.prefetch.unacked += deliveries

    @property
    def has_room(self) -> bool:
        return self.window.has_room and self.prefetch.has_room


class Model:
    """What the broker is asked, and what follows from it."""

    def __init__(self, daemon: Shmqd, conn: shmq.Connection, seed: int) -> None:
        self._conn = conn
        self._random = random.Random(seed)
        self._peer = Peer(daemon)
        self._peer.hello()
        self._seq = 0
        self._windows: defaultdict[int, Allowed] = defaultdict(Allowed)
        self._shared: dict[int, Allowed] = {}  # by channel
        self._consumers: dict[str, Consumer] = {}
        self._left: dict[str, Consumer] = {}
        self._held: dict[int, Consumer] = {}
        self.moves: list[str] = []

    def close(self) -> None:
        self._peer.close()

    def move(self) -> None:
        name = self._random.choice(MOVES)
        self.moves.append(name)
        getattr(self, f"_{name}")()

    def stalled(self) -> list[str]:
        """Consumers that have room, of queues that have messages, when all is answered."""
        self._ask(wire.Ping)
        full = {queue for queue in QUEUES if self._conn.queue_info(queue).messages}
        return [tag for tag, consumer in self._consumers.items() if consumer.queue in full and consumer.has_room]

    # -- moves --------------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        bodies = [b"x"] * self._random.choice((1, 3))
        self._conn.publish_many(bodies, routing_key=self._random.choice(QUEUES))

    def _ack(self) -> None:
        self._settle(wire.Ack)

    def _nack(self) -> None:
        self._settle(wire.Nack)

    def _settle(self, frame: type[wire.Ack | wire.Nack]) -> None:
        tags = self._random.sample(sorted(self._held), min(len(self._held), self._random.choice((1, 1, 3))))
        for tag in tags:
            self._held.pop(tag).count(-1)
        self._ask(lambda seq: frame(seq, tags))

    def _consume(self) -> None:
        if len(self._consumers) >= CONSUMERS_MAX:
            return
        tag, channel, most = f"c{self._seq}", self._random.choice(CHANNELS), self._random.choice((0, 1, 1, 2))
        shares = self._random.choice(("", "all", "all"))
        prefetch = self._shared.setdefault(channel, Allowed(most)) if shares else Allowed(most)
        prefetch.consumers += 1
        queue = self._random.choice(QUEUES)
        self._consumers[tag] = Consumer(queue, channel, self._windows[channel], prefetch)
        self._ask(lambda seq: wire.Consume(seq, queue, tag, prefetch=most, channel=channel, shares=shares))

    def _cancel(self) -> None:
        if self._consumers:
            tag = self._random.choice(sorted(self._consumers))
            self._ask(lambda seq: wire.Cancel(seq, tag))
            self._ends(tag)

    def _window(self) -> None:
        channel, most = self._random.choice(CHANNELS), self._random.choice((0, 0, 0, 2))
        self._windows[channel].most = most
        self._ask(lambda seq: wire.SetPrefetch(seq, most, "", channel))

    def _prefetch(self) -> None:
        if self._consumers:
            tag, most = self._random.choice(sorted(self._consumers)), self._random.choice((0, 1, 2, 4))
            self._consumers[tag].prefetch.most = most
            self._ask(lambda seq: wire.SetPrefetch(seq, most, tag))

    def _delete(self) -> None:
        queue = self._random.choice(QUEUES)
        self._conn.delete_queue(queue)
        self._conn.declare_queue(queue)

    # -- answers ------------------------------------------------------------------------------------------------------

    def _ask(self, make: Any) -> None:
        """Say it, and take all that comes until it is answered."""
        self._seq += 1
        self._peer.say(make(self._seq))
        while getattr(heard := self._peer.hear(), "seq", None) != self._seq:
            self._hear(heard)

    def _hear(self, frame: Any) -> None:
        if isinstance(frame, wire.Cancelled):
            self._ends(frame.consumer_tag)
        elif isinstance(frame, wire.Deliver):
            consumer = self._consumers.get(frame.consumer_tag) or self._left[frame.consumer_tag]
            consumer.count(len(frame.deliveries))
            self._held.update(dict.fromkeys((each.delivery_tag for each in frame.deliveries), consumer))

    def _ends(self, tag: str) -> None:
        if (consumer := self._consumers.pop(tag, None)) is None:
            return
        self._left[tag] = consumer
        consumer.prefetch.consumers -= 1
        if not consumer.prefetch.consumers and self._shared.get(consumer.channel) is consumer.prefetch:
            del self._shared[consumer.channel]


@pytest.mark.parametrize("seed", range(8))
def test_no_consumer_with_room_is_kept_from_a_message(daemon: Shmqd, seed: int) -> None:
    with daemon.connect("direct") as conn:
        for queue in QUEUES:
            conn.declare_queue(queue)
        with contextlib.closing(Model(daemon, conn, seed)) as model:
            for _ in range(STEPS):
                model.move()
                wait_until(lambda: not model.stalled(), f"it is delivered after {model.moves[-8:]}", 1)
