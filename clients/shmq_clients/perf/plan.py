"""What is to be done: the load's shape, checked, and the mixes of sizes and priorities.

Owns: bounds of each setting and what contradicts what. Does not own: how they are typed (arguments.py).
"""

import random
import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from shmq.errors import InvalidArgument
from shmq.limits import BATCH_MESSAGES_MAX, BODY_BYTES_MAX, PREFETCH_MAX, PRIORITY_MAX
from shmq_clients.outgoing import Confirm
from shmq_clients.session import Mode

STAMP_BYTES: Final = 8  # a body's first bytes: when it was due
WORKERS_MAX: Final = 256
PATTERN_MESSAGES: Final = 1024  # after so many messages a mix begins anew
PATTERN_SEED: Final = 1
UNITS: Final = {"": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20, "G": 1 << 30, "GIB": 1 << 30}

Mix = tuple[tuple[int, int], ...]
"""Values and their weights."""
Confirming = Confirm | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Counts are per worker, as in RabbitMQ's PerfTest; 0 or None: no limit. Times in seconds."""

    queue: str = "shmq-perf"
    producers: int = 1
    consumers: int = 1
    sizes: Mix = ((256, 1),)
    priorities: Mix = ((0, 1),)
    seconds: float | None = None
    producer_messages: int | None = None
    consumer_messages: int | None = None
    rate: float | None = None
    consumer_rate: float | None = None
    consumer_latency: float = 0.0
    prefetch: int = 0
    auto_ack: bool = False
    ack_every: int = 1
    batch: int = 1
    mode: Mode = "auto"
    confirm: Confirming = None
    unconfirmed: int = 0  # wait for confirms after so many
    persistent: bool = False
    mandatory: bool = False
    zero_copy: bool = False
    measure_latency: bool = True
    exchange: str = ""
    exchange_type: Literal["direct", "fanout", "topic", "headers"] = "direct"
    routing_key: str = ""
    queue_arguments: dict[str, int | str] = {}
    predeclared: bool = False
    interval: float = 1.0

    def __post_init__(self) -> None:
        within("producers", self.producers, 0, WORKERS_MAX)
        within("consumers", self.consumers, 0, WORKERS_MAX)
        within("qos", self.prefetch, 0, PREFETCH_MAX)
        within("batch", self.batch, 1, BATCH_MESSAGES_MAX)
        within("multi-ack-every", self.ack_every, 1, self.prefetch or BATCH_MESSAGES_MAX)
        for size, _ in self.sizes:
            within("size", size, STAMP_BYTES if self.measure_latency else 0, BODY_BYTES_MAX)
        for priority, _ in self.priorities:
            within("priorities", priority, 0, PRIORITY_MAX)
        if self.producers + self.consumers == 0:
            raise InvalidArgument(argument="producers", value=0, allowed="at least one producer or consumer")
        if self.zero_copy and self.batch > 1:
            raise InvalidArgument(argument="batch", value=self.batch, allowed="1 together with --zero-copy")

    @property
    def key(self) -> str:
        """What is published with: the default exchange routes by the queue's name."""
        return self.routing_key or self.queue

    @property
    def highest_priority(self) -> int:
        return max(priority for priority, _ in self.priorities)

    @property
    def mean_bytes(self) -> float:
        """Of a body."""
        shape = pattern(self.sizes, self.priorities)
        return sum(size for size, _ in shape) / len(shape)


def within(argument: str, value: int, low: int, high: int) -> None:
    """Raise InvalidArgument for a value out of its bounds."""
    if not low <= value <= high:
        raise InvalidArgument(argument=argument, value=value, allowed=f"{low} to {high}")


def parse_size(text: str) -> int:
    """Return the bytes that "64", "4KiB" or "1M" (all binary) mean. Raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper().removesuffix("B") not in {unit.removesuffix("B") for unit in UNITS}:
        raise ValueError(f"{text!r} is not a size such as 256, 4KiB or 1M")
    unit = match[2].upper()
    return int(match[1]) * UNITS[unit if unit in UNITS else unit.removesuffix("B")]


def parse_mix(text: str, *, of_sizes: bool) -> Mix:
    """Return the values and weights that "64", "64,4KiB" or "64:9,4KiB:1" mean. Raises ValueError."""
    pairs = []
    for part in text.split(","):
        value, colon, weight = part.partition(":")
        pairs.append((parse_size(value) if of_sizes else int(value), int(weight) if colon else 1))
    if not any(weight for _, weight in pairs) or any(weight < 0 for _, weight in pairs):
        raise ValueError(f"{text!r} has no weight above 0, or one below")
    return tuple(pairs)


def pattern(sizes: Mix, priorities: Mix) -> Sequence[tuple[int, int]]:
    """Return the (size, priority) of the messages in turn: the same in each run, weighted as asked for."""
    if len(sizes) == len(priorities) == 1:
        return [(sizes[0][0], priorities[0][0])]
    dice = random.Random(PATTERN_SEED)  # noqa: S311 - a mix, not a secret

    def drawn(mix: Mix) -> list[int]:
        return dice.choices([value for value, _ in mix], [weight for _, weight in mix], k=PATTERN_MESSAGES)

    return list(zip(drawn(sizes), drawn(priorities), strict=True))
