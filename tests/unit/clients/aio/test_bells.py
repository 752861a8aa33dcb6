"""shmq_clients.aio.bells: register, look, wait; what is left when somebody leaves goes on to others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shmq.core import _core as core
from shmq_clients.aio.bells import Bells
from support.deadline import scaled
from support.segments import segment


class Attached:
    """An attachment."""

    name = "jobs"

    def __init__(self, queue: core.Queue) -> None:
        self.queue = queue


class Link:
    """One that is always there."""

    session = object()
    closed = False

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def check_reach(self) -> None: ...


class Renewing:
    def renew(self, _attachment: Any) -> bool:
        return True


@asynccontextmanager
async def waiting_at() -> AsyncIterator[tuple[Bells, Attached, core.Queue]]:
    """Give bells, an attached queue, and the queue as another process has it."""
    with segment() as made:
        link: Any = Link()
        bells, attached = Bells(link, Renewing()), Attached(made.attach(32))
        yield bells, attached, made.attach(33)
        bells.close()


async def take(bells: Bells, attached: Any) -> bytes:
    while (message := attached.queue.take()) is None:
        await bells.wait(attached, core.CONSUMERS, scaled(5))
    message.ack()
    return bytes(message.body)


def test_each_message_wakes_one_of_those_who_wait() -> None:
    async def main() -> None:
        async with waiting_at() as (bells, attached, other):
            takers = [asyncio.create_task(take(bells, attached)) for _ in range(50)]
            await asyncio.sleep(0)  # they begin to wait
            for number in range(50):
                other.publish(b"%d" % number)

            assert sorted(map(int, await asyncio.gather(*takers))) == list(range(50))

    asyncio.run(main())


def test_who_leaves_takes_the_registration_back() -> None:
    async def main() -> None:
        async with waiting_at() as (bells, attached, other):
            taker = asyncio.create_task(take(bells, attached))
            await asyncio.sleep(0.01)  # until it waits
            taker.cancel()
            await asyncio.gather(taker, return_exceptions=True)
            await asyncio.sleep(0)  # what it left to the loop is done

            other.publish(b"x")

            assert not other.bell_token(core.CONSUMERS)  # nobody was registered, so nobody was rung
            assert not bells._bells

    asyncio.run(main())


def test_a_token_of_one_who_was_cancelled_goes_on_to_another_process() -> None:
    async def main() -> None:
        async with waiting_at() as (bells, attached, other):
            taker = asyncio.create_task(take(bells, attached))
            await asyncio.sleep(0.01)  # until it waits
            other.publish(b"x")  # rings the task
            bell = bells._bells[attached.queue, core.CONSUMERS]
            bell._on_ring()
            other.bell_register(core.CONSUMERS)  # somebody else, who looked before
            taker.cancel()
            await asyncio.gather(taker, return_exceptions=True)
            await asyncio.sleep(0)  # what it left to the loop is done

            assert other.bell_token(core.CONSUMERS)
            assert other.take() is not None

    asyncio.run(main())


def test_a_message_that_was_there_before_the_waiting_needs_no_ring() -> None:
    async def main() -> bytes:
        async with waiting_at() as (bells, attached, other):
            other.publish(b"x")
            await asyncio.wait_for(bells.wait(attached, core.CONSUMERS, 60), scaled(1))  # type: ignore[arg-type] # as one
            return await take(bells, attached)

    assert asyncio.run(main()) == b"x"
