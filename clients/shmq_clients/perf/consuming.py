"""A consumer: takes, reads, measures and settles messages until it has enough or is told to stop.

Owns: when messages are acked, pacing of slow consumers, counting. Does not own: the process around it (workers.py).
Invariants: each body is read in full (zero copy: looked at in place); latency ends at delivery, before the ack.
"""

import itertools
import struct
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from shmq.message import Message
from shmq_clients.connection import Connection
from shmq_clients.perf.plan import STAMP_BYTES, Plan
from shmq_clients.perf.tally import MESSAGES, Tally

if TYPE_CHECKING:
    from shmq_clients.consumer import Consumer as Deliveries

STAMP: Final = struct.Struct("<Q")
MAX_WAIT: Final = 0.1  # seconds for a message, between two looks at the outside world


class Consumer:
    """Of one process."""

    def __init__(self, plan: Plan, connection: Connection, tally: Tally) -> None:
        self._plan = plan
        self._connection = connection
        self._tally = tally
        self._pending: list[Message] = []
        self._deliveries: Deliveries | None = None
        if plan.batch == 1:
            self._deliveries = connection.consume(plan.queue, prefetch=plan.prefetch, no_ack=plan.auto_ack)

    def stop(self) -> None:
        """End the iteration; called from another thread."""
        if self._deliveries is not None:
            self._deliveries.cancel()

    def run(self, start_ns: int) -> None:
        """Consume until the count is reached or somebody says stop."""
        plan = self._plan
        plain = plan.ack_every == 1 and not (plan.auto_ack or plan.consumer_rate or plan.consumer_latency)
        if plain and plan.measure_latency and not plan.zero_copy and self._deliveries is not None:
            self._measure_and_ack(self._deliveries)
        else:
            self._by_the_plan(start_ns)

    def _measure_and_ack(self, deliveries: Iterable[Message]) -> None:
        """Do what most runs do, in the shortest form."""
        words, clock, due = self._tally.words, time.monotonic_ns, STAMP.unpack_from
        record = self._tally.latencies.recorder()
        for number, message in enumerate(itertools.islice(deliveries, self._plan.consumer_messages), 1):
            record(clock() - due(message.body)[0])
            message.ack()
            words[MESSAGES] = number

    # -- all else -----------------------------------------------------------------------------------------------------

    def _by_the_plan(self, start_ns: int) -> None:
        words, clock = self._tally.words, time.monotonic_ns
        record = self._tally.latencies.recorder() if self._plan.measure_latency else None
        messages = self._batches() if self._deliveries is None else self._deliveries
        for number, message in enumerate(itertools.islice(messages, self._plan.consumer_messages), 1):
            delivered_ns = clock()
            due_ns = self._read(message)
            if record is not None:
                record(delivered_ns - due_ns)
            self._work(number, start_ns)
            self._settle(message)
            words[MESSAGES] = number
        self._flush()

    def _batches(self) -> Iterator[Message]:
        left = self._plan.consumer_messages or 1 << 62
        while left and not self._tally.stopped:
            queue, no_ack = self._plan.queue, self._plan.auto_ack
            batch = self._connection.get_batch(queue, max_messages=min(self._plan.batch, left), no_ack=no_ack)
            if not batch:  # what comes is looked at when it comes, and not when so many have
                first = self._connection.get(queue, timeout=MAX_WAIT, no_ack=no_ack)
                batch = [] if first is None else [first]
            left -= len(batch)
            yield from batch
            self._flush()

    def _read(self, message: Message) -> int:
        """Return when the message was due; 0 if it does not say."""
        if not self._plan.zero_copy:
            body = message.body
            return int(STAMP.unpack_from(body)[0]) if len(body) >= STAMP_BYTES else 0
        view = message.view()
        try:
            return int(STAMP.unpack_from(view)[0]) if len(view) >= STAMP_BYTES else 0
        finally:
            view.release()

    def _work(self, number: int, start_ns: int) -> None:
        if self._plan.consumer_latency:
            time.sleep(self._plan.consumer_latency)
        if self._plan.consumer_rate:
            ahead_ns = start_ns + int(number * 1e9 / self._plan.consumer_rate) - time.monotonic_ns()
            time.sleep(max(ahead_ns, 0) / 1e9)

    def _settle(self, message: Message) -> None:
        if self._plan.auto_ack:
            return
        if self._plan.ack_every == 1 and self._deliveries is not None:
            message.ack()
            return
        self._pending.append(message)
        if len(self._pending) >= max(self._plan.ack_every, self._plan.batch):
            self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        self._connection.ack_many(pending)
