"""The storm: many workers with gossip, mingle and events on, all restarted at once, and jobs beside them.

Owns: simulated workers, jobs, figures. A simulated worker is what Celery's own is on the wire, made of the same parts
(a pidbox node that answers `hello`, a broadcast of `hello` at its start, a dispatcher of events with a heartbeat every
2 s, a receiver bound to `worker.#`), without a pool; several share a process. Goals: no job is lost, the broker's
memory after the storm is what it was before.
"""

import contextlib
import multiprocessing
import statistics
import sys
import time
from multiprocessing.synchronize import Barrier, Event
from typing import Any, Final, NamedTuple

from celery import Celery
from kombu import Connection, Queue, uuid

import shmq_clients.kombu  # noqa: F401 - the alias
from benchmarks.celery.brokers import Broker

FORK: Final = multiprocessing.get_context("fork")
PER_PROCESS: Final = 10
HEARTBEAT: Final = 2.0  # seconds, Celery's own
RESTARTS: Final = 3
CALM: Final = 0.25  # as long as the storm, before it and after it
JOB_PACE: Final = 0.02
PATIENCE: Final = 60.0
LOOK: Final = 0.05
JOBS: Final = Queue("jobs")


class Shared(NamedTuple):
    """What the processes have in common."""

    url: str
    ready: Barrier
    restart: Any  # a number, shared: how often all have been told to begin anew
    over: Event
    heard: Any  # events received, by process
    answers: Any  # to `hello`, by process
    greeted: Any  # restarts that are done, by process


class Simulated:
    """One worker, from its connection to its heartbeats."""

    def __init__(self, url: str, number: int) -> None:
        app = Celery("storm", broker=url, set_as_current=False)  # its own, as each worker has: queues bear its id
        self._mailbox = app.control.mailbox
        self.heard = 0
        self.answers = 0
        self.beaten = 0.0
        self.name = f"worker{number}@storm"
        self.connection = app.connection_for_read()
        node = app.control.mailbox.Node(self.name, state={}, handlers={"hello": self._hello})
        node.channel = self.connection.channel()
        self._pidbox = node.listen(callback=node.handle_message)
        receiver = app.events.Receiver(self.connection.channel(), routing_key="worker.#", queue_ttl=2)
        self._events = receiver.get_consumers(_consumer(self.connection), self.connection.channel())
        for consumer in self._events:
            consumer.callbacks[:] = [self._hear]
            consumer.consume()
        self._pidbox.consume()
        self._replies = self._mailbox.get_reply_queue()(self.connection.channel())
        self._dispatcher = app.events.Dispatcher(self.connection, hostname=self.name)

    def _hello(self, state: Any, from_node: str, revoked: Any = None, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - Kombu's
        """Answer a neighbour that has come."""
        del state, from_node, revoked
        return {"revoked": {}, "clock": 1}

    def _hear(self, body: Any, message: Any) -> None:  # noqa: ANN401 - Kombu's
        del body, message
        self.heard += 1

    def greet(self) -> None:
        """As mingle: ask all for what they know, to be answered in a queue of one's own; then tell of oneself."""
        self._replies.declare()
        consumer = self.connection.Consumer([self._replies], callbacks=[self._answer], no_ack=True, accept=["json"])
        consumer.consume()
        arguments = {"from_node": self.name, "revoked": {}}
        self._mailbox._publish("hello", arguments, reply_ticket=uuid(), channel=self._replies.channel, timeout=1)  # noqa: SLF001 - what `broadcast` does, without its wait
        self._dispatcher.send("worker-online")

    def _answer(self, body: Any, message: Any) -> None:  # noqa: ANN401 - Kombu's
        del body, message
        self.answers += 1

    def beat(self, now: float) -> None:
        """Send a heartbeat when it is due."""
        if now - self.beaten >= HEARTBEAT:
            self.beaten = now
            self._dispatcher.send("worker-heartbeat", freq=HEARTBEAT, active=0, processed=0, loadavg=(0, 0, 0))

    def drain(self) -> None:
        """Take what is there."""
        with contextlib.suppress(TimeoutError):
            for _ in range(50):
                self.connection.drain_events(timeout=0.001)


def _consumer(connection: Connection) -> Any:  # noqa: ANN401 - a call
    def make(*args: Any, **keywords: Any) -> Any:  # noqa: ANN401 - Kombu's
        return connection.Consumer(*args, **keywords)

    return make


def live(shared: Shared, index: int, count: int) -> None:
    """Be several workers; begin anew when told."""
    done, workers = 0, _begin(shared.url, index, count)
    shared.ready.wait(PATIENCE)
    while not shared.over.is_set():
        if shared.restart.value > done:
            _end(shared, index, workers)
            workers = _begin(shared.url, index, count)
            for one in workers:
                one.greet()
            done += 1
            shared.greeted[index] = done
        for one in workers:
            one.drain()
            one.beat(time.monotonic())
    _end(shared, index, workers)


def _end(shared: Shared, index: int, workers: list[Simulated]) -> None:
    shared.heard[index] += sum(one.heard for one in workers)
    shared.answers[index] += sum(one.answers for one in workers)
    for one in workers:
        one.connection.release()


def _begin(url: str, index: int, count: int) -> list[Simulated]:
    return [Simulated(url, index * PER_PROCESS + number) for number in range(count)]


def hand_in(shared: Shared) -> None:
    """Publish jobs at a steady pace, each with the time at which it was due."""
    with Connection(shared.url) as connection:
        producer = connection.Producer()
        shared.ready.wait(PATIENCE)
        due = time.monotonic()
        while not shared.over.is_set():
            time.sleep(max(0.0, due - time.monotonic()))  # until it is due
            producer.publish({"due": due}, routing_key="jobs", declare=[JOBS])
            due += JOB_PACE
        producer.publish({"due": None}, routing_key="jobs")


def do_jobs(shared: Shared, results: Any) -> None:  # noqa: ANN401 - a pipe's end
    """Take them and tell when each was due and how long it took."""
    times: list[tuple[float, float]] = []
    more = True

    def take(body: dict[str, float | None], message: Any) -> None:  # noqa: ANN401 - Kombu's
        nonlocal more
        message.ack()
        if (due := body["due"]) is None:
            more = False
        else:
            times.append((due, time.monotonic() - due))

    with Connection(shared.url) as connection, connection.Consumer([JOBS], callbacks=[take], prefetch_count=1):
        shared.ready.wait(PATIENCE)
        while more:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=1)
    results.send(times)


