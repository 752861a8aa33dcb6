"""The asyncio client in one process: many tasks, slow consumers, several connections, no threads."""

import asyncio
import contextlib
import importlib.util
import inspect
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import shmq
from shmq_clients.aio.channel import AsyncChannel
from shmq_clients.channel import Channel
from support.deadline import scaled

UVLOOP = pytest.param("uvloop", marks=pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="no uvloop"))
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", UVLOOP])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine in an event loop of each make."""
    if request.param == "asyncio":
        factory: Any = asyncio.new_event_loop
    else:
        factory = importlib.import_module("uvloop").new_event_loop

    def run_it(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(coroutine, scaled(60)))

    return run_it


def test_it_has_the_calls_of_the_blocking_client_with_the_same_arguments() -> None:
    def calls(cls: type) -> dict[str, list[Any]]:
        public = {name: value for name, value in inspect.getmembers(cls) if not name.startswith("_")}
        functions = {name: value for name, value in public.items() if callable(value)}
        return {
            name: [(one.name, one.kind, one.default) for one in inspect.signature(value).parameters.values()]
            for name, value in functions.items()
            if name != "open"
        } | {name: [] for name in public.keys() - functions.keys()}

    for_other_loops = {"control_fileno", "drain", "drain_pause", "fileno", "forgive_late_settling"}
    blocking = {name: how for name, how in calls(shmq.Connection).items() if name not in for_other_loops}
    assert calls(shmq.AsyncConnection) == blocking
    assert calls(AsyncChannel) == calls(Channel)


def test_what_is_awaitable_is_a_coroutine_function() -> None:
    others = {
        name
        for name, value in inspect.getmembers(shmq.AsyncConnection)
        if not name.startswith("_") and callable(value) and not inspect.iscoroutinefunction(value)
    }

    assert others == {"channel", "consume", "loan"}


