"""The asyncio client, cancelled at every await of every call: nothing is lost, nothing is taken, nothing done twice.

Each test goes through the awaits of a call, one after the other, until the call ends before its turn comes.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import shmq
from support.cancelling import Outcome, cancelled_at, points
from support.deadline import scaled

DESCRIPTORS = Path("/proc/self/fd")
POINTS_MIN = 1  # fewer were none at all


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


@contextlib.asynccontextmanager
async def two(url: str, mode: Any, queue: str, **arguments: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Give a connection to cancel calls of, and one to look with; a queue that is gone then."""
    async with shmq.connect_async(url, mode=mode) as conn, shmq.connect_async(url, mode="socket") as other:
        await other.declare_queue(queue, **arguments)
        yield conn, other
        await other.delete_queue(queue)


async def each_point(
    call: Callable[[], Coroutine[Any, Any, Any]], check: Callable[[Outcome], Awaitable[None]], before: Any = None
) -> None:
    """Cancel `call` at each of its awaits, and `check` after each."""
    cancelled = 0
    for point, late in points():
        if before is not None:
            await before()
        async with asyncio.timeout(scaled(20)):
            outcome = await cancelled_at(call(), point, late=late)
        await check(outcome)
        cancelled += outcome.cancelled
        if not outcome.cancelled and late:
            break
    assert cancelled >= POINTS_MIN


async def given_back(conn: Any) -> None:
    """Return when what came for a cancelled call is back: once for it to come, once for it to go."""
    await conn.status()
    await conn.status()


async def settled(other: Any, queue: str, messages: int, unacked: int = 0) -> None:
    """Wait until the queue has so many messages."""
    async with asyncio.timeout(scaled(5)):
        while True:
            info = await other.queue_info(queue)
            if (info.messages, info.unacked) == (messages, unacked):
                return


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_cancelled_get_takes_nothing_and_loses_nothing(url: str, mode: Any, *, no_ack: bool) -> None:
    async def run() -> None:
        async with two(url, mode, "get") as (conn, other):

            async def check(outcome: Outcome) -> None:
                await given_back(conn)
                if outcome.cancelled:
                    await settled(other, "get", 1)
                    message = await other.get("get", timeout=1)
                    assert message.delivery_count <= (1 if mode == "direct" else 2)
                    await message.ack()
                elif not no_ack:
                    await outcome.result.ack()
                await settled(other, "get", 0)

            def publish() -> Awaitable[None]:
                return other.publish(b"x", routing_key="get", confirm="memory")  # type: ignore[no-any-return] # a coroutine

            await each_point(lambda: conn.get("get", timeout=5, no_ack=no_ack), check, publish)

    asyncio.run(run())


def test_a_get_cancelled_while_its_message_comes_takes_nothing_and_loses_nothing(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "coming") as (conn, other):
            tasks: list[asyncio.Task[None]] = []

            async def publish_soon() -> None:
                tasks[:] = [asyncio.create_task(other.publish(b"x", routing_key="coming", confirm="memory"))]

            async def check(outcome: Outcome) -> None:
                await tasks[0]
                await given_back(conn)
                if not outcome.cancelled:
                    await outcome.result.ack()
                await settled(other, "coming", int(outcome.cancelled))
                await other.purge_queue("coming")

            await each_point(lambda: conn.get("coming", timeout=5), check, publish_soon)

    asyncio.run(run())


def test_a_cancelled_get_leaves_later_messages_to_others(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "later") as (conn, other):
            for _ in range(20):
                task = asyncio.create_task(conn.get("later", timeout=60))
                await asyncio.sleep(0.002)  # until it waits
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await conn.queue_info("later")  # the broker has heard of it
            await other.publish(b"x", routing_key="later", confirm="memory")

            message = await other.get("later", timeout=scaled(2))

            assert message is not None
            assert message.delivery_count == 1
            await message.ack()

    asyncio.run(run())


