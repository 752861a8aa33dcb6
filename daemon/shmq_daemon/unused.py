"""Queues that go when nobody uses them (`x-expires`).

Owns: when each of them is looked at. Does not own: what counts as use (OpenQueue.used, and the segment's word for those
who get without the broker), deleting.
Invariants: a queue with a consumer, or with somebody who waits for a message, is in use; after a start of the broker
the time runs anew, and clients have as long as a lost session to come back.
"""

import functools
from typing import Final

from shmq.errors import ShmqError
from shmq.limits import RESUME_SECONDS
from shmq_daemon.catalog import Catalog
from shmq_daemon.events import Event, QueueDeclared
from shmq_daemon.log import Logger
from shmq_daemon.loop import Timers
from shmq_daemon.opened import OpenQueue
from shmq_daemon.policy import NS_PER_MS

COME_BACK_NS: Final = int(RESUME_SECONDS * 1e9)


class Unused:
    """Over all queues that expire."""

    def __init__(self, catalog: Catalog, timers: Timers, log: Logger) -> None:
        self._catalog = catalog
        self._timers = timers
        self._log = log

    def begin(self) -> None:
        """After a start: queues that were there before."""
        for opened in self._catalog.open.values():
            if expires_ns := _expires_ns(opened):
                self._look_in(opened.queue.queue_id, max(expires_ns, COME_BACK_NS))

    def on_event(self, event: Event) -> None:
        if isinstance(event, QueueDeclared) and event.queue.definition.expires_ms is not None:
            self._look_in(event.queue.queue_id, event.queue.definition.expires_ms * NS_PER_MS)

    def _look_in(self, queue_id: int, wait_ns: int) -> None:
        self._timers.after(wait_ns, functools.partial(self._look, queue_id))

    def _look(self, queue_id: int, now_ns: int) -> None:
        opened = self._catalog.open.get(queue_id)
        if opened is None:
            return
        in_use = opened.consumers or opened.waiting
        left_ns = (now_ns if in_use else _last_used_ns(opened)) + _expires_ns(opened) - now_ns
        if left_ns > 0:
            self._look_in(queue_id, left_ns)
            return
        self._log.info("queue expired", queue=opened.name, expires_ms=opened.queue.definition.expires_ms)
        try:
            self._catalog.delete_queue(opened.queue)
        except ShmqError as error:
            self._log.error("expired queue not deleted", queue=opened.name, why=str(error))
            self._look_in(queue_id, _expires_ns(opened))


def _expires_ns(opened: OpenQueue) -> int:
    return (opened.queue.definition.expires_ms or 0) * NS_PER_MS


def _last_used_ns(opened: OpenQueue) -> int:
    return max(opened.used_ns, opened.core.used_ns()) if opened.usable else opened.used_ns