def test_it_connects_by_awaiting_too(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        conn = await shmq.connect_async(url, mode=mode)
        queue = (await conn.declare_queue("", exclusive=True)).name
        await conn.publish(b"x", routing_key=queue, confirm="memory")
        message = await conn.get(queue)
        assert message is not None
        await message.ack()
        await conn.close()
        await conn.close()
        with pytest.raises(shmq.ConnectionClosed):
            await conn.status()

    run(main())


def test_thousands_of_gets_wait_at_once_and_each_gets_one(url: str, mode: Any, run: Run) -> None:
    count = 3000

    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn, shmq.connect_async(url, mode=mode) as other:
            queue = (await conn.declare_queue(f"gets-{mode}-{os.urandom(2).hex()}")).name
            gets = [asyncio.create_task(conn.get(queue, timeout=scaled(30), no_ack=True)) for _ in range(count)]
            await asyncio.sleep(0.05)  # until they wait
            for number in range(count):
                await other.publish(b"%d" % number, routing_key=queue)
            messages = await asyncio.gather(*gets)

            assert sorted(int(message.body) for message in messages if message) == list(range(count))
            assert await conn.get(queue) is None
            await conn.delete_queue(queue)

    run(main())


def test_gets_of_many_queues_wait_at_once(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            queues = [(await conn.declare_queue("", exclusive=False)).name for _ in range(60)]
            gets = [asyncio.create_task(conn.get(queue, timeout=scaled(20), no_ack=True)) for queue in queues]
            await asyncio.sleep(0.05)  # until they wait
            for queue in queues:
                await conn.publish(queue.encode(), routing_key=queue)

            assert [message.body for message in await asyncio.gather(*gets) if message] == [q.encode() for q in queues]
            for queue in queues:
                await conn.delete_queue(queue)

    run(main())


def test_time_that_is_up_ends_each_of_many_gets(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            queue = (await conn.declare_queue("", exclusive=True)).name
            start = time.monotonic()
            got = await asyncio.gather(*(conn.get(queue, timeout=0.2) for _ in range(500)))

            assert got == [None] * 500
            assert 0.19 < time.monotonic() - start < scaled(3)

    run(main())


def test_a_slow_consumer_holds_up_nobody_else(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            slow, fast = [(await conn.declare_queue("", exclusive=True)).name for _ in range(2)]
            for queue in (slow, fast):
                await conn.publish_many([b"x"] * 500, routing_key=queue)
            slowly: list[Any] = []

            async def consume_slowly() -> None:
                async for message in conn.consume(slow, prefetch=5):
                    slowly.append(message)
                    await asyncio.sleep(0.01)  # the slow one
                    await message.ack()

            task = asyncio.create_task(consume_slowly())
            received = 0
            async for message in conn.consume(fast, prefetch=50):
                await message.ack()
                received += 1
                if received == 500:
                    break
            assert len(slowly) < 250
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert (await conn.queue_info(slow)).messages > 0

    run(main())


def test_what_a_slow_consumer_without_prefetch_does_not_take_stays_with_the_broker(url: str, run: Run) -> None:
    count, body = 300, b"x" * 100_000

    async def main() -> None:
        async with shmq.connect_async(url, mode="socket") as conn, shmq.connect_async(url) as other:
            queue = (await conn.declare_queue(f"slow-{os.urandom(2).hex()}")).name
            consumer = await conn.consume(queue)
            await other.publish_many([body] * count, routing_key=queue)
            first = await anext(consumer)
            await asyncio.sleep(0.3)  # for the broker to push all that is taken from it unasked
            info = await other.queue_info(queue)
            assert info.messages > count // 2
            await conn.queue_info(queue)  # requests are answered all the same, whatever must be read before
            await conn.publish(body, routing_key=queue, confirm="memory")
            await first.ack()
            for _ in range(count):
                await (await anext(consumer)).ack()
            await conn.wait_for_confirms()
            assert (await conn.queue_info(queue)).unacked == 0
            await conn.delete_queue(queue)

    run(main())


def test_a_full_prefetch_waits_for_an_ack_of_another_task(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            queue = (await conn.declare_queue("", exclusive=True)).name
            await conn.publish_many([b"x"] * 30, routing_key=queue)
            work: asyncio.Queue[Any] = asyncio.Queue()
            most = 0

            async def worker() -> None:
                while True:
                    message = await work.get()
                    await asyncio.sleep(0.001)  # its work
                    await message.ack()
                    work.task_done()

            workers = [asyncio.create_task(worker()) for _ in range(3)]
            received = 0
            async for message in conn.consume(queue, prefetch=4):
                work.put_nowait(message)
                received += 1
                most = max(most, work._unfinished_tasks)  # type: ignore[attr-defined] # what is unacked
                if received == 30:
                    break
            await work.join()
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            assert most == 4
            await conn.wait_for_confirms()
            assert (await conn.queue_info(queue)).unacked == 0

    run(main())


def test_calls_that_need_not_wait_let_others_run(url: str, mode: Any) -> None:
    async def main() -> int:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)  # one turn of the loop
                turns += 1

        async with shmq.connect_async(url, mode=mode) as conn:
            queue = (await conn.declare_queue("", exclusive=True)).name
            counter = asyncio.create_task(count_turns())
            for _ in range(2000):
                await conn.publish(b"x", routing_key=queue)
            for _ in range(2000):
                await conn.get(queue, no_ack=True)
            await conn.publish_many([b"x"] * 5000, routing_key=queue)
            received = 0
            async for _message in conn.consume(queue, no_ack=True):
                received += 1
                if received == 5000:
                    break
            counter.cancel()
        return turns

    assert asyncio.run(main()) > 60


def test_there_is_no_thread_but_the_callers(url: str, mode: Any, run: Run) -> None:
    before = threading.active_count()

    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            queue = (await conn.declare_queue("", exclusive=True)).name
            consumer = conn.consume(queue)
            task = asyncio.create_task(anext(consumer))
            await conn.publish(b"x", routing_key=queue)
            await (await task).ack()
            await consumer.cancel()
            async with conn.loan(10, routing_key=queue):
                pass
            assert await conn.get(queue, timeout=1)
            assert threading.active_count() == before

    run(main())


def test_several_connections_share_a_loop_and_a_queue(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            conns = [await stack.enter_async_context(shmq.connect_async(url, mode=mode)) for _ in range(8)]
            queue = (await conns[0].declare_queue(f"shared-{os.urandom(2).hex()}")).name
            got: list[bytes] = []
            done = asyncio.Event()

            async def consume(conn: shmq.AsyncConnection) -> None:
                async for message in conn.consume(queue, prefetch=3):
                    got.append(message.body)
                    await message.ack()
                    if len(got) == 4000:
                        done.set()

            tasks = [asyncio.create_task(consume(conn)) for conn in conns]
            await asyncio.gather(
                *(conn.publish_many([b"%d" % n for n in range(i * 500, i * 500 + 500)], routing_key=queue)
                  for i, conn in enumerate(conns))
            )  # fmt: skip
            await asyncio.wait_for(done.wait(), scaled(30))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert sorted(map(int, got)) == list(range(4000))
            await conns[0].delete_queue(queue)

    run(main())


def test_a_message_wakes_an_asyncio_and_a_blocking_consumer_of_one_queue(url: str, mode: Any) -> None:
    """A token that one process' loop reads and does not need goes on to the other."""

    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn, shmq.connect_async(url, mode=mode) as other:
            queue = (await conn.declare_queue(f"wakes-{os.urandom(2).hex()}")).name
            with shmq.connect(url, mode=mode) as blocking:
                got: list[Any] = []
                thread = threading.Thread(target=lambda: got.append(blocking.get(queue, timeout=scaled(10))))
                thread.start()
                for _ in range(50):  # come and go
                    task = asyncio.create_task(conn.get(queue, timeout=10))
                    await asyncio.sleep(0)  # it begins
                    await asyncio.sleep(0)  # and waits
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                start = time.monotonic()
                await other.publish(b"x", routing_key=queue)
                await asyncio.get_running_loop().run_in_executor(None, thread.join)
                assert time.monotonic() - start < scaled(1)
                assert got[0].body == b"x"
            await conn.delete_queue(queue)

    asyncio.run(main())


def test_closing_ends_what_waits(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        conn = await shmq.connect_async(url, mode=mode)
        queue = (await conn.declare_queue("", exclusive=True)).name
        waiting = [asyncio.create_task(conn.get(queue, timeout=60)), asyncio.create_task(anext(conn.consume(queue)))]
        await asyncio.sleep(0.05)  # until they wait
        await conn.close()

        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, shmq.SessionError | shmq.NotFound), result

    run(main())


def test_a_queue_that_is_deleted_ends_what_waits_for_it(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn, shmq.connect_async(url) as other:
            queue = (await conn.declare_queue("")).name
            waiting = [asyncio.create_task(conn.get(queue, timeout=60)) for _ in range(20)]
            waiting.append(asyncio.create_task(anext(conn.consume(queue))))
            await asyncio.sleep(0.05)  # until they wait
            start = time.monotonic()
            await other.delete_queue(queue)

            for result in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(result, shmq.NotFound), result
            assert time.monotonic() - start < scaled(1)

    run(main())


def test_cancel_ends_an_iteration_in_another_task(url: str, mode: Any, run: Run) -> None:
    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            queue = (await conn.declare_queue("", exclusive=True)).name

            async def iterate() -> int:
                return len([message async for message in conn.consume(queue, consumer_tag="tag")])

            task = asyncio.create_task(iterate())
            await asyncio.sleep(0.05)  # until they wait
            await conn.cancel("tag")

            assert await asyncio.wait_for(task, scaled(2)) == 0
            with pytest.raises(shmq.NotFound):
                await conn.cancel("tag")
            assert (await conn.queue_info(queue)).consumers == 0

    run(main())


def test_a_consumer_that_is_cancelled_while_it_begins_ends(url: str, mode: Any) -> None:
    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            queue = (await conn.declare_queue("", exclusive=True)).name
            consumer = conn.consume(queue)
            task = asyncio.create_task(anext(consumer, None))
            await asyncio.sleep(0)  # it begins
            await consumer.cancel()

            assert await asyncio.wait_for(task, scaled(2)) is None
            assert (await conn.queue_info(queue)).consumers == 0

    asyncio.run(main())


def test_publishes_of_many_tasks_that_wait_for_room_leave_room_for_the_ack_that_makes_it(url: str, run: Run) -> None:
    """What the broker keeps for one connection is bounded; beyond it, it would not read the ack behind them."""

    async def main() -> None:
        async with shmq.connect_async(url, mode="socket") as conn:
            queue = (await conn.declare_queue(f"full-{os.urandom(2).hex()}", capacity_messages=1)).name
            await conn.publish(b"first", routing_key=queue, confirm="memory")
            held = await conn.get(queue, timeout=1)
            assert held is not None
            keywords: Any = {"routing_key": queue, "confirm": "memory", "timeout": scaled(20)}
            publishes = [asyncio.create_task(conn.publish(bytes(60_000), **keywords)) for _ in range(400)]
            await asyncio.sleep(0.2)  # until they wait for room
            await held.ack()
            for _ in range(400):
                message = await conn.get(queue, timeout=scaled(10))
                assert message is not None
                await message.ack()
            await asyncio.gather(*publishes)
            await conn.delete_queue(queue)

    run(main())