def test_a_cancelled_batch_goes_back_whole(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "batch") as (conn, other):
            bodies = [b"%d" % number for number in range(300)]  # more than one frame of deliveries

            async def check(outcome: Outcome) -> None:
                await given_back(conn)
                if outcome.cancelled:
                    await settled(other, "batch", len(bodies))
                else:
                    await conn.ack_many(outcome.result)
                    await conn.wait_for_confirms()
                await other.purge_queue("batch")
                await settled(other, "batch", 0)

            def publish() -> Awaitable[None]:
                return other.publish_many(bodies, routing_key="batch", confirm="memory")  # type: ignore[no-any-return] # a coroutine

            await each_point(lambda: conn.get_batch("batch", max_messages=300, max_wait=5), check, publish)

    asyncio.run(run())


@pytest.mark.parametrize("keywords", [{}, {"confirm": "memory"}, {"headers": {"a": 1}}, {"exchange": "amq.direct"}])
def test_a_cancelled_publish_is_published_once_or_not_at_all(url: str, mode: Any, keywords: dict[str, Any]) -> None:
    async def run() -> None:
        async with two(url, mode, "publish") as (conn, other):
            await other.bind_queue("publish", "amq.direct", "publish")

            async def check(outcome: Outcome) -> None:
                await conn.wait_for_confirms()
                count = (await other.queue_info("publish")).messages
                assert count in ((0, 1) if outcome.cancelled else (1,))
                await other.purge_queue("publish")

            await each_point(lambda: conn.publish(b"x", routing_key="publish", **keywords), check, _give_way_next(conn))

    asyncio.run(run())


def _give_way_next(conn: Any) -> Callable[[], Awaitable[None]]:
    """Have the next call give way to others first: one await at least."""

    async def full() -> None:
        conn._paths._turns = 1 << 20

    return full


def test_a_publish_cancelled_while_it_waits_for_room_is_not_published(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "room", capacity_messages=1) as (conn, other):
            await other.publish(b"old", routing_key="room", confirm="memory")
            task = asyncio.create_task(conn.publish(b"new", routing_key="room", timeout=0.2, confirm="memory"))
            await asyncio.sleep(0.05)  # until it waits for room
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.2)  # in socket mode the broker goes on until the deadline

            message = await other.get("room", timeout=1)
            await message.ack()

            assert message.body == b"old"
            assert await other.get("room", timeout=0.1) is None

    asyncio.run(run())


def test_publishes_that_were_cancelled_while_they_wait_keep_no_ack_from_being_read(url: str) -> None:
    async def run() -> None:
        async with two(url, "socket", "held", capacity_messages=1) as (conn, other):
            await conn.publish(b"old", routing_key="held", confirm="memory")
            message = await conn.get("held", timeout=1)
            for _ in range(3):  # more than the broker keeps of one connection
                publish = functools.partial(conn.publish, b"new", routing_key="held", timeout=4, confirm="memory")
                tasks = [asyncio.create_task(publish()) for _ in range(400)]
                await asyncio.sleep(0.1)  # until they wait for room
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await message.ack()

            async with asyncio.timeout(scaled(1)):
                assert (await other.get("held", timeout=2)).body == b"new"

    asyncio.run(run())


def test_a_cancelled_publish_many_leaves_the_first_ones(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "many") as (conn, other):
            bodies = [b"%d" % number for number in range(3000)]

            async def check(outcome: Outcome) -> None:
                await conn.wait_for_confirms()
                got = [message.body for message in await other.get_batch("many", max_messages=4000, no_ack=True)]
                assert got == bodies[: len(got)]
                assert outcome.cancelled or len(got) == len(bodies)

            publish_many = functools.partial(conn.publish_many, bodies, routing_key="many", confirm="memory")
            await each_point(publish_many, check)

    asyncio.run(run())


def test_a_cancelled_loan_publishes_nothing(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "loan") as (conn, other):

            async def lend() -> None:
                async with conn.loan(1000, routing_key="loan", confirm="memory") as body:
                    body[:] = b"x" * 1000
                    await asyncio.sleep(0)  # one more await to be cancelled at

            async def check(outcome: Outcome) -> None:
                count = (await other.queue_info("loan")).messages
                assert count == 1 or (outcome.cancelled and count == 0)
                await other.purge_queue("loan")

            await each_point(lend, check)

    asyncio.run(run())


