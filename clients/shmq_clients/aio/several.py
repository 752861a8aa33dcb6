"""One consumer over several queues, for tasks: the places of its queues as one.

Owns: waiting at all of them. Does not own: whose turn it is (turns.py), each place (consumer.py).
Invariants: those of the blocking one (shmq_clients.several); a wait that is cancelled leaves nothing waiting.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from shmq.errors import NotFound
from shmq_clients.aio.consumer import Source
from shmq_clients.session import Session
from shmq_clients.turns import Turns


class SeveralSource:
    """In turn from each of `parts`."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self._turns = Turns(parts, lambda part: part.end_here())
        self._parts = self._turns.places

    @property
    def reply_queue(self) -> str:
        """None: replies come by a consumer of their own."""
        return ""

    @property
    def is_over(self) -> bool:
        """As Source's."""
        return all(part.is_over for part in self._parts)

    def take(self) -> Any:  # noqa: ANN401 - an AsyncMessage
        """As Source's. Raises NotFound of a queue that is gone, once; StopAsyncIteration when none is left."""
        if not self._parts:
            raise StopAsyncIteration
        return self._turns.take()

    async def wait(self) -> None:
        """Wait at all of them. Each begins a little later, and looks then for what was told meanwhile."""
        parts = list(self._parts)
        waits = [asyncio.ensure_future(part.wait()) for part in parts]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            ended = await asyncio.gather(*waits, return_exceptions=True)
        for part, outcome in zip(parts, ended, strict=True):
            if isinstance(outcome, NotFound) and part in self._parts:
                self._turns.drop(part)
            if isinstance(outcome, Exception):
                raise outcome

    def announce(self, session: Session) -> None:
        """As Source's."""
        for part in self._parts:
            part.announce(session)

    def stop(self) -> None:
        """As Source's."""
        for part in self._parts:
            part.stop()

    def end_here(self) -> None:
        """As Source's."""
        for part in self._parts:
            part.end_here()

    def abandon(self) -> None:
        """As Source's."""
        for part in self._parts:
            part.abandon()

    async def cancel(self) -> None:
        """As Source's."""
        for part in self._parts:
            await part.cancel()
        self.stop()  # who began to wait meanwhile