def measure(broker: Broker, workers: int, seconds: float) -> dict[str, float]:
    """Calm, then restarts of all at once, then calm again."""
    groups = -(-workers // PER_PROCESS)
    counts = [FORK.RawArray("q", groups) for _ in range(3)]
    shared = Shared(broker.url, FORK.Barrier(groups + 3), FORK.Value("i", 0), FORK.Event(), *counts)
    hears, says = FORK.Pipe(duplex=False)
    sizes = [min(PER_PROCESS, workers - index * PER_PROCESS) for index in range(groups)]
    processes = [FORK.Process(target=live, args=(shared, index, size)) for index, size in enumerate(sizes)]
    processes += [FORK.Process(target=hand_in, args=(shared,)), FORK.Process(target=do_jobs, args=(shared, says))]
    for process in processes:
        process.start()
    try:
        told = _turns(broker, shared, hears, seconds)
    finally:
        shared.over.set()
        for process in processes:
            process.join(PATIENCE)
            process.kill()
    return told


def _turns(broker: Broker, shared: Shared, hears: Any, seconds: float) -> dict[str, float]:  # noqa: ANN401 - a pipe's end
    shared.ready.wait(PATIENCE)
    opened = time.monotonic()
    _restart(broker, shared, 1)  # once before: then all have the queues that they will have
    time.sleep(CALM * seconds)  # while jobs are measured
    memory, used = [broker.memory_mib()], broker.processor_seconds()
    stormed = time.monotonic()
    restarted: list[float] = []
    for number in range(2, RESTARTS + 2):
        begun = time.monotonic()
        restarted.append(_restart(broker, shared, number))
        while time.monotonic() - begun < seconds / RESTARTS:
            time.sleep(LOOK)  # to the next look
            memory.append(broker.memory_mib())
    calm, used = time.monotonic(), broker.processor_seconds() - used
    time.sleep(CALM * seconds)  # while jobs are measured
    after = broker.memory_mib()
    shared.over.set()
    if not hears.poll(PATIENCE):
        raise SystemExit(f"{broker.name}: the jobs do not end")
    times = hears.recv()
    before = sorted(took for due, took in times if due < stormed)
    during = sorted(took for due, took in times if stormed <= due < calm)
    return {
        "answers": sum(shared.answers),
        "jobs": len(times),
        "lost": round((times[-1][0] - times[0][0]) / JOB_PACE) + 1 - len(times),
        "before p50": statistics.median(before) * 1e3,
        "before p99": before[int(0.99 * len(before))] * 1e3,
        "p50": statistics.median(during) * 1e3,
        "p99": during[int(0.99 * len(during))] * 1e3,
        "back": statistics.median(restarted),
        "events": sum(shared.heard) / (time.monotonic() - opened),
        "used": used / (calm - stormed),
        "grown": max(memory) - memory[0],
        "after": after - memory[0],
    }


def _restart(broker: Broker, shared: Shared, number: int) -> float:
    """Have all begin anew, and return how long it took until all have."""
    begun = time.monotonic()
    shared.restart.value = number
    while min(shared.greeted) < number:
        time.sleep(LOOK)  # to the next look
        if time.monotonic() - begun > PATIENCE:
            raise SystemExit(f"{broker.name}: the workers are not back after {PATIENCE:g} s")
    return time.monotonic() - begun


TITLES: Final = {
    "answers": "answers to `hello`",
    "back": "restart of all, to the last greeting, s",
    "events": "events heard a second",
    "before p50": "jobs before, p50, ms",
    "before p99": "jobs before, p99, ms",
    "p50": "jobs in the storm, p50, ms",
    "p99": "jobs in the storm, p99, ms",
    "lost": "jobs lost",
    "used": "cores used by the broker",
    "grown": "broker's memory, at most, MiB more",
    "after": "broker's memory after, MiB more",
}


def side_by_side(running: list[Broker], workers: int, seconds: float) -> int:
    """Print the table; 1 when a job was lost on shmq."""
    told = {}
    for broker in running:
        told[broker.name] = measure(broker, workers, seconds)
        print(broker.name, told[broker.name], file=sys.stderr)
    print(f"| {workers} workers | {' | '.join(told)} |\n|---|{'---:|' * len(told)}")
    for key, title in TITLES.items():
        print(f"| {title} | {' | '.join(f'{one[key]:,.1f}' for one in told.values())} |")
    return int(told["shmq"]["lost"] > 0)
