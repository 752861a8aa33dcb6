"""Where direct messages go: compiled routes of exchanges, each valid while its generation words stand still.

Owns: the cache of routes and its check. Does not own: routing itself (the broker's), attaching.
Invariants: a route is used only if every word it was compiled at has the same value now, and otherwise asked for anew;
the default exchange needs none, its key is the queue.
"""

from typing import Final, NamedTuple

from shmq.errors import DirectRefused, NotFound
from shmq.wire.frames import Route, Routed
from shmq_clients.attachments import Attachment, Attachments

ROUTES_MAX: Final = 10_000  # then all are forgotten: keys that never come again would fill memory


class CompiledRoute(NamedTuple):
    """Queues of one key, and the words they depend on. None: to be published through the broker."""

    targets: tuple[Attachment, ...] | None
    words: tuple[tuple[int, int], ...]


class Routes:
    """Of one connection."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments
        self._compiled: dict[tuple[str, str], CompiledRoute] = {}

    def targets(self, exchange: str, routing_key: str) -> tuple[Attachment, ...] | None:
        """Return the queues to publish into, maybe none; None: only the broker can. Raises NotFound for an exchange."""
        if not exchange:
            return self._queue(routing_key)
        route = self._compiled.get((exchange, routing_key))
        if route is None or not self._is_valid(route):
            route = self._compile(exchange, routing_key)
        return route.targets

    def _is_valid(self, route: CompiledRoute) -> bool:
        attachments = self._attachments
        if not all(attachments.word(index) == value for index, value in route.words):
            return False
        return all(attachments.is_current(target) and not target.queue.deleted for target in route.targets or ())

    def _queue(self, name: str) -> tuple[Attachment, ...] | None:
        try:
            return (self._attachments.attach(name),)
        except NotFound:
            return ()
        except DirectRefused:
            return None

    def _compile(self, exchange: str, routing_key: str) -> CompiledRoute:
        routed = self._attachments.link.ask(lambda seq: Route(seq, exchange, routing_key), Routed)
        route = CompiledRoute(self._attach_all(routed), tuple(routed.words))
        if len(self._compiled) >= ROUTES_MAX:
            self._compiled.clear()
        self._compiled[exchange, routing_key] = route
        return route

    def _attach_all(self, routed: Routed) -> tuple[Attachment, ...] | None:
        if not routed.direct:
            return None
        try:
            return tuple(self._attachments.attach(name) for name in routed.queues)
        except (DirectRefused, NotFound):  # refused, or gone since: the broker knows what to do
            return None
