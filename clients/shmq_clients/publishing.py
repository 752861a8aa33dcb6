"""Publishing as callers say it: checked, routed, and given to the path that can do it.

Owns: the choice of the path for each message, what an unroutable one means. Does not own: either path.
Invariants: a message goes to each of its queues once; when one of several refuses, the others keep theirs.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias, Unpack, cast

from shmq.core._core import Loan
from shmq.errors import InvalidArgument, NotDurable, NotFound, PublishRejected, ShmqError, Unroutable
from shmq.limits import BODY_BYTES_MAX
from shmq.message import check_user_id
from shmq.names import REPLY_TO
from shmq.routing.addressing import late
from shmq_clients.attachments import Attachment, Attachments
from shmq_clients.direct_path import DirectPath, QueueGone
from shmq_clients.lending import Loaned
from shmq_clients.outgoing import Outgoing, PublishKeywords, outgoing
from shmq_clients.replies import Replies
from shmq_clients.routes import Routes
from shmq_clients.socket_path import SocketPath, flat

Copy: TypeAlias = tuple[Attachment, Outgoing]
"""A queue, and the message as it arrives there."""
GONE: Final = -1  # instead of how many bodies a queue has


class Publishing:
    """Of one connection. `insist`: mode "direct", where nothing goes through the broker."""

    def __init__(self, attachments: Attachments, socket_path: SocketPath, *, insist: bool) -> None:
        self._attachments = attachments
        self._routes = Routes(attachments)
        self._direct = DirectPath(attachments)
        self._socket = socket_path
        self._insist = insist
        self.replies = Replies()  # the connection's own

    def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None:  # noqa: ANN401 - any buffer
        """As `Connection.publish`."""
        out = self._checked(keywords)
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        copies = self._copies(out)
        if copies is None:
            self._socket.publish(body, self._in_order(out))
            return
        if len(copies) == 1:
            taken = self._into(copies[0], lambda to, as_: self._direct.publish(to, as_, body, deadline_ns)) > GONE
        else:
            taken = self._publish_to(copies, [body], deadline_ns)
        check_taken(out, taken=taken)

    def publish_many(self, bodies: Sequence[Any], **keywords: Unpack[PublishKeywords]) -> None:
        """As `Connection.publish_many`."""
        out = self._checked(keywords)
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        copies = self._copies(out)
        if copies is None:
            self._socket.publish_many(bodies, self._in_order(out))
            return
        if len(copies) == 1:
            publish = self._direct.publish_many
            taken = self._into(copies[0], lambda to, as_: publish(to, as_, bodies, 0, deadline_ns)) > GONE
        else:
            taken = self._publish_to(copies, bodies, deadline_ns)
        check_taken(out, taken=taken)

    def loan(self, body_bytes: int, **keywords: Unpack[PublishKeywords]) -> AbstractContextManager[memoryview]:
        """As `Connection.loan`. With several queues the memory is the first one's; without any to write into, memory of
        our own is lent and then published.
        """
        if type(body_bytes) is not int or not 0 <= body_bytes <= BODY_BYTES_MAX:
            raise InvalidArgument(argument="body_bytes", value=body_bytes, allowed=f"0 to {BODY_BYTES_MAX} bytes")
        out = self._checked(keywords)
        deadline_ns = time.monotonic_ns() + out.timeout_ns
        copies = self._copies(out)
        if not copies:
            return Loaned(self._lend(body_bytes, keywords))
        try:
            loan = self._direct.loan(*copies[0], body_bytes, deadline_ns)
        except QueueGone:
            return Loaned(self._lend(body_bytes, keywords))
        return loan if len(copies) == 1 else Loaned(self._lend_first(loan, copies[1:], out.timeout_ns))

    @contextlib.contextmanager
    def _lend(self, body_bytes: int, keywords: PublishKeywords) -> Iterator[memoryview]:
        body = bytearray(body_bytes)
        yield memoryview(body)
        self.publish(body, **keywords)

    @contextlib.contextmanager
    def _lend_first(self, loan: Loan, others: list[Copy], timeout_ns: int) -> Iterator[memoryview]:
        """Copy from the first queue's memory into the others, then publish there; also when one of them refuses."""
        refusal: ShmqError | None = None
        with loan as buffer:
            yield buffer
            try:
                self._publish_to(others, [buffer], time.monotonic_ns() + timeout_ns)
            except ShmqError as error:
                refusal = error
        if refusal is not None:
            raise refusal

    # -- the path -----------------------------------------------------------------------------------------------------

    def _checked(self, keywords: PublishKeywords) -> Outgoing:
        if keywords.get("reply_to") == REPLY_TO:
            keywords = cast("PublishKeywords", self.replies.addressed(keywords))
        out = outgoing(**keywords)
        self._attachments.link.check()
        self._attachments.link.raise_failures()
        if self._attachments.user_id:
            check_user_id(keywords.get("user_id"), self._attachments.user_id)
        if out.confirm == "disk":
            raise NotDurable
        return out

    def _copies(self, out: Outgoing) -> list[Copy] | None:
        """The queues to publish into, and what into each; None: only the broker can. Raises Unroutable."""
        targets = self._routes.targets(out.exchange, out.addressed) if self._attachments.granted else None
        if targets is None:
            if self._insist:
                raise self._attachments.refusal(out.routing_key, out.exchange)
            return None
        if not targets and out.mandatory:
            raise Unroutable(exchange=out.exchange, routing_key=out.routing_key)
        _, headers, envelope = out.addressed
        if envelope is not out.envelope:
            out = out._replace(envelope=envelope)
        copies = [(target, out) for target in targets.at_once]
        if targets.delayed:
            behind = late(headers, envelope, out.delay_ns)
            delayed = out._replace(envelope=behind.envelope, delay_ns=behind.delay_ns)
            copies += [(target, delayed) for target in targets.delayed]
        return copies

    def _in_order(self, out: Outgoing) -> Outgoing:
        """What goes through the broker because of one of several queues must not be overtaken by what goes directly to
        the others, so it is there when the call returns, as with direct mode's default confirm.
        """
        several = bool(out.exchange) or len(out.addressed.keys) > 1
        if self._attachments.granted and several and out.confirm is None:
            return out._replace(confirm="memory")
        return out

    def _publish_to(self, copies: list[Copy], bodies: Sequence[Any], deadline_ns: int) -> bool:
        """Publish to each queue, first what all of them have room for: one that is full, or refuses, keeps nothing from
        the others. Raises what was refused, in the end. False: none of the queues is there any more.
        """
        if not copies:
            check_bodies(bodies)
        refusals: list[ShmqError] = []
        taken = [self._try_to(copy, bodies, 0, None, refusals) for copy in copies]
        while len(full := not_whole(taken, bodies)) > 1 and time.monotonic_ns() < deadline_ns:
            self._direct.wait_a_while(*copies[full[0]], deadline_ns)
            for index in full:
                taken[index] = self._try_to(copies[index], bodies, taken[index], None, refusals)
        for index in full:
            self._try_to(copies[index], bodies, taken[index], deadline_ns, refusals)
        if refusals:
            raise one_of(refusals)
        return max(taken, default=GONE) > GONE

    def _try_to(
        self, copy: Copy, bodies: Sequence[Any], start: int, deadline_ns: int | None, refusals: list[ShmqError]
    ) -> int:
        """Publish the bodies from `start` on; without a deadline those that there is room for. Returns how many the
        queue has; all of them where it refused, or can't be worked in, which is noted.
        """
        try:
            return self._into(copy, lambda to, as_: self._direct.publish_many(to, as_, bodies, start, deadline_ns))
        except ShmqError as error:
            refusals.append(error)
            return len(bodies)

    def _into(self, copy: Copy, publish: Callable[[Attachment, Outgoing], int]) -> int:
        """Publish into one queue; one that is gone is looked for once more where its name was the key, which may have
        been used again. GONE: there is none; another one of its name is bound to no exchange.
        """
        target, out = copy
        try:
            return publish(target, out)
        except QueueGone:
            self._attachments.forget(target)
            if out.exchange:
                return GONE
            try:
                return publish(self._attachments.attach(target.name), out)
            except (QueueGone, NotFound):
                return GONE


def not_whole(taken: Sequence[int], bodies: Sequence[Any]) -> list[int]:
    """Return which of several queues, by index, have no room for all bodies."""
    return [index for index, done in enumerate(taken) if GONE < done < len(bodies)]


def check_bodies(bodies: Sequence[Any]) -> None:
    """Raise TypeError or BufferError for what is no body, where no queue is there to look at it."""
    for body in bodies:
        flat(body)


def check_taken(out: Outgoing, *, taken: bool) -> None:
    """Raise Unroutable for a mandatory message whose queues are all gone meanwhile."""
    if out.mandatory and not taken:
        raise Unroutable(exchange=out.exchange, routing_key=out.routing_key)


def one_of(refusals: list[ShmqError]) -> ShmqError:
    """One error for what several queues refused: the first, which names all that are as long as they may be."""
    first = refusals[0]
    if len(refusals) == 1 or not isinstance(first, PublishRejected):
        return first
    rejected = [error for error in refusals if isinstance(error, PublishRejected)]
    names = [name for error in rejected for name in error.queues]
    return PublishRejected(queues=names, reason=first.reason, published=min(error.published for error in rejected))
