"""shmq_clients.aio.waiting: who waits is told in order, once, or not at all."""

import asyncio

import pytest

from shmq_clients.aio.waiting import Waiters


async def begin(waiters: Waiters, count: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(waiters.wait()) for _ in range(count)]
    await asyncio.sleep(0)  # they begin to wait
    return tasks


def test_one_is_told_at_a_time_in_the_order_they_came() -> None:
    async def main() -> list[bool]:
        waiters = Waiters()
        tasks = await begin(waiters, 3)
        waiters.tell_one()
        waiters.tell_one()
        await asyncio.sleep(0)  # who was told wakes
        done = [task.done() for task in tasks]
        waiters.tell_all()
        assert await asyncio.gather(*tasks) == [True] * 3
        return done

    assert asyncio.run(main()) == [True, True, False]


def test_who_was_cancelled_is_passed_over() -> None:
    async def main() -> bool:
        waiters = Waiters()
        first, second = await begin(waiters, 2)
        first.cancel()
        waiters.tell_one()
        return await asyncio.wait_for(second, 1)

    assert asyncio.run(main())


def test_time_that_is_up_is_told_apart_and_leaves_nothing() -> None:
    async def main() -> tuple[bool, bool]:
        waiters = Waiters()
        return await waiters.wait(0.01), bool(waiters)

    assert asyncio.run(main()) == (False, False)


def test_what_is_called_when_the_waiting_has_begun_may_end_it() -> None:
    async def main() -> bool:
        waiters = Waiters()
        return await waiters.wait(None, waiters.tell_one)

    assert asyncio.run(main())


def test_an_error_reaches_all() -> None:
    async def main() -> None:
        waiters = Waiters()
        tasks = await begin(waiters, 2)
        waiters.fail_all(LookupError())
        for task in tasks:
            with pytest.raises(LookupError):
                await task

    asyncio.run(main())
