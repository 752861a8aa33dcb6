"""A channel of the blocking client: deliveries with tags of their own, and a window over all its consumers.

Owns: settling by tags, recover, the end of a channel. Does not own: what a tag means and the window (numbered.py),
getting and consuming (receiving.py).
Invariants: a channel that is closed, or refused something, leaves the others and its connection as they are; it lives
until it or its connection is closed.
"""

import contextlib
import weakref
from types import TracebackType
from typing import Any, Protocol, Self, Unpack

from shmq.errors import SessionError
from shmq.wire.frames import CloseChannel, Counted, Recover
from shmq_clients.numbered import Numbered, check_recover, check_size, give_back
from shmq_clients.outgoing import PublishKeywords
from shmq_clients.receiving import Paths, Receiving
from shmq_clients.replies import Replies
from shmq_clients.settling import ack_all, nack_all, reject_all


class Publishes(Protocol):
    """The connection, as its channels need it."""

    def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> object: ...  # noqa: ANN401 - its own


class Channel(Receiving):
    """Made by `Connection.channel`; may be used from many threads, as its connection."""

    def __init__(self, paths: Paths, keep: Publishes) -> None:
        self._paths = paths
        self._keep = keep
        self._numbered = Numbered(paths.link, paths.socket.ledgers)
        self._number = self._numbered.number
        self._ledger = self._numbered.ledger
        self._own = weakref.WeakValueDictionary()
        self._replies = Replies()

    @property
    def number(self) -> int:
        """From 1; free again when it is closed."""
        return self._number

    @property
    def is_open(self) -> bool:
        """Whether neither it nor its connection was closed."""
        return not (self._numbered.is_closed or self._paths.link.closed)

    def _check(self) -> None:
        self._numbered.check()

    def _hand_out(self, messages: list[Any]) -> None:
        self._numbered.enter(messages)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def publish(self, body: Any, **keywords: Unpack[PublishKeywords]) -> None:  # noqa: ANN401 - any buffer
        """As `Connection.publish`. `reply_to="amq.rabbitmq.reply-to"`: answers come to this channel's consumer of that
        queue; raises PreconditionFailed when there is none.
        """
        self._check()
        self._keep.publish(body, **(self._replies.addressed(keywords) if "reply_to" in keywords else keywords))

    # -- the window ---------------------------------------------------------------------------------------------------

    @property
    def prefetch(self) -> int:
        """How many deliveries of its consumers may be unacked at a time, beside the prefetch of each; 0: any number.
        May change at any time, also below what is out. Those of `get` don't count.
        """
        return self._numbered.ledger.prefetch

    @prefetch.setter
    def prefetch(self, prefetch: int) -> None:
        self._numbered.set_prefetch(prefetch)

    def qos(self, prefetch_count: int = 0, prefetch_size: int = 0) -> None:
        """As setting `prefetch` (AMQP 0-9-1's basic.qos, global). Raises NotSupported for a size, InvalidArgument."""
        check_size(prefetch_size)
        self._numbered.set_prefetch(prefetch_count)

    @property
    def unacked(self) -> int:
        """How many deliveries are out and not settled, those of `get` included."""
        return len(self._numbered.ledger)

    # -- settling -----------------------------------------------------------------------------------------------------

    def ack(self, delivery_tag: int, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """Ack this delivery; `multiple`: and all before it on this channel, with tag 0 all. Raises AlreadySettled and
        StaleDelivery (both PreconditionFailed); of several all are tried before.
        """
        ack_all(self._numbered.meant(delivery_tag, multiple=multiple))
        self._paths.link.raise_failures()

    def nack(
        self,
        delivery_tag: int,
        multiple: bool = False,  # noqa: FBT001, FBT002 - AMQP's form
        requeue: bool = True,  # noqa: FBT001, FBT002 - AMQP's form
        delay: float | None = None,
    ) -> None:
        """Give back to the queue, after `delay` seconds; requeue=False: dead-letter. `multiple` and errors as `ack`."""
        nack_all(self._numbered.meant(delivery_tag, multiple=multiple), requeue=requeue, delay=delay)
        self._paths.link.raise_failures()

    def reject(self, delivery_tag: int, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """Dead-letter; requeue=True: back to its place, counted as a failure. Errors as `ack`."""
        reject_all(self._numbered.meant(delivery_tag), requeue=requeue)
        self._paths.link.raise_failures()

    def recover(self, requeue: bool = True) -> None:  # noqa: FBT001, FBT002 - AMQP's form
        """All that is unacked on this channel goes back to its place and is delivered again. Raises NotSupported for
        requeue=False; ViewsInUse, where views of a body keep a message here, when all others are back.
        """
        check_recover(requeue)
        self._check()
        numbered, path = self._numbered, self._paths.socket

        def at_once() -> None:
            numbered.recovered()
            path.recovered(numbered.number)

        if numbered.by_frames() or path.consumes(self._number):
            self._paths.link.ask(lambda seq: Recover(seq, self._number), Counted, at_once=at_once)
        nack_all(numbered.direct(), requeue=True)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End its consumers and give back what is unacked, which is not a failure. Idempotent."""
        link = self._paths.link
        if link.forked_off:
            link.check()
        if not self.is_open:
            return
        for consumer in list(self._own.values()):
            with contextlib.suppress(SessionError):
                consumer.cancel()
        try:
            give_back(self._numbered.close())
            if link.session is not None:
                with contextlib.suppress(SessionError):  # then the broker gives all back by itself
                    link.ask(lambda seq: CloseChannel(seq, self._number), Counted, goes_on=True)
        finally:
            self._numbered.free()

    def forget(self) -> None:
        """The connection ends, and with it all that is out: keep none of it."""
        self._numbered.close()

    def __repr__(self) -> str:
        return f"<Channel {self._number}, {self.unacked} unacked{'' if self.is_open else ', closed'}>"

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._paths.link.forked_off:
            self.close()
