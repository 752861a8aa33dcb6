"""Queues, exchanges and bindings: the requests that the broker decides, in both modes alike.

Owns: the calls of a connection that declare, bind, inspect and delete. Does not own: messages (connection.py). Names,
arguments and their errors are RabbitMQ's (AMQP 0-9-1 queue.*, exchange.*); times of keywords are seconds, those of `x-`
arguments milliseconds.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypedDict, TypeVar, Unpack

from shmq.definitions import ExchangeDefinition, Scalar, define_exchange, define_queue
from shmq.errors import InvalidArgument
from shmq.limits import PAGE_ENTRIES_MAX
from shmq.names import check_exchange_name, check_name, check_routing_key
from shmq.routing.bindings import encode_arguments
from shmq.routing.headers import MATCH, check_match
from shmq.wire.fields import BindingInfo, QueueInfo
from shmq.wire.frames import (
    BindExchange,
    BindingsListed,
    BindQueue,
    Counted,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    ExchangesListed,
    InspectQueue,
    ListBindings,
    ListExchanges,
    ListQueues,
    Ok,
    PurgeQueue,
    QueueDeclared,
    QueueInspected,
    QueuesListed,
    Status,
    StatusReport,
    UnbindExchange,
    UnbindQueue,
)
from shmq_clients.durations import milliseconds
from shmq_clients.flags import check_flags
from shmq_clients.keywords import check_known
from shmq_clients.link import Link

Entry = TypeVar("Entry")


class DeclaredQueue(NamedTuple):
    """AMQP's declare-ok: the name (the broker's, if none was given), ready messages, consumers."""

    name: str
    messages: int
    consumers: int


class QueueKeywords(TypedDict, total=False):
    """Arguments of a queue as keywords of `declare_queue`; None: not asked for."""

    max_priority: int | None
    capacity_messages: int | None
    capacity_bytes: int | None
    max_length: int | None
    max_length_bytes: int | None
    overflow: str | None  # "drop-head", "reject-publish", "reject-publish-dlx"
    overflow_victim: str | None  # "lowest", "highest": whose head is dropped
    message_ttl: float | None  # seconds
    expires: float | None  # seconds
    dead_letter_exchange: str | None
    dead_letter_routing_key: str | None
    delivery_limit: int | None  # -1: none
    delayed_retry_type: str | None  # "disabled", "all", "failed", "returned"
    delayed_retry_min: float | None  # seconds
    delayed_retry_max: float | None  # seconds
    priority_ageing: float | None  # seconds for each level
    ack_timeout: float | None  # seconds
    single_active_consumer: bool | None
    queue_type: str | None


TIMES: Final = ("message_ttl", "expires", "delayed_retry_min", "delayed_retry_max", "priority_ageing", "ack_timeout")


class Topology:
    """The part of a connection that only asks the broker."""

    _link: Link

    # -- queues -------------------------------------------------------------------------------------------------------

    def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        passive: bool = False,
        arguments: Mapping[str, Any] | None = None,
        **keywords: Unpack[QueueKeywords],
    ) -> DeclaredQueue:
        """Make a queue, or check that it is what you ask for. An empty name asks the broker for one.

        `keywords`: `max_priority`, `capacity_messages`, `capacity_bytes`, `max_length`, `max_length_bytes`, `overflow`
        ("drop-head", "reject-publish", "reject-publish-dlx"), `overflow_victim` ("lowest", "highest"), `delivery_limit`
        (-1: none), `dead_letter_exchange`, `dead_letter_routing_key`, `single_active_consumer`, `queue_type`,
        `delayed_retry_type` ("disabled", "all", "failed", "returned"); in seconds `message_ttl`, `expires`,
        `delayed_retry_min`, `delayed_retry_max`, `priority_ageing`, `ack_timeout`. Or RabbitMQ's `x-` `arguments`, in
        milliseconds; those that are not known are kept, without effect. `passive`: only check that it exists.
        Raises PreconditionFailed, which names what differs, InvalidArgument, InvalidName, NotFound (passive),
        ResourceLocked, ShmFull.
        """
        check_flags(passive=passive)
        flags = {"durable": durable, "exclusive": exclusive, "auto_delete": auto_delete}
        definition = define_queue(name, arguments=arguments, **flags, **_with_milliseconds(keywords))
        declared = self._link.ask(lambda seq: DeclareQueue(seq, definition, passive), QueueDeclared, repeat=bool(name))
        return DeclaredQueue(declared.queue, declared.messages, declared.consumers)

    def delete_queue(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue and return how many messages went with it; fine when there is none. Raises
        PreconditionFailed, ResourceLocked.
        """
        check_name(queue, "queue")
        check_flags(if_unused=if_unused, if_empty=if_empty)
        return self._link.ask(lambda seq: DeleteQueue(seq, queue, if_unused, if_empty), Counted, repeat=False).count

    def purge_queue(self, queue: str) -> int:
        """Drop all ready messages and return how many. Raises NotFound."""
        check_name(queue, "queue")
        return self._link.ask(lambda seq: PurgeQueue(seq, queue), Counted, repeat=False).count

    def queue_info(self, queue: str) -> QueueInfo:
        """Return what is to be known about one queue, with the median and p99 of the times that messages spent in it
        and with their consumers. Raises NotFound.
        """
        check_name(queue, "queue")
        return self._link.ask(lambda seq: InspectQueue(seq, queue), QueueInspected).queue

    def queues(self) -> list[QueueInfo]:
        """Return all queues, by name; those that you may know of."""

        def page(last: QueueInfo | None) -> tuple[list[QueueInfo], bool]:
            after = "" if last is None else last.definition.name
            listed = self._link.ask(lambda seq: ListQueues(seq, after, PAGE_ENTRIES_MAX), QueuesListed)
            return listed.queues, listed.more

        return _all(page)

    # -- exchanges and bindings ---------------------------------------------------------------------------------------

    def exchanges(self) -> list[ExchangeDefinition]:
        """Return all exchanges that you may know of, by name; the default exchange, which is always there, left out."""

        def page(last: ExchangeDefinition | None) -> tuple[list[ExchangeDefinition], bool]:
            after = "" if last is None else last.name
            listed = self._link.ask(lambda seq: ListExchanges(seq, after, PAGE_ENTRIES_MAX), ExchangesListed)
            return listed.exchanges, listed.more

        return _all(page)

    def bindings(self, *, source: str | None = None, destination: str | None = None) -> list[BindingInfo]:
        """Return all bindings between what you may know of, or those from one exchange, or to one queue or exchange.

        By source, destination, key. Those of queues to the default exchange, by their names, are left out.
        """
        if source is not None:
            check_name(source, "source")
        if destination is not None:
            check_name(destination, "destination")

        def page(last: BindingInfo | None) -> tuple[list[BindingInfo], bool]:
            listed = self._link.ask(
                lambda seq: ListBindings(seq, source or "", destination or "", last, PAGE_ENTRIES_MAX), BindingsListed
            )
            return listed.bindings, listed.more

        return _all(page)

    def declare_exchange(
        self,
        name: str,
        type: str = "direct",  # noqa: A002 - AMQP's word
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        passive: bool = False,
        alternate_exchange: str | None = None,
        delayed_type: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an exchange, or check that it is what you ask for.

        `type` is "direct", "fanout", "topic", "headers" or "x-delayed-message"; the last one routes as `delayed_type`
        says, after as many milliseconds as the header `x-delay` says. `alternate_exchange` gets what matches no
        binding. `internal`: only other exchanges publish to it. `auto_delete`: it goes with the last binding that
        starts there. Raises as `declare_queue`; AccessRefused for `amq.` names.
        """
        check_flags(passive=passive)
        definition = define_exchange(
            name,
            type,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            alternate_exchange=alternate_exchange,
            delayed_type=delayed_type,
            arguments=arguments,
        )
        self._link.ask(lambda seq: DeclareExchange(seq, definition, passive), Ok)

    def delete_exchange(self, exchange: str, *, if_unused: bool = False) -> None:
        """Delete an exchange with its bindings; fine when there is none. Raises PreconditionFailed, AccessRefused for
        the default exchange and `amq.` names.
        """
        check_exchange_name(exchange)
        check_flags(if_unused=if_unused)
        self._link.ask(lambda seq: DeleteExchange(seq, exchange, if_unused), Ok, repeat=False)

    def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        match: str | None = None,
        arguments: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Let the exchange route this key to the queue; doing it twice is the same as once.

        At a topic exchange the key is a pattern: `*` is one word, `#` any number of them. At a headers exchange
        `arguments` are the headers asked for (None: any value), and `match` is "all" (the default), "any", "all-with-x"
        or "any-with-x" (`x-match`). Raises NotFound, InvalidArgument.
        """
        given = _check_binding((queue, "queue"), (exchange, "exchange"), routing_key, match, arguments)
        self._link.ask(lambda seq: BindQueue(seq, queue, exchange, routing_key, given), Ok)

    def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        match: str | None = None,
        arguments: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Take a binding back, named by the same key and arguments; fine when there is none, or nothing to bind."""
        given = _check_binding((queue, "queue"), (exchange, "exchange"), routing_key, match, arguments)
        self._link.ask(lambda seq: UnbindQueue(seq, queue, exchange, routing_key, given), Ok)

    def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        match: str | None = None,
        arguments: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Let the source pass what it routes by this key on to the destination, which routes it by its own bindings.

        As `bind_queue`. A message passes each exchange once, so a cycle ends.
        """
        given = _check_binding((destination, "destination"), (source, "source"), routing_key, match, arguments)
        self._link.ask(lambda seq: BindExchange(seq, destination, source, routing_key, given), Ok)

    def unbind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        match: str | None = None,
        arguments: Mapping[str, Scalar] | None = None,
    ) -> None:
        """As `unbind_queue`."""
        given = _check_binding((destination, "destination"), (source, "source"), routing_key, match, arguments)
        self._link.ask(lambda seq: UnbindExchange(seq, destination, source, routing_key, given), Ok)

    # -- the instance -------------------------------------------------------------------------------------------------

    def status(self) -> StatusReport:
        """Return what the broker says about itself: processes, alarms, totals."""
        return self._link.ask(Status, StatusReport)


