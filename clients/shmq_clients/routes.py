"""Where direct messages go: compiled routes of exchanges, each valid while its generation words stand still.

Owns: the cache of routes and its check. Does not own: matching and the walk (shmq.routing), attaching.
Invariants: a route is used only if every word it was compiled at has the same value now, and otherwise asked for anew;
the default exchange needs none, its keys are the queues. Where the broker tells a graph and not a route, the graph is
walked here (shmq.routing.compiled).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from shmq.errors import DirectRefused, NotFound, ResourceLocked
from shmq.message import decode_envelope
from shmq.routing.addressing import Addressed
from shmq.routing.bindings import binding_of
from shmq.routing.compiled import router_of
from shmq.routing.router import Route as Way
from shmq.routing.router import Router
from shmq.wire.frames import Route, Routed
from shmq_clients.attachments import Attachment, Attachments

ROUTES_MAX: Final = 10_000  # then all are forgotten: keys that never come again would fill memory
BINDINGS_MAX: Final = 100_000  # of all graphs together, likewise
ANY_KEYS: Final = ()
Words: TypeAlias = tuple[tuple[int, int], ...]


class Targets(NamedTuple):
    """Queues to publish into. `delayed`: those behind an exchange that delays."""

    at_once: tuple[Attachment, ...] = ()
    delayed: tuple[Attachment, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.at_once or self.delayed)


class CompiledRoute(NamedTuple):
    """Queues of some keys, and the words they depend on. None: to be published through the broker. `router`: what
    decides by the headers of each message.
    """

    targets: Targets | None
    words: Words
    router: Router | None = None


class Routes:
    """Of one connection."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments
        self._compiled: dict[tuple[str, tuple[str, ...]], CompiledRoute] = {}
        self._bindings = 0
        attachments.on_sweep.append(self._sweep)

    def targets(self, exchange: str, addressed: Addressed) -> Targets | None:
        """Return the queues to publish into, maybe none; None: only the broker can. Raises NotFound, AccessRefused for
        an exchange.
        """
        keys = addressed.keys
        if not exchange:
            return self._queues(keys)
        route = self._known(exchange, keys) or self._known(exchange, ANY_KEYS) or self._compile(exchange, keys)
        if route.router is None:
            return route.targets
        return self._walk(route.router, exchange, addressed, route.words)

    def _walk(self, router: Router, exchange: str, addressed: Addressed, words: Words) -> Targets | None:
        """Route by a graph; where it reads no headers, remember what came out for these keys."""
        if router.reads_headers(exchange):
            headers = decode_envelope(addressed.envelope, addressed.keys[0]).headers
            return self._attach_all(router.route(exchange, addressed.keys, headers))
        targets = self._attach_all(router.route(exchange, addressed.keys))
        self._keep((exchange, addressed.keys), CompiledRoute(targets, words), 0)
        return targets

    def _known(self, exchange: str, keys: tuple[str, ...]) -> CompiledRoute | None:
        route = self._compiled.get((exchange, keys))
        return route if route is not None and self._is_valid(route) else None

    def _is_valid(self, route: CompiledRoute) -> bool:
        attachments = self._attachments
        if not all(attachments.word(index) == value for index, value in route.words):
            return False
        at_once, delayed = route.targets or Targets()
        return all(attachments.is_current(one) and not one.queue.deleted for one in (*at_once, *delayed))

    def _sweep(self) -> None:
        """Keep no queue that is gone."""
        for of, route in list(self._compiled.items()):
            at_once, delayed = route.targets or Targets()
            if any(one.queue.deleted for one in (*at_once, *delayed)):
                self._compiled.pop(of, None)

    def _queues(self, names: Iterable[str]) -> Targets | None:
        found = []
        for name in names:
            try:
                found.append(self._attachments.attach(name))
            except NotFound:
                continue
            except (DirectRefused, ResourceLocked):
                return None
        return Targets(tuple(found))

    def _compile(self, exchange: str, keys: tuple[str, ...]) -> CompiledRoute:
        more = list(keys[1:])
        routed = self._attachments.link.ask(lambda seq: Route(seq, exchange, keys[0], more), Routed, goes_on=True)
        words = tuple(routed.words)
        if not routed.direct:
            route = CompiledRoute(None, words)
        elif routed.exchanges:
            graph = router_of(routed.queues, routed.exchanges, map(binding_of, routed.bindings))
            route = CompiledRoute(Targets(), words, graph)
        else:
            route = CompiledRoute(self._attach_all(Way(tuple(routed.queues), tuple(routed.delayed))), words)
        self._keep((exchange, ANY_KEYS if routed.any_key else keys), route, len(routed.bindings))
        return route

    def _keep(self, of: tuple[str, tuple[str, ...]], route: CompiledRoute, bindings: int) -> None:
        if len(self._compiled) >= ROUTES_MAX or self._bindings >= BINDINGS_MAX:
            self._compiled.clear()
            self._bindings = 0
        self._compiled[of] = route
        self._bindings += bindings

    def _attach_all(self, way: Way) -> Targets | None:
        try:
            return Targets(*(tuple(map(self._attachments.attach, names)) for names in way))
        except (DirectRefused, NotFound, ResourceLocked):  # refused, or gone since: the broker knows what to do
            return None
