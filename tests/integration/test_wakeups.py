"""Who waits at the broker finds what he waits for, though the wake-up went to somebody who does nothing with it."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator

import pytest

import shmq
from shmq.core import _core as core
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance
from support.taking import take

LATE = 1.0  # seconds; what nobody tells of is found in a quarter of one


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shmqd]:
    with instance(tmp_path_factory.mktemp("shmqd")) as running:
        yield running


@pytest.fixture
def thief(daemon: Shmqd) -> Iterator[shmq.Connection]:
    """Works in segments, where tokens can be read."""
    with daemon.connect("direct") as connection:
        yield connection


@pytest.fixture
def served(daemon: Shmqd) -> Iterator[shmq.Connection]:
    """Waits at the broker."""
    with daemon.connect("socket") as connection:
        yield connection


def steal(queue: core.Queue, side: int, act: Callable[[], object]) -> None:
    """Act, and read the token for it before the broker can: as one who is stopped there, or killed."""
    stolen = False
    while not stolen:
        queue.bell_register(side)
        act()
        stolen = queue.bell_token(side)


def test_a_message_comes_though_the_token_for_it_was_read_by_one_who_stands_still(
    thief: shmq.Connection, served: shmq.Connection
) -> None:
    thief.declare_queue("jobs")
    queue = thief._attachments.attach("jobs").queue
    taken = take(served.consume("jobs"))
    wait_until(lambda: served.queue_info("jobs").consumers == 1, "the broker waits")
    before = len(taken.messages)
    steal(queue, core.CONSUMERS, lambda: queue.publish(b"job"))

    wait_until(lambda: len(taken.messages) > before and served.queue_info("jobs").messages == 0, "it comes", LATE)
    taken.stop()


def test_a_publish_goes_on_though_the_token_for_its_room_was_read_by_one_who_stands_still(
    thief: shmq.Connection, served: shmq.Connection
) -> None:
    thief.declare_queue("full", capacity_messages=1)
    queue = thief._attachments.attach("full").queue
    served.publish(b"there", routing_key="full", confirm="memory")
    served.publish(b"waits", routing_key="full", confirm="sent", timeout=scaled(10))
    served.queue_info("full")  # answered behind the publish: the broker waits
    steal(queue, core.PRODUCERS, lambda: queue.take(True))
    started = time.monotonic()
    served.wait_for_confirms(timeout=scaled(8))

    assert time.monotonic() - started < scaled(LATE)


async def look_elsewhere(conn: shmq.AsyncConnection) -> None:
    """Begin one wait after the other, at other bells."""
    for queue in itertools.cycle(("here", "there")):
        await conn.get(queue, timeout=0.05)


def test_a_task_finds_it_too_whatever_other_tasks_wait_for(daemon: Shmqd, thief: shmq.Connection) -> None:
    for name in ("here", "there", "tasks"):
        thief.declare_queue(name)
    queue = thief._attachments.attach("tasks").queue

    async def main() -> shmq.AsyncMessage | None:
        async with await shmq.connect_async(daemon.url, mode="direct") as conn:
            others = asyncio.create_task(look_elsewhere(conn))
            waiting = asyncio.create_task(conn.get("tasks", timeout=scaled(8), no_ack=True))
            await asyncio.sleep(1.2)  # the connection has no more to look after
            steal(queue, core.CONSUMERS, lambda: queue.publish(b"job"))
            await asyncio.wait([waiting], timeout=scaled(LATE))
            others.cancel()
            return waiting.result()

    message = asyncio.run(main())

    assert message is not None
    assert message.body == b"job"