def _all(page: Callable[[Entry | None], tuple[list[Entry], bool]]) -> list[Entry]:
    """Return the entries of all pages; each is asked for by the last entry of the one before it."""
    found, more = page(None)
    while more and found:
        following, more = page(found[-1])
        found += following
    return found


def _check_binding(
    destination: tuple[str, str],
    source: tuple[str, str],
    routing_key: str,
    match: str | None,
    arguments: Mapping[str, Scalar] | None,
) -> dict[str, Scalar]:
    """Return the arguments. The ends come with the names of their parameters. Raises InvalidName, InvalidArgument,
    AccessRefused for the default exchange.
    """
    for name, parameter in (destination, source):
        check_name(name, parameter) if parameter == "queue" else check_exchange_name(name, parameter)
    check_routing_key(routing_key)
    if arguments is not None and not isinstance(arguments, Mapping):
        raise InvalidArgument(
            argument="arguments", value=arguments, allowed='a mapping of names to values, as {"x-match": "any"}'
        )
    given = dict(arguments or {})
    if match is not None:
        check_match({MATCH: match})
    if match is not None and given.setdefault(MATCH, match) != match:
        raise InvalidArgument(argument=MATCH, value=given[MATCH], allowed=f"{match!r}, as the keyword says")
    encode_arguments(given)
    return given


def _with_milliseconds(keywords: Mapping[str, Any]) -> dict[str, Any]:
    check_known(keywords, QueueKeywords.__annotations__)
    times = {f"{name}_ms": milliseconds(keywords[name], name) for name in TIMES if name in keywords}
    return {name: value for name, value in keywords.items() if name not in TIMES} | times
