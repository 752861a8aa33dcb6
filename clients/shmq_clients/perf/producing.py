"""A producer: publishes as fast as it can, or each message when it is due.

Owns: stamping, pacing, counting what was published. Does not own: the process around it (workers.py).
Invariants: with a rate, message i is due at start + i / rate whatever happened before, and carries that time: if the
producer or the broker stalls, the messages that had to wait show it. Without one a message is due when it is published.
"""

import contextlib
import itertools
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from shmq_clients.connection import Connection
from shmq_clients.perf.plan import STAMP_BYTES, Plan, pattern
from shmq_clients.perf.tally import MESSAGES, Tally

STAMP: Final = struct.Struct("<Q")
CHUNK: Final = 64  # messages between two looks at the outside world
LARGE_BYTES: Final = 1 << 16  # bodies from here on are counted one by one
NAP: Final = 0.1  # seconds between two looks while nothing is due
SLACK: Final = Path("/proc/self/timerslack_ns")  # the kernel wakes a sleeper up to so much later


class Shot(NamedTuple):
    """One call: what to call with what, and what of it carries a time."""

    send: Callable[[Any], None]
    body: Any
    stamped: Sequence[bytearray]


class Producer:
    """Of one process."""

    def __init__(self, plan: Plan, connection: Connection, tally: Tally) -> None:
        self._plan = plan
        self._connection = connection
        self._tally = tally
        self._unconfirmed = 0
        self._shots = self._batches() if plan.batch > 1 else self._singles()

    def run(self, start_ns: int) -> None:
        """Publish until the count is reached or somebody says stop."""
        with contextlib.suppress(OSError):
            SLACK.write_text("1")
        if self._plan.rate is not None:
            self._paced(start_ns, self._plan.rate)
        elif self._plan.batch > 1:
            self._flat_out_in_batches()
        else:
            self._flat_out()

    # -- what is published --------------------------------------------------------------------------------------------

    def _keywords(self, priority: int) -> dict[str, Any]:
        plan = self._plan
        wanted = {"priority": priority, "persistent": plan.persistent, "mandatory": plan.mandatory}
        keywords: dict[str, Any] = {name: value for name, value in wanted.items() if value}
        if plan.exchange:
            keywords["exchange"] = plan.exchange
        if plan.confirm is not None:
            keywords["confirm"] = plan.confirm
        return {"routing_key": plan.key, **keywords}

    def _singles(self) -> list[Shot]:
        shape = pattern(self._plan.sizes, self._plan.priorities)
        bodies = {size: bytearray(STAMP_BYTES if self._plan.zero_copy else size) for size, _ in shape}
        return [Shot(self._sender(size, priority), bodies[size], (bodies[size],)) for size, priority in shape]

    def _sender(self, size: int, priority: int) -> Callable[[Any], None]:
        keywords = self._keywords(priority)
        if self._plan.zero_copy:
            return partial(self._lend, size, keywords)
        return partial(self._connection.publish, **keywords)

    def _lend(self, size: int, keywords: dict[str, Any], stamp: bytearray) -> None:
        with self._connection.loan(size, **keywords) as body:
            body[:STAMP_BYTES] = stamp

    def _batches(self) -> list[Shot]:
        """Each of one priority: that of its first message."""
        shape = pattern(self._plan.sizes, self._plan.priorities)
        count = 1 if len(shape) == 1 else len(shape) // self._plan.batch or 1
        sizes = itertools.cycle(size for size, _ in shape)
        batches = [[bytearray(size) for size in itertools.islice(sizes, self._plan.batch)] for _ in range(count)]
        priorities = [shape[i * self._plan.batch % len(shape)][1] for i in range(count)]
        publish = self._connection.publish_many
        return [
            Shot(partial(publish, **self._keywords(priority)), bodies, bodies)
            for priority, bodies in zip(priorities, batches, strict=True)
        ]

    def _calls(self) -> Iterator[Shot]:
        """Yield what is to be called, the last batch cut to the count."""
        if self._plan.producer_messages is None:
            yield from itertools.cycle(self._shots)
            return
        left = self._plan.producer_messages
        for shot in itertools.cycle(self._shots):
            if left < len(shot.stamped):
                break
            left -= len(shot.stamped)
            yield shot
        if left:
            yield Shot(shot.send, shot.body[:left], shot.stamped[:left])

    # -- publishing ---------------------------------------------------------------------------------------------------

    def _flat_out(self) -> None:
        calls, clock, stamp = self._calls(), time.monotonic_ns, STAMP.pack_into
        measure = self._plan.measure_latency
        chunk_size = 1 if self._plan.mean_bytes >= LARGE_BYTES else min(self._plan.unconfirmed or CHUNK, CHUNK)
        while not self._tally.stopped and (chunk := list(itertools.islice(calls, chunk_size))):
            if measure:
                for send, body, _ in chunk:
                    stamp(body, 0, clock())
                    send(body)
            else:
                for send, body, _ in chunk:
                    send(body)
            self._count(len(chunk))

    def _flat_out_in_batches(self) -> None:
        clock, stamp = time.monotonic_ns, STAMP.pack_into
        for send, bodies, stamped in self._calls():
            if self._tally.stopped:
                return
            if self._plan.measure_latency:
                for body in stamped:
                    stamp(body, 0, clock())
            send(bodies)
            self._count(len(bodies))

    def _paced(self, start_ns: int, rate: float) -> None:
        """A batch is sent when its last message is due."""
        number = 0
        for send, body, stamped in self._calls():
            for part in stamped:
                due_ns = start_ns + int(number * 1e9 / rate)
                number += 1
                if len(part) >= STAMP_BYTES:
                    STAMP.pack_into(part, 0, due_ns)
            if not self._wait_until(due_ns):
                return
            send(body)
            self._count(len(stamped))

    def _wait_until(self, due_ns: int) -> bool:
        """Return False if the run was stopped before."""
        while (ahead_ns := due_ns - time.monotonic_ns()) > 0 and not self._tally.stopped:
            time.sleep(min(ahead_ns / 1e9, NAP))
        return not self._tally.stopped

    def _count(self, messages: int) -> None:
        self._tally.words[MESSAGES] += messages
        if self._plan.unconfirmed:
            self._unconfirmed += messages
            if self._unconfirmed >= self._plan.unconfirmed:
                self._connection.wait_for_confirms()
                self._unconfirmed = 0
