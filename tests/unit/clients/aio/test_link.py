"""shmq_clients.aio.link: what must be asked is asked once and in order; what nobody waits for leaves nothing behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import shmq
from shmq.wire import frames as wire
from shmq_clients.aio.link import AsyncLink
from support.deadline import scaled
from support.scripted_broker import ScriptedBroker, scripted


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as broker:
        yield broker


@asynccontextmanager
async def linked(broker: ScriptedBroker) -> AsyncIterator[AsyncLink]:
    path = Path(broker.url.removeprefix("shmq://"))
    link = AsyncLink([path], "socket", 5.0, asyncio.get_running_loop())
    await link.connect(scaled(2))
    try:
        yield link
    finally:
        await link.leave(clean=True, timeout=scaled(2))


async def until_received(broker: ScriptedBroker, kind: type) -> None:
    deadline = time.monotonic() + scaled(5)
    while not broker.received(kind):
        assert time.monotonic() < deadline, kind
        await asyncio.sleep(0.001)  # to the next look


def counted(frame: wire.PurgeQueue) -> list[wire.Counted]:
    return [wire.Counted(frame.seq, int(frame.queue))]


def test_code_that_asks_several_things_is_called_until_it_knows_all(broker: ScriptedBroker) -> None:
    broker.answers[wire.PurgeQueue] = counted
    calls = 0

    async def main() -> int:
        async with linked(broker) as link:

            def add() -> int:
                nonlocal calls
                calls += 1
                return sum(
                    link.ask(lambda seq, name=name: wire.PurgeQueue(seq, name), wire.Counted).count  # type: ignore[misc] # bound now
                    for name in ("1", "20", "300", "20")
                )

            return await link.settled(add)

    assert asyncio.run(main()) == 341
    assert calls == 4
    assert [frame.queue for frame in broker.received(wire.PurgeQueue)] == ["1", "20", "300"]


def test_a_refusal_is_raised_where_the_code_asked(broker: ScriptedBroker) -> None:
    broker.answers[wire.PurgeQueue] = lambda frame: [wire.Error(frame.seq, 404, "there is none", {})]

    async def main() -> str:
        async with linked(broker) as link:

            def ask() -> str:
                try:
                    link.ask(lambda seq: wire.PurgeQueue(seq, "1"), wire.Counted)
                except shmq.NotFound as error:
                    return f"caught: {error}"
                return "not raised"

            return await link.settled(ask)

    assert asyncio.run(main()) == "caught: there is none"


def test_a_request_without_an_answer_ends_in_time_and_is_forgotten(broker: ScriptedBroker) -> None:
    broker.answers[wire.PurgeQueue] = lambda _frame: []

    async def main() -> None:
        async with linked(broker) as link:
            with pytest.raises(shmq.OperationTimeout):
                await link.asked(lambda seq: wire.PurgeQueue(seq, "1"), wire.Counted, timeout=0.05)
            assert link.session is not None
            assert not link.session.awaits_answers

    asyncio.run(main())


def test_what_comes_for_a_request_that_was_cancelled_goes_back(broker: ScriptedBroker) -> None:
    broker.answers[wire.Get] = lambda _frame: []

    async def main() -> None:
        async with linked(broker) as link:
            task = asyncio.create_task(link.requested(lambda seq: wire.Get(seq, "q", 1, 10**9)))
            await until_received(broker, wire.Get)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            broker.push(wire.Got(broker.received(wire.Get)[0].seq, [wire.Delivery(7, 0, 0, 1, 0, 1, 0, b"", b"x")]))
            await until_received(broker, wire.Nack)

    asyncio.run(main())

    assert [frame.delivery_tags for frame in broker.received(wire.Nack)] == [[7]]


def test_a_request_is_asked_again_in_the_next_session(broker: ScriptedBroker) -> None:
    def hang_up_once(_frame: wire.PurgeQueue) -> None:
        broker.answers[wire.PurgeQueue] = counted

    broker.answers[wire.PurgeQueue] = hang_up_once

    async def main() -> int:
        async with linked(broker) as link:
            return (await link.asked(lambda seq: wire.PurgeQueue(seq, "5"), wire.Counted)).count

    assert asyncio.run(main()) == 5
    assert broker.sessions == 2
    assert len(broker.received(wire.PurgeQueue)) == 2
