"""The asyncio client with the face of the blocking one, so that one test body runs over both.

A thread runs the event loop, as an application's would run; each call is a coroutine in it that the test waits for.
What a test says to a connection, a consumer, a message, it may say to the adapted ones too; threads included.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, Self, TypeVar, cast

import shmq
from support.deadline import scaled

T = TypeVar("T")

CALL_TIMEOUT = 60.0  # no call of a test waits so long; one that does shows where


class LoopThread:
    """An event loop, running."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="event loop")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop and wait."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(scaled(CALL_TIMEOUT))

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Adapted:
    """Any object of the client: coroutines are run and waited for, all else is as it is."""

    def __init__(self, loop: LoopThread, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(value):
            return value
        return functools.wraps(value)(lambda *args, **keywords: self._loop.run(value(*args, **keywords)))


class AdaptedConsumer(Adapted):
    def __iter__(self) -> Iterator[Adapted]:
        return self

    def __next__(self) -> Adapted:
        try:
            return Adapted(self._loop, self._loop.run(self._inner.__anext__()))
        except StopAsyncIteration:
            raise StopIteration from None


class AdaptedLoan(Adapted):
    def __enter__(self) -> memoryview:
        view: memoryview = self._loop.run(self._inner.__aenter__())
        return view

    def __exit__(self, *error: object) -> Any:
        return self._loop.run(self._inner.__aexit__(*error))


class AdaptedReceiving(Adapted):
    def get(self, queue: str, **keywords: Any) -> Adapted | None:
        message = self._loop.run(self._inner.get(queue, **keywords))
        return None if message is None else Adapted(self._loop, message)

    def get_batch(self, queue: str, **keywords: Any) -> list[Adapted]:
        return [Adapted(self._loop, message) for message in self._loop.run(self._inner.get_batch(queue, **keywords))]

    def consume(self, queue: str, **keywords: Any) -> AdaptedConsumer:
        async def begin() -> Any:
            return await self._inner.consume(queue, **keywords)

        return AdaptedConsumer(self._loop, self._loop.run(begin()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.run(self._inner.__aexit__(*exc))


class AdaptedChannel(AdaptedReceiving):
    @property
    def prefetch(self) -> int:
        return int(self._inner.prefetch)

    @prefetch.setter
    def prefetch(self, prefetch: int) -> None:
        async def change() -> None:
            self._inner.prefetch = prefetch

        self._loop.run(change())


class AdaptedConnection(AdaptedReceiving):
    def channel(self) -> AdaptedChannel:
        async def begin() -> Any:
            return self._inner.channel()

        return AdaptedChannel(self._loop, self._loop.run(begin()))

    def ack_many(self, messages: Iterable[Adapted]) -> None:
        self._loop.run(self._inner.ack_many([getattr(message, "_inner", message) for message in messages]))

    def loan(self, body_bytes: int, **keywords: Any) -> AdaptedLoan:
        return AdaptedLoan(self._loop, self._inner.loan(body_bytes, **keywords))


def connect_adapted(loop: LoopThread, url: str, **keywords: Any) -> shmq.Connection:
    """Connect with the asyncio client."""

    async def connect() -> shmq.AsyncConnection:
        return await shmq.connect_async(url, **keywords)

    return cast("shmq.Connection", AdaptedConnection(loop, loop.run(connect())))
