"""What a producer does with its life: publishes at random, in every way there is, and writes down each step.

Owns: the choice of what to publish and how. Does not own: the logbook, who kills it. Invariant: `words[DOING]` is set
exactly while a call of shmq is under way, and a record is there before its first call.
"""

from collections.abc import Callable
from typing import Any, Final

import shmq
from crash.bodies import MessageId, body_of
from crash.history import Outcome
from crash.logbook import AT_ONCE, DOING, SENT, STEPS, Logbook
from crash.plan import COPIES_KEY, EXCHANGE, Life

BURST_MAX: Final = 40
TIMEOUT: Final = 0.2  # for room in a full queue: short enough that some publishes fail
SINGLE, BATCH, LOAN, BARRIER = 1, 2, 3, 4  # in words[DOING]
SHARES: Final = {"singles": 60, "batch": 15, "loan": 8, "copies": 7, "delayed": 5, "expiring": 5}
SHARES_OF_ROUTES: Final = {"singles": 30, "batch": 15, "loan": 5, "routed": 40, "delayed": 5, "expiring": 5}


class Producer:
    """One life of a worker that publishes."""

    def __init__(self, life: Life, conn: shmq.Connection, log: Logbook) -> None:
        self._life = life
        self._conn = conn
        self._log = log
        self._words = log.words
        self._dice = life.dice()
        self._seq = 0
        self._is_socket = life.mode == "socket"
        self._ways: dict[str, Callable[[], None]] = {
            "singles": self._singles,
            "batch": self._batch,
            "loan": self._loan,
            "copies": self._copies,
            "delayed": self._delayed,
            "expiring": self._expiring,
            "routed": self._routed,
        }

    def work(self) -> None:
        """Publish until told to stop."""
        shares = SHARES_OF_ROUTES if self._life.routes else SHARES
        names, weights = list(shares), list(shares.values())
        steps = self._dice.randint(20, 200) if self._life.ends_by_itself else -1
        while steps and not (self._log.has_to_stop or self._log.is_full):
            self._ways[self._dice.choices(names, weights)[0]]()
            steps -= 1

    # -- ways to publish ----------------------------------------------------------------------------------------------

    def _singles(self) -> None:
        self._one_by_one(self._dice.randint(1, BURST_MAX), self._target(), {})

    def _delayed(self) -> None:
        self._one_by_one(3, self._target(), {"delay": self._dice.uniform(0.001, 0.05)})

    def _expiring(self) -> None:
        """Only where the dead are kept, so that nothing vanishes without a trace."""
        for index, rules in enumerate(self._life.queues):
            if rules.dead_letter is not None:
                self._one_by_one(3, index, {"expiration": self._dice.randint(1, 200)})

    def _one_by_one(self, count: int, queue: int, extra: dict[str, Any]) -> None:
        level = self._level(queue)
        keywords = {"routing_key": self._name(queue), "priority": level, "persistent": self._dice.random() < 0.5}
        keywords |= self._way(extra)
        if "reject" in self._life.queues[queue].overflow:  # whom it concerns is told, not somebody later
            keywords["confirm"] = "memory"
        first, bodies = self._bodies(count)
        flags = 0 if not self._is_socket or "confirm" in keywords else SENT
        self._publish_each(
            self._log.publishing(
                first,
                queues=1 << queue,
                level=level,
                count=count,
                flags=flags,
                delay_ns=int(extra.get("delay", 0) * 1e9),
                ttl_ns=extra.get("expiration", 0) * 1_000_000,
            ),
            bodies,
            keywords,
        )
        if flags & SENT:
            self._barrier()

    def _way(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Mostly the bare call, which direct mode serves in C; sometimes with what needs an envelope or an answer."""
        dice = self._dice.random()
        if dice < 0.1:
            return extra | {"timeout": TIMEOUT, "headers": {"x-crash": self._seq}, "confirm": "memory"}
        if dice < 0.3 or (self._is_socket and dice < 0.6):
            return extra | {"timeout": TIMEOUT, "confirm": "memory"}
        return extra

    def _publish_each(self, record: int, bodies: list[bytes], keywords: dict[str, Any]) -> None:
        words, publish, done = self._words, self._conn.publish, self._log.done_word(record)
        try:
            for number, body in enumerate(bodies, 1):
                words[DOING] = SINGLE
                publish(body, **keywords)
                words[DOING] = 0
                words[done] = number
        except (shmq.QueueFull, shmq.PublishRejected, shmq.SessionError) as error:
            self._failed(record, error)
        else:
            self._log.published(record, Outcome.OK)
        words[STEPS] += 1

    def _batch(self) -> None:
        queue = self._target()
        level = self._level(queue)
        first, bodies = self._bodies(self._dice.randint(1, BURST_MAX))
        record = self._log.publishing(first, queues=1 << queue, level=level, count=len(bodies), flags=AT_ONCE)
        keywords: dict[str, Any] = {"routing_key": self._name(queue), "priority": level}
        self._at_once(record, lambda: self._conn.publish_many(bodies, timeout=TIMEOUT, confirm="memory", **keywords))

    def _copies(self) -> None:
        """One message into several queues."""
        first, (body,) = self._bodies(1)
        record = self._log.publishing(first, queues=self._life.copies, level=0, count=1, flags=AT_ONCE)
        key = f"{COPIES_KEY}-{self._name(0)}"
        self._at_once(
            record,
            lambda: self._conn.publish(body, exchange=EXCHANGE, routing_key=key, timeout=TIMEOUT, confirm="memory"),
        )

    def _routed(self) -> None:
        """Through one of the exchanges."""
        route = self._dice.choice(self._life.routes)
        level = self._dice.choice([0, 0, self._dice.randrange(10)])
        first, bodies = self._bodies(self._dice.randint(1, 10))
        record = self._log.publishing(
            first, queues=route.queues, level=level, count=len(bodies), flags=0, delay_ns=route.delay_ns
        )
        keywords = {"exchange": route.exchange, "routing_key": route.routing_key, "headers": route.headers}
        self._publish_each(record, bodies, keywords | {"priority": level, "timeout": TIMEOUT, "confirm": "memory"})

    def _loan(self) -> None:
        queue = self._target()
        level = self._level(queue)
        first, (body,) = self._bodies(1)
        record = self._log.publishing(first, queues=1 << queue, level=level, count=1, flags=AT_ONCE)

        def publish() -> None:
            keywords: dict[str, Any] = {"routing_key": self._name(queue), "priority": level, "confirm": "memory"}
            with self._conn.loan(len(body), timeout=TIMEOUT, **keywords) as buffer:
                buffer[:] = body

        self._at_once(record, publish)

    def _at_once(self, record: int, publish: Callable[[], None]) -> None:
        self._words[DOING] = BATCH
        try:
            publish()
        except (shmq.QueueFull, shmq.PublishRejected, shmq.SessionError) as error:
            self._failed(record, error)
        else:
            self._log.published(record, Outcome.OK)
        self._words[DOING] = 0
        self._words[STEPS] += 1

    # -- what they share ----------------------------------------------------------------------------------------------

    def _failed(self, record: int, error: shmq.ShmqError) -> None:
        """A full queue refused it, or one that is as long as it may be; a session that ended tells nothing."""
        self._words[DOING] = 0
        outcomes = {shmq.QueueFull: Outcome.FAILED, shmq.PublishRejected: Outcome.REFUSED}
        self._log.published(record, outcomes.get(type(error), Outcome.UNKNOWN))

    def _barrier(self) -> None:
        """Wait until the broker has done what was only sent."""
        self._words[DOING] = BARRIER
        record = self._log.barrier()
        try:
            self._conn.wait_for_confirms()
            self._log.ended(record)
        except shmq.PublishError:
            self._log.refused()
        except shmq.SessionError:
            pass
        self._words[DOING] = 0

    def _bodies(self, count: int) -> tuple[MessageId, list[bytes]]:
        life, first = self._life, MessageId(self._life.worker, self._life.incarnation, self._seq)
        self._seq += count
        return first, [body_of(life.run, first._replace(seq=first.seq + index)) for index in range(count)]

    def _target(self) -> int:
        """Any queue but that of the dead."""
        return self._dice.randrange(len(self._life.queues) - 1)

    def _level(self, queue: int) -> int:
        return self._dice.choice([0, 0, self._dice.randrange(self._life.queues[queue].levels)])

    def _name(self, queue: int) -> str:
        return self._life.queues[queue].name
