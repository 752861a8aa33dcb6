"""Cancelling a coroutine at each of its awaits, one after the other.

What a task sees of `Task.cancel` is a CancelledError where it waits: before what it waits for has come ("early"), or
when it has come and the task has not run yet ("late").
"""

import asyncio
import itertools
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """How it ended: cancelled, or with a result before its turn to be cancelled came."""

    cancelled: bool
    result: Any = None


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, Any], point: int, *, late: bool) -> Generator[Any, Any, Outcome]:
    """Run it, cancelled at the await number `point`; awaits that its clean-up needs are let be."""
    step: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    for number in itertools.count():
        try:
            waited = step(argument)
        except StopIteration as stop:
            return Outcome(cancelled=False, result=stop.value)
        except asyncio.CancelledError:
            return Outcome(cancelled=True)
        if number == point and not late:
            if waited is not None:
                waited._asyncio_future_blocking = False
                waited.cancel()
            step, argument = coroutine.throw, asyncio.CancelledError()
            continue
        try:
            argument, step = (yield waited), coroutine.send
        except BaseException as error:  # noqa: BLE001 - handed on
            step, argument = coroutine.throw, error
        if number == point:
            step, argument = coroutine.throw, asyncio.CancelledError()
    raise AssertionError("not reached")


def points(start: int = 0, end: int = 100) -> Iterator[tuple[int, bool]]:
    """Every await, early and late."""
    return ((point, late) for point in range(start, end) for late in (False, True))