def test_a_cancelled_iteration_is_gone_on_with_and_misses_nothing(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "consume") as (conn, other):
            got: list[bytes] = []
            published = 0
            consumer = conn.consume("consume", prefetch=10)

            async def publish() -> None:
                nonlocal published
                await other.publish(b"%d" % published, routing_key="consume", confirm="memory")
                published += 1

            async def check(outcome: Outcome) -> None:
                if not outcome.cancelled:
                    got.append(outcome.result.body)
                    await outcome.result.ack()

            await each_point(consumer.__anext__, check, publish)
            while len(got) < published:
                message = await asyncio.wait_for(consumer.__anext__(), scaled(5))
                got.append(message.body)
                await message.ack()
            await consumer.cancel()

            assert got == [b"%d" % number for number in range(published)]

    asyncio.run(run())


def test_a_consumer_cancelled_while_it_begins_keeps_nothing_back(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "begin") as (conn, other):
            await other.publish(b"x", routing_key="begin", confirm="memory")

            async def begin() -> Any:
                return await conn.consume("begin")

            async def check(outcome: Outcome) -> None:
                if not outcome.cancelled:
                    await outcome.result.cancel()
                async with asyncio.timeout(scaled(5)):
                    while True:
                        info = await other.queue_info("begin")
                        if not info.consumers and info.messages:
                            return

            await each_point(begin, check)

    # In direct mode a queue that is attached needs no await to begin.
    asyncio.run(run())


def test_a_cancelled_ack_has_acked_or_not_begun(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "ack") as (conn, other):
            await other.publish_many([b"x"] * 5000, routing_key="ack", confirm="memory")
            messages: list[Any] = []

            async def get() -> None:
                messages[:] = await conn.get_batch("ack", max_messages=2500, max_wait=1)

            async def check(outcome: Outcome) -> None:
                states = [message.state for message in messages]
                acked = states.count("acked")
                assert states[:acked] == ["acked"] * acked
                assert outcome.cancelled or acked == len(messages)
                for message in messages[acked:]:
                    await message.nack()

            await each_point(lambda: conn.ack_many(messages), check, get)

    asyncio.run(run())


def test_a_cancelled_request_leaves_the_connection_as_good_as_before(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "ask") as (conn, other):

            async def check(_outcome: Outcome) -> None:
                assert (await conn.queue_info("ask")).messages == 0

            await each_point(lambda: conn.declare_queue("ask"), check)
            await each_point(conn.queues, check)
            await each_point(lambda: conn.purge_queue("ask"), check)
            await each_point(lambda: conn.bind_queue("ask", "amq.direct", "k"), check)
            assert conn._link._session._answers == {}
            assert await other.queue_info("ask")

    asyncio.run(run())


def test_a_cancelled_attach_keeps_no_descriptor(url: str) -> None:
    async def run() -> None:
        async with two(url, "direct", "attach") as (conn, _other):
            await conn.status()  # its answer comes behind the descriptor that every client gets
            before = descriptors()

            async def check(outcome: Outcome) -> None:
                await conn.queue_info("attach")
                if outcome.cancelled:
                    assert descriptors() == before

            await each_point(lambda: conn.get("attach"), check)

    asyncio.run(run())


def test_a_cancelled_connect_leaves_nothing(url: str, mode: Any) -> None:
    async def run() -> None:
        before = descriptors()

        async def connect() -> Any:
            return await shmq.connect_async(url, mode=mode)

        async def check(outcome: Outcome) -> None:
            if not outcome.cancelled:
                await outcome.result.close()
            assert descriptors() == before

        await each_point(connect, check)

    asyncio.run(run())


def test_a_cancelled_close_closes(url: str, mode: Any) -> None:
    async def run() -> None:
        async with two(url, mode, "close") as (conn, other):
            await conn.status()  # likewise
            before = descriptors()
            made: list[Any] = []

            async def connect() -> None:
                made[:] = [await shmq.connect_async(url, mode=mode)]
                await other.publish(b"x", routing_key="close", confirm="memory")
                assert await made[0].get("close", timeout=1)

            async def check(_outcome: Outcome) -> None:
                with pytest.raises(shmq.ConnectionClosed):
                    await made[0].status()
                assert descriptors() == before
                message = await other.get("close", timeout=scaled(15))  # a session without goodbye is kept for 10 s
                await message.ack()

            async def close() -> None:
                await made[0].close()

            await each_point(close, check, connect)

    asyncio.run(run())
