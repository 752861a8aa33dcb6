"""Publishing as callers say it: checked, routed, and given to the path that can do it.

Owns: the choice of the path for each message, what an unroutable one means. Does not own: either path.
Invariants: a message goes to each of its queues once; when one of several refuses, the others keep theirs.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Unpack

from shmq.errors import InvalidArgument, NotDurable, NotFound, Unroutable
from shmq.limits import BODY_BYTES_MAX
from shmq_clients.attachments import Attachment, Attachments
from shmq_clients.direct_path import DirectPath, QueueGone
from shmq_clients.outgoing import Outgoing, PublishKeywords, outgoing
from shmq_clients.routes import Routes
from shmq_clients.socket_path import SocketPath


class Publishing:
    """Of one connection. `insist`: mode "direct", where nothing goes through the broker."""

    def __init__(self, attachments: Attachments, socket_path: SocketPath, *, insist: bool) -> None:
        self._attachments = attachments
        self._routes = Routes(attachments)
        self._direct = DirectPath(attachments)
        self._socket = socket_path
        self._insist = insist

    def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None:  # noqa: ANN401 - any buffer
        """As `Connection.publish`."""
        out = self._checked(keywords)
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        targets = self._targets(out)
        if targets is None:
            self._socket.publish(body, out)
            return
        self._into_all(targets, out, lambda queue: self._direct.publish(queue, body, out, deadline_ns))

    def publish_many(self, bodies: Sequence[Any], **keywords: Unpack[PublishKeywords]) -> None:
        """As `Connection.publish_many`."""
        out = self._checked(keywords)
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        targets = self._targets(out)
        if targets is None:
            self._socket.publish_many(bodies, out)
            return
        self._into_all(targets, out, lambda queue: self._direct.publish_many(queue, bodies, out, deadline_ns))

    def loan(self, body_bytes: int, **keywords: Unpack[PublishKeywords]) -> AbstractContextManager[memoryview]:
        """As `Connection.loan`. Without exactly one queue to write into, memory of our own is lent and then
        published.
        """
        if type(body_bytes) is not int or not 0 <= body_bytes <= BODY_BYTES_MAX:
            raise InvalidArgument(argument="body_bytes", value=body_bytes, allowed=f"0 to {BODY_BYTES_MAX} bytes")
        out = self._checked(keywords)
        targets = self._targets(out)
        if targets is None or len(targets) != 1:
            return self._lend(body_bytes, keywords)
        try:
            return self._direct.loan(targets[0], body_bytes, out, time.monotonic_ns() + out.timeout_ns)
        except QueueGone:
            return self._lend(body_bytes, keywords)

    @contextlib.contextmanager
    def _lend(self, body_bytes: int, keywords: PublishKeywords) -> Iterator[memoryview]:
        body = bytearray(body_bytes)
        yield memoryview(body)
        self.publish(body, **keywords)

    # -- the path -----------------------------------------------------------------------------------------------------

    def _checked(self, keywords: PublishKeywords) -> Outgoing:
        out = outgoing(**keywords)
        self._attachments.link.check()
        if out.confirm == "disk":
            raise NotDurable
        return out

    def _targets(self, out: Outgoing) -> tuple[Attachment, ...] | None:
        targets = None
        if self._attachments.granted and not out.broker_routed:
            targets = self._routes.targets(out.exchange, out.routing_key)
        if targets is None and self._insist:
            raise self._attachments.refusal(out.routing_key, out.exchange)
        if targets == () and out.mandatory:
            raise Unroutable(exchange=out.exchange, routing_key=out.routing_key)
        return targets

    def _into_all(self, targets: tuple[Attachment, ...], out: Outgoing, publish: Callable[[Attachment], None]) -> None:
        """Publish into each queue. Raises Unroutable for a mandatory message when all of them are gone meanwhile."""
        taken = [self._into(target, publish) for target in targets]
        if out.mandatory and not any(taken):
            raise Unroutable(exchange=out.exchange, routing_key=out.routing_key)

    def _into(self, target: Attachment, publish: Callable[[Attachment], None]) -> bool:
        """Publish into one queue; one that is gone is looked for once more, because its name may have been used
        again. False: there is none.
        """
        try:
            publish(target)
        except QueueGone:
            self._attachments.forget(target)
            try:
                publish(self._attachments.attach(target.name))
            except (QueueGone, NotFound):
                return False
        return True
