"""From Kombu's publish to Kombu's callback, in another process: `python -m benchmarks.kombu_latency [--rate 500]`.

Owns: the measurement and its figures. The same program over each transport: shmq, RabbitMQ by py-amqp (as it is, and
with publisher confirms, which shmq has always) and Redis, each a server of the run's own. One process publishes when a
message is due, another drains events and acks each; the time goes from just before `publish` to the callback. Turns
alternate, so that what the host does meanwhile hits all alike; a figure is the median of the turns' percentiles.
Exits 1 when shmq's median is more than half of the best other's.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import shutil
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final, NamedTuple

import kombu

import shmq
import shmq_clients.kombu  # noqa: F401 - sets the alias

from .side_by_side.servers.rabbitmq import rabbitmq
from .side_by_side.servers.redis import redis_server
from .side_by_side.servers.server import find_program, new_directory

QUEUE: Final = "latency"
TIME: Final = struct.Struct("<q")
RATIO_MAX: Final = 0.5  # of the best other's median
PATIENCE: Final = 20.0
WARM: Final = 200  # messages of a turn that are not measured
SPAWN = multiprocessing.get_context("spawn")


class Transport(NamedTuple):
    """What Kombu is told."""

    name: str
    url: str
    options: dict[str, Any]


class Figures(NamedTuple):
    """Of one transport; microseconds."""

    p50: float
    p99: float


# -- the two processes ------------------------------------------------------------------------------------------------


def consume(transport: Transport, n: int, pipe: Pipe) -> None:
    """Ack `n` messages and send how long each took, in nanoseconds."""
    took: list[int] = []

    def on_message(message: Any) -> None:  # noqa: ANN401 - a kombu.Message
        took.append(time.monotonic_ns() - TIME.unpack_from(message.body)[0])
        message.ack()

    with kombu.Connection(transport.url, transport_options=transport.options) as conn:
        queue = kombu.Queue(QUEUE, routing_key=QUEUE)
        consumer = kombu.Consumer(conn, [queue], on_message=on_message, prefetch_count=4)
        consumer.purge()
        with consumer:
            pipe.send("ready")
            while len(took) < n:
                conn.drain_events(timeout=PATIENCE)
    pipe.send(took)


def publish(transport: Transport, n: int, rate: float) -> None:
    """Publish `n` messages, each when it is due."""
    with kombu.Connection(transport.url, transport_options=transport.options) as conn:
        producer = kombu.Producer(conn)
        due = time.monotonic()
        for _ in range(n):
            due += 1 / rate
            while (ahead := due - time.monotonic()) > 0:
                time.sleep(ahead)
            body = TIME.pack(time.monotonic_ns())
            producer.publish(body, routing_key=QUEUE, content_type="application/data", content_encoding="binary")


def turn(transport: Transport, n: int, rate: float) -> list[int]:
    """Return how long the messages of one turn took, without the first."""
    ours, theirs = SPAWN.Pipe()
    consumer = SPAWN.Process(target=consume, args=(transport, n + WARM, theirs))
    producer = SPAWN.Process(target=publish, args=(transport, n + WARM, rate))
    consumer.start()
    try:
        expect(ours)
        producer.start()
        took: list[int] = expect(ours, (n + WARM) / rate)
    finally:
        for process in (consumer, producer):
            if process.pid is not None:
                process.join(PATIENCE)
                process.kill()
    return took[WARM:]


def expect(pipe: Pipe, more: float = 0.0) -> Any:  # noqa: ANN401 - what the other end sends
    """Return the next object, or give up."""
    if not pipe.poll(PATIENCE + more):
        raise TimeoutError("the consumer says nothing")
    return pipe.recv()


# -- the servers ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def over_shmq(_folder: Path) -> Iterator[list[Transport]]:
    """Run a private broker."""
    with shmq.local() as url:
        yield [Transport("shmq", url, {})]


@contextlib.contextmanager
def over_rabbitmq(folder: Path) -> Iterator[list[Transport]]:
    """Run RabbitMQ."""
    with rabbitmq(folder) as port:
        url = f"pyamqp://127.0.0.1:{port}"
        yield [Transport("RabbitMQ", url, {}), Transport("RabbitMQ, confirmed", url, {"confirm_publish": True})]


@contextlib.contextmanager
def over_redis(folder: Path) -> Iterator[list[Transport]]:
    """Run Redis."""
    with redis_server(folder) as path:
        yield [Transport("Redis", f"redis+socket://{path}", {})]


Server = Callable[[Path], AbstractContextManager[list[Transport]]]
SERVERS: Final[dict[str, tuple[str, Server]]] = {  # by program; with the package that Kombu reaches it by
    "shmqd": ("shmq", over_shmq),
    "rabbitmq-server": ("amqp", over_rabbitmq),
    "redis-server": ("redis", over_redis),
}


@contextlib.contextmanager
def transports() -> Iterator[list[Transport]]:
    """Give those that this host has."""
    with contextlib.ExitStack() as stack:
        found: list[Transport] = []
        for program, (package, server) in SERVERS.items():
            if importlib.util.find_spec(package) is None:
                print(f"{program}: the package {package} is not installed (pip install 'shmq[bench]')", file=sys.stderr)
                continue
            if program != "shmqd" and find_program(program) is None:
                print(f"{program}: not on this host", file=sys.stderr)
                continue
            folder = new_directory()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            found += stack.enter_context(server(folder))
        yield found


# -- figures ----------------------------------------------------------------------------------------------------------


def measure(found: Sequence[Transport], turns: int, n: int, rate: float) -> dict[str, Figures]:
    """Let them take turns."""
    took: dict[str, list[Figures]] = {transport.name: [] for transport in found}
    for _ in range(turns):
        for transport in found:
            times = statistics.quantiles(turn(transport, n, rate), n=100)
            took[transport.name].append(Figures(times[49] / 1000, times[98] / 1000))
    return {
        name: Figures(statistics.median(each.p50 for each in all_), statistics.median(each.p99 for each in all_))
        for name, all_ in took.items()
    }


def main() -> int:
    """Print a table, or JSON; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=500, help="messages a second")
    parser.add_argument("--n", type=int, default=2000, help="messages of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with transports() as found:
        figures = measure(found, given.turns, given.n, given.rate)
    others = [each.p50 for name, each in figures.items() if name != "shmq"]
    ratio = figures["shmq"].p50 / min(others) if others else None
    if given.json:
        print(json.dumps({"us": {name: each._asdict() for name, each in figures.items()}, "ratio_p50": ratio}))
    else:
        print("| transport | p50, us | p99, us |\n|---|---|---|")
        for name, each in figures.items():
            print(f"| {name} | {each.p50:.0f} | {each.p99:.0f} |")
        print(f"\np50, shmq to the best other: {'-' if ratio is None else f'{ratio:.2f}'} (goal: <= {RATIO_MAX})")
    return int(ratio is not None and ratio > RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
