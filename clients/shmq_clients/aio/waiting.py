"""Tasks that wait for one thing, and how they are told.

Owns: the futures they wait on, in the order they came. Does not own: what they wait for.
Invariants: who is told, is told once; who was cancelled or whose time is up is never the one that is told, unless it
was told before: then it must pass on what it was told of (bells.py).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

ENDLESS: Final = 366 * 86_400.0  # seconds; a longer wait has no timer


class Waiters:
    """True while anybody waits."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: OrderedDict[asyncio.Future[bool], None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._futures)

    async def wait(self, timeout: float | None = None, then: Callable[[], object] = bool) -> bool:
        """Wait until told; False: time is up. `then` is called when the waiting has begun."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._futures[future] = None
        timer = None
        try:
            if timeout is not None and timeout < ENDLESS:
                timer = loop.call_later(max(0.0, timeout), _settle, future, False)
            then()
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._futures.pop(future, None)

    def tell_one(self) -> None:
        """Wake who has waited longest."""
        while self._futures:
            future, _ = self._futures.popitem(last=False)
            if not future.done():
                future.set_result(True)
                return

    def tell_all(self) -> None:
        """Wake all who wait now."""
        futures, self._futures = self._futures, OrderedDict()
        for future in futures:
            _settle(future, True)

    def fail_all(self, error: Exception) -> None:
        """Raise this in all who wait now."""
        futures, self._futures = self._futures, OrderedDict()
        for future in futures:
            if not future.done():
                future.set_exception(error)


def _settle(future: asyncio.Future[bool], result: bool) -> None:  # noqa: FBT001 - a result
    if not future.done():
        future.set_result(result)
