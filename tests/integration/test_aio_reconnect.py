"""The daemon's deaths as tasks see them: traffic goes on, requests wait, consumers resume, waits have an end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running, running.connect() as connection:
        connection.declare_queue("q")
        yield running


async def kill(daemon: Shmqd, role: str) -> None:
    """Kill the child that serves now, while the loop goes on."""

    def killed() -> bool:
        try:
            daemon.kill(role)
        except (ProcessLookupError, StopIteration, shmq.SessionError):
            return False
        return True

    await asyncio.to_thread(wait_until, killed, f"a {role} to kill")


async def until(condition: Any, what: str, seconds: float = 10.0) -> None:
    """Wait, giving way to others."""
    deadline = time.monotonic() + scaled(seconds)
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.002)  # to the next look


async def more(bodies: list[bytes], count: int) -> None:
    """Wait for so many more."""
    enough = len(bodies) + count
    await until(lambda: len(bodies) >= enough, "messages flow")


@contextlib.asynccontextmanager
async def consuming(conn: shmq.AsyncConnection, bodies: list[bytes]) -> AsyncIterator[None]:
    """Consume and ack in a task."""

    async def consume() -> None:
        async for message in conn.consume("q", prefetch=10):
            bodies.append(message.body)
            with contextlib.suppress(shmq.StaleDelivery):
                await message.ack()

    task = asyncio.create_task(consume())
    yield
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("role", ["broker", "supervisor"])
def test_a_waiting_consumer_outlives_a_child_of_the_daemon(daemon: Shmqd, mode: Any, role: str) -> None:
    bodies: list[bytes] = []

    async def main() -> None:
        async with shmq.connect_async(daemon.url, mode=mode) as conn, consuming(conn, bodies):
            for number in range(3):
                await kill(daemon, role)
                async with shmq.connect_async(daemon.url, timeout=scaled(5)) as other:
                    await other.publish(b"%d" % number, routing_key="q", confirm="memory")
                await until(lambda number=number: len(bodies) > number, "it is delivered")

    asyncio.run(main())

    assert list(dict.fromkeys(bodies)) == [b"0", b"1", b"2"]


def test_gets_that_wait_outlive_the_broker(daemon: Shmqd, mode: Any) -> None:
    async def main() -> None:
        async with shmq.connect_async(daemon.url, mode=mode) as conn:
            gets = [asyncio.create_task(conn.get("q", timeout=scaled(30))) for _ in range(50)]
            await asyncio.sleep(0.05)  # until they wait
            await kill(daemon, "broker")
            async with shmq.connect_async(daemon.url, timeout=scaled(5)) as other:
                await other.publish_many([b"%d" % number for number in range(50)], routing_key="q", confirm="memory")
            messages = await asyncio.gather(*gets)
            assert sorted(int(message.body) for message in messages if message) == list(range(50))
            await conn.ack_many([message for message in messages if message])

    asyncio.run(main())


def test_producers_and_consumers_go_on_while_the_whole_daemon_is_killed_and_started_again(
    daemon: Shmqd, mode: Any
) -> None:
    bodies: list[bytes] = []
    published: list[int] = []

    async def produce(conn: shmq.AsyncConnection, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            try:
                await conn.publish(b"%d" % number, routing_key="q", confirm="memory")
            except shmq.ConnectionLost:
                continue  # published or not: the same one again
            published.append(number)
            number += 1
            await asyncio.sleep(0.0005)  # so that it lasts over all the deaths

    async def main() -> None:
        stop = asyncio.Event()
        async with (
            shmq.connect_async(daemon.url, mode=mode) as conn,
            shmq.connect_async(daemon.url, mode=mode) as other,
            consuming(conn, bodies),
        ):
            producer = asyncio.create_task(produce(other, stop))
            for _ in range(2):
                await more(bodies, 50)
                daemon.kill_all()
                await asyncio.to_thread(daemon.start)
            await more(bodies, 50)
            stop.set()
            await asyncio.wait_for(producer, scaled(20))
            await until(lambda: set(published) <= set(map(int, bodies)), "all are delivered")

    asyncio.run(main())


def test_a_request_waits_for_the_next_broker(daemon: Shmqd, mode: Any) -> None:
    async def main() -> None:
        async with shmq.connect_async(daemon.url, mode=mode) as conn:
            for _ in range(3):
                await kill(daemon, "broker")
                assert (await conn.queue_info("q")).definition.name == "q"

    asyncio.run(main())


def test_what_is_held_survives_the_broker_in_direct_mode(daemon: Shmqd) -> None:
    async def main() -> None:
        async with shmq.connect_async(daemon.url, mode="direct") as conn:
            await conn.publish(b"x", routing_key="q")
            message = await conn.get("q")
            assert message is not None
            await kill(daemon, "broker")
            await conn.status()

            await message.ack()

            assert (await conn.queue_info("q")).unacked == 0

    asyncio.run(main())


def test_publishing_in_the_segment_needs_no_daemon(daemon: Shmqd) -> None:
    async def main() -> None:
        async with shmq.connect_async(daemon.url, mode="direct") as conn:
            await conn.publish(b"0", routing_key="q")
            daemon.kill_all()
            for number in range(1, 100):
                await conn.publish(b"%d" % number, routing_key="q")
            got = [message.body for _ in range(100) if (message := await conn.get("q", no_ack=True))]
            assert got == [b"%d" % number for number in range(100)]
            await asyncio.to_thread(daemon.start)

    asyncio.run(main())


def test_waits_end_when_the_daemon_stays_away(daemon: Shmqd, mode: Any) -> None:
    async def main() -> None:
        async with shmq.connect_async(daemon.url, mode=mode, reconnect_timeout=0.3) as conn:
            await conn.get("q")
            gets = [asyncio.create_task(conn.get("q", timeout=None)) for _ in range(20)]
            gets.append(asyncio.create_task(anext(conn.consume("q"))))
            await asyncio.sleep(0.1)  # until they wait
            daemon.kill_all()
            start = time.monotonic()

            for result in await asyncio.gather(*gets, return_exceptions=True):
                assert isinstance(result, shmq.DaemonNotRunning | shmq.ConnectionLost), result
            assert time.monotonic() - start < scaled(3)
            with pytest.raises((shmq.DaemonNotRunning, shmq.ConnectionLost)):
                await conn.status()

            await asyncio.to_thread(daemon.start)
            await conn.status()

    asyncio.run(main())


def test_no_daemon_is_one_error_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        start = time.monotonic()
        with pytest.raises(shmq.DaemonNotRunning):
            await shmq.connect_async(f"shmq://{tmp_path}/none.sock")
        assert time.monotonic() - start < scaled(0.5)

    asyncio.run(main())
