"""Loans that are not just the memory of one queue: entered once, as the core's own.

Owns: that a second `with` is told so. Does not own: what is lent, and what is published behind it (publishing.py).
"""

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType

from shmq.errors import AlreadySettled


class _Once:
    """Lets the first one in."""

    _is_entered = False

    def _enter(self) -> None:
        if self._is_entered:
            raise AlreadySettled("this loan was entered before")
        self._is_entered = True


class Loaned(_Once):
    """A loan of the blocking client."""

    def __init__(self, lending: AbstractContextManager[memoryview]) -> None:
        self._lending = lending

    def __enter__(self) -> memoryview:
        self._enter()
        return self._lending.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._lending.__exit__(kind, error, trace)


class AsyncLoaned(_Once):
    """A loan of the asyncio client."""

    def __init__(self, lending: AbstractAsyncContextManager[memoryview]) -> None:
        self._lending = lending

    async def __aenter__(self) -> memoryview:
        self._enter()
        return await self._lending.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._lending.__aexit__(kind, error, trace)
