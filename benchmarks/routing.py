"""How fast messages find their queues, and what a fanout of a large body costs: pure Python, no daemon is needed.

    python benchmarks/routing.py [--bindings 10000] [--seconds 2]

A topic exchange has bindings of 3 to 5 words, 10 % of them with `*`, 5 % with `#`, and the keys looked up match at
least one and at most three. Uncached: nothing is remembered of a key; cached: it was looked up before. Prints look-ups
a second on one core, and the time to publish 1 MiB to 1, 2, 4 and 8 queues of this process.
"""

import argparse
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence

from shmq.core import Queue, segment_bytes
from shmq.definitions import ExchangeDefinition
from shmq.routing.bindings import Binding
from shmq.routing.router import Router

WORDS = [[f"{name}{number}" for number in range(60)] for name in ("site", "line", "cam", "kind", "event")]
ANY_WORD_SHARE, ANY_WORDS_SHARE = 0.10, 0.05
MATCHES_MAX = 3
KEYS = 20_000
SEED = 4
BODY_BYTES = 1 << 20
GEOMETRY = (1, 64, 512, 64, 64 << 20)
FANOUT_ROUNDS = 40


def pattern(dice: random.Random) -> str:
    """Return a binding's key."""
    words = [dice.choice(WORDS[place]) for place in range(dice.randint(3, 5))]
    kind = dice.random()
    if kind < ANY_WORD_SHARE:
        words[dice.randrange(1, len(words))] = "*"
    elif kind < ANY_WORD_SHARE + ANY_WORDS_SHARE:
        words[-1] = "#"
    return ".".join(words)


def filled(bindings: int, dice: random.Random) -> tuple[Router, list[str]]:
    """Return a router with an exchange `events`, and its patterns."""
    router = Router()
    router.add_exchange(ExchangeDefinition("events", "topic"))
    patterns = [pattern(dice) for _ in range(bindings)]
    for number, key in enumerate(patterns):
        router.add_queue(f"q{number}")
        router.bind(Binding(source="events", destination=f"q{number}", routing_key=key))
    return router, patterns


def key_of(binding_key: str, dice: random.Random) -> str:
    """Return a key that a pattern matches."""
    words = enumerate(binding_key.split("."))
    return ".".join(dice.choice(WORDS[place]) if word in {"*", "#"} else word for place, word in words)


def keys_of(router: Router, patterns: Sequence[str], dice: random.Random) -> list[tuple[str, ...]]:
    """Return keys of which each matches one to three queues."""
    found: set[tuple[str, ...]] = set()
    for _ in range(KEYS * 4):
        keys = (key_of(dice.choice(patterns), dice),)
        if 1 <= len(router.route("events", keys).queues) <= MATCHES_MAX:
            found.add(keys)
        if len(found) == KEYS:
            break
    return sorted(found)


def rate(look_up: Callable[[tuple[str, ...]], object], keys: Iterator[tuple[str, ...]], seconds: float) -> float:
    """Return calls a second."""
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        for one in itertools.islice(keys, 1000):
            look_up(one)
        count += 1000
    return count / (time.process_time() - start)


def topic(bindings: int, seconds: float) -> None:
    """Print the figures of the topic exchange."""
    dice = random.Random(SEED)
    router, patterns = filled(bindings, dice)
    keys = keys_of(router, patterns, dice)
    node = router.node("events")

    def uncached(one: tuple[str, ...]) -> None:
        node.remembered.clear()
        router.route("events", one)

    queues = [len(router.route("events", one).queues) for one in keys]
    print(f"topic exchange, {bindings} bindings; {len(keys)} keys of {min(queues)} to {max(queues)} queues")
    print(f"  uncached  {rate(uncached, itertools.cycle(keys), seconds):>12,.0f} look-ups/s")
    recent = keys[:5000]
    for one in recent:
        router.route("events", one)
    cached = rate(lambda one: router.route("events", one), itertools.cycle(recent), seconds)
    print(f"  cached    {cached:>12,.0f} look-ups/s")


def new_queue() -> Queue:
    """Return a queue over a file without a name."""
    fd = os.memfd_create("routing")
    os.ftruncate(fd, segment_bytes(GEOMETRY))
    bells = (os.eventfd(0, os.EFD_SEMAPHORE), os.eventfd(0, os.EFD_SEMAPHORE), os.eventfd(0))
    return Queue(fd, GEOMETRY, 32, create=True, bells=bells)


def fanout(queues: int) -> float:
    """Return the best of the times in ms to publish one body to so many queues."""
    targets, body, best = [new_queue() for _ in range(queues)], os.urandom(BODY_BYTES), float("inf")
    for _ in range(FANOUT_ROUNDS):
        start = time.perf_counter()
        for target in targets:
            target.publish(body)
        best = min(best, time.perf_counter() - start)
        for target in targets:
            message = target.take(no_ack=True)
            assert message is not None
            del message
    return best * 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bindings", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    given = parser.parse_args(arguments)
    topic(given.bindings, given.seconds)
    print(f"fanout of {BODY_BYTES >> 20} MiB, best of {FANOUT_ROUNDS}")
    for queues in (1, 2, 4, 8):
        print(f"  {queues} queues  {fanout(queues):>8.3f} ms")


if __name__ == "__main__":
    main()
