"""Queues and exchanges as they are declared: one struct for wire, client and broker, and what may stand in it.

A field that is None was not asked for. Every argument has a keyword and an `x-` form (`QUEUE_ARGUMENTS`); what we do
not know is kept in `other`, shown, and never compared. What a queue effectively does is the broker's to say.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from shmq.errors import InvalidArgument, NotSupported, PreconditionFailed
from shmq.limits import (
    ARGUMENTS_BYTES_MAX,
    ARGUMENTS_MAX,
    COUNT_MAX,
    LEVELS_MAX,
    NAME_BYTES_MAX,
    SLOTS_MAX,
    TEXT_BYTES_MAX,
    TIME_MS_MAX,
)
from shmq.names import check_exchange_name, check_name, check_routing_key

Scalar = bool | int | float | str | None
"""What an argument may be on the wire."""
Other = Annotated[dict[str, Scalar], msgspec.Meta(max_length=ARGUMENTS_MAX)]

CAPACITY_BYTES_MAX: Final = 1 << 40
DELAYED: Final = "x-delayed-message"
PRIORITY_LIMIT: Final = 1 << 31  # of a consumer: a 32-bit number
EXCHANGE_TYPES: Final = ("direct", "fanout", "topic", "headers", DELAYED)
OVERFLOWS: Final = ("drop-head", "reject-publish", "reject-publish-dlx")
VICTIMS: Final = ("lowest", "highest")
RETRIES: Final = ("disabled", "all", "failed", "returned")


class QueueDefinition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue as somebody asked for it. An empty name asks the broker for one."""

    name: str = ""
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    max_priority: int | None = None
    capacity_messages: int | None = None
    capacity_bytes: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str | None = None
    overflow_victim: str | None = None
    message_ttl_ms: int | None = None
    expires_ms: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    delivery_limit: int | None = None  # -1: none
    delayed_retry_type: str | None = None
    delayed_retry_min_ms: int | None = None
    delayed_retry_max_ms: int | None = None
    priority_ageing_ms: int | None = None
    ack_timeout_ms: int | None = None
    single_active_consumer: bool | None = None
    queue_type: str | None = None
    other: Other = {}


class ExchangeDefinition(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exchange as somebody asked for it."""

    name: str
    type: str = "direct"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    alternate_exchange: str | None = None
    delayed_type: str | None = None
    other: Other = {}


class Rule(msgspec.Struct, frozen=True):
    """What a field may hold, and how to say so."""

    field: str
    allowed: str
    holds: Callable[[Any], bool]


def _whole(field: str, low: int, high: int) -> Rule:
    return Rule(field, f"a whole number from {low} to {high}", lambda v: type(v) is int and low <= v <= high)


def _one_of(field: str, choices: tuple[str, ...]) -> Rule:
    return Rule(field, " or ".join(choices), lambda v: v in choices)


def _text(field: str) -> Rule:
    return Rule(field, "a string", lambda v: isinstance(v, str))


QUEUE_ARGUMENTS: Final[Mapping[str, Rule]] = {
    "x-max-priority": _whole("max_priority", 1, LEVELS_MAX - 1),
    "x-capacity-messages": _whole("capacity_messages", 1, SLOTS_MAX),
    "x-capacity-bytes": _whole("capacity_bytes", 0, CAPACITY_BYTES_MAX),
    "x-max-length": _whole("max_length", 0, SLOTS_MAX),
    "x-max-length-bytes": _whole("max_length_bytes", 0, CAPACITY_BYTES_MAX),
    "x-overflow": _one_of("overflow", OVERFLOWS),
    "x-overflow-victim": _one_of("overflow_victim", VICTIMS),
    "x-message-ttl": _whole("message_ttl_ms", 0, TIME_MS_MAX),
    "x-expires": _whole("expires_ms", 1, TIME_MS_MAX),
    "x-dead-letter-exchange": _text("dead_letter_exchange"),
    "x-dead-letter-routing-key": _text("dead_letter_routing_key"),
    "x-delivery-limit": _whole("delivery_limit", -1, 254),
    "x-delayed-retry-type": _one_of("delayed_retry_type", RETRIES),
    "x-delayed-retry-min": _whole("delayed_retry_min_ms", 1, TIME_MS_MAX),
    "x-delayed-retry-max": _whole("delayed_retry_max_ms", 1, TIME_MS_MAX),
    "x-priority-ageing": _whole("priority_ageing_ms", 1, TIME_MS_MAX),
    "x-consumer-timeout": _whole("ack_timeout_ms", 1, TIME_MS_MAX),
    "x-single-active-consumer": Rule("single_active_consumer", "true or false", lambda v: isinstance(v, bool)),
    "x-queue-type": _one_of("queue_type", ("classic", "quorum")),
}
CONSUMER_ARGUMENTS: Final[Mapping[str, Rule]] = {
    "x-priority": _whole("priority", -PRIORITY_LIMIT, PRIORITY_LIMIT - 1),
    "x-consumer-timeout": _whole("ack_timeout_ms", 1, TIME_MS_MAX),
}
EXCHANGE_ARGUMENTS: Final[Mapping[str, Rule]] = {
    "alternate-exchange": _text("alternate_exchange"),
    "x-delayed-type": _one_of("delayed_type", EXCHANGE_TYPES[:4]),
}
_TRAVELS: Final = f"text up to {TEXT_BYTES_MAX} bytes, a 64-bit number, true, false or null"
_QUEUE_COMPARED: Final = {"durable": "durable", "auto_delete": "auto_delete"} | {
    rule.field: argument for argument, rule in QUEUE_ARGUMENTS.items()
}
_EXCHANGE_COMPARED: Final = {
    "type": "type",
    "durable": "durable",
    "auto_delete": "auto_delete",
    "internal": "internal",
} | {rule.field: argument for argument, rule in EXCHANGE_ARGUMENTS.items()}


def define_queue(name: str = "", *, arguments: Mapping[str, Any] | None = None, **keywords: object) -> QueueDefinition:
    """A checked definition from keywords and `x-` arguments, which may not contradict each other. InvalidArgument.

    The keywords are the fields; one that is None was not given.
    """
    fields = _merge(QueueDefinition, QUEUE_ARGUMENTS, {} if arguments is None else arguments, keywords)
    return check_queue(QueueDefinition(name=name, **fields))


def define_exchange(
    name: str,
    type: str = "direct",  # noqa: A002 - AMQP's word
    *,
    arguments: Mapping[str, Any] | None = None,
    **keywords: object,
) -> ExchangeDefinition:
    """As `define_queue`, for an exchange."""
    fields = _merge(ExchangeDefinition, EXCHANGE_ARGUMENTS, {} if arguments is None else arguments, keywords)
    return check_exchange(ExchangeDefinition(name=name, type=type, **fields))


def consumer_keywords(
    arguments: Mapping[str, Any] | None, priority: int, ack_timeout_ms: int | None
) -> tuple[int, int | None]:
    """Return the priority and the ack timeout of a consumer, from keywords and `x-` arguments, which may not contradict
    each other. What we do not know is accepted. InvalidArgument.
    """
    given = {} if arguments is None else arguments
    if not isinstance(given, Mapping):
        raise InvalidArgument(
            argument="arguments", value=given, allowed='a mapping of names to values, as {"x-priority": 10}'
        )
    of_priority = CONSUMER_ARGUMENTS["x-priority"]
    if not of_priority.holds(priority):
        raise InvalidArgument(argument="priority", value=priority, allowed=of_priority.allowed)
    fields: dict[str, Any] = {"priority": priority or None, "ack_timeout_ms": ack_timeout_ms}
    for argument, rule in CONSUMER_ARGUMENTS.items():
        value = given.get(argument)
        known = fields[rule.field]
        if value is None:
            continue
        if not rule.holds(value) or known not in (None, value):
            allowed = rule.allowed if known in (None, value) else f"{rule.field} = {known!r}, as the keyword says"
            raise InvalidArgument(argument=argument, value=value, allowed=allowed)
        fields[rule.field] = value
    return fields["priority"] or 0, fields["ack_timeout_ms"]


def check_queue(definition: QueueDefinition) -> QueueDefinition:
    """Return the definition in its one form (quorum is durable, classic needs no saying), or raise InvalidArgument."""
    if definition.name != "":
        check_name(definition.name, "queue")
    _check_flags(definition, ("durable", "exclusive", "auto_delete"))
    if definition.queue_type == "stream":
        raise NotSupported("x-queue-type = 'stream': streams are not supported. Use classic (or leave it out)")
    _check_fields(definition, QUEUE_ARGUMENTS)
    if definition.dead_letter_exchange:
        check_name(definition.dead_letter_exchange, "x-dead-letter-exchange")
    if definition.dead_letter_routing_key is not None:
        check_routing_key(definition.dead_letter_routing_key, "x-dead-letter-routing-key")
        if definition.dead_letter_exchange is None:
            raise InvalidArgument(
                argument="x-dead-letter-routing-key",
                value=definition.dead_letter_routing_key,
                allowed="only together with x-dead-letter-exchange",
            )
    _check_retry(definition)
    _check_capacity(definition)
    if definition.queue_type == "quorum":
        return msgspec.structs.replace(definition, durable=True)
    return msgspec.structs.replace(definition, queue_type=None) if definition.queue_type else definition


def _check_capacity(definition: QueueDefinition) -> None:
    """Who drops a head adds his message first: a queue that is full at its length would block him instead."""
    capacity, length = definition.capacity_messages, definition.max_length
    if capacity is None or length is None or definition.overflow not in (None, "drop-head"):
        return
    if capacity <= length:
        allowed = f"more than x-max-length ({length}), or no head is ever dropped; or another x-overflow"
        raise InvalidArgument(argument="x-capacity-messages", value=capacity, allowed=allowed)


def _check_retry(definition: QueueDefinition) -> None:
    kind, least, most = (
        definition.delayed_retry_type,
        definition.delayed_retry_min_ms,
        definition.delayed_retry_max_ms,
    )
    if kind not in (None, "disabled") and least is None:
        raise InvalidArgument(argument="x-delayed-retry-min", value=None, allowed="a time, where retries are delayed")
    if most is not None and most < (least or 1):
        raise InvalidArgument(argument="x-delayed-retry-max", value=most, allowed=f"at least {least or 1}")


def check_exchange(definition: ExchangeDefinition) -> ExchangeDefinition:
    """Return the definition, or raise InvalidArgument; AccessRefused for the default exchange."""
    check_exchange_name(definition.name)
    _check_flags(definition, ("durable", "auto_delete", "internal"))
    if definition.type not in EXCHANGE_TYPES:
        raise InvalidArgument(argument="type", value=definition.type, allowed=" or ".join(EXCHANGE_TYPES))
    _check_fields(definition, EXCHANGE_ARGUMENTS)
    if definition.alternate_exchange:
        check_name(definition.alternate_exchange, "alternate-exchange")
    if definition.type == DELAYED and definition.delayed_type is None:
        raise InvalidArgument(
            argument="x-delayed-type",
            value=None,
            allowed=f"{' or '.join(EXCHANGE_TYPES[:4])}: how an exchange of type {DELAYED} routes",
        )
    return definition


def queue_difference(declared: QueueDefinition, asked: QueueDefinition) -> PreconditionFailed | None:
    """The first argument that differs, as the error to raise. AMQP 0-9-1: queue.declare, rule "equivalent"."""
    return _difference("queue", _QUEUE_COMPARED, declared, asked)


def exchange_difference(declared: ExchangeDefinition, asked: ExchangeDefinition) -> PreconditionFailed | None:
    """As `queue_difference`."""
    return _difference("exchange", _EXCHANGE_COMPARED, declared, asked)


def queue_arguments(definition: QueueDefinition) -> dict[str, Scalar]:
    """The arguments in their `x-` form, as definitions are shown."""
    known = {argument: getattr(definition, rule.field) for argument, rule in QUEUE_ARGUMENTS.items()}
    return {argument: value for argument, value in known.items() if value is not None} | definition.other


def exchange_arguments(definition: ExchangeDefinition) -> dict[str, Scalar]:
    """As `queue_arguments`."""
    known = {argument: getattr(definition, rule.field) for argument, rule in EXCHANGE_ARGUMENTS.items()}
    return {argument: value for argument, value in known.items() if value is not None} | definition.other


def _merge(
    struct: type[msgspec.Struct], rules: Mapping[str, Rule], arguments: Mapping[str, Any], keywords: Mapping[str, Any]
) -> dict[str, Any]:
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise InvalidArgument(
            argument="arguments", value=arguments, allowed='a mapping of names to values, as {"x-max-length": 10}'
        )
    fields = {field: value for field, value in keywords.items() if value is not None}
    if unknown := fields.keys() - (set(struct.__struct_fields__) - {"other"}):
        raise InvalidArgument(argument=min(unknown), value=fields[min(unknown)], allowed="a known keyword")
    other = {}
    for argument, value in arguments.items():
        rule = rules.get(argument)
        if rule is None:
            other[argument] = value
        elif value is not None and fields.setdefault(rule.field, value) != value:
            raise InvalidArgument(
                argument=argument, value=value, allowed=f"{rule.field} = {fields[rule.field]!r}, as the keyword says"
            )
    return fields | {"other": other}


def _check_flags(definition: QueueDefinition | ExchangeDefinition, flags: tuple[str, ...]) -> None:
    for flag in flags:
        if not isinstance(value := getattr(definition, flag), bool):
            raise InvalidArgument(argument=flag, value=value, allowed="true or false")


def _check_fields(definition: QueueDefinition | ExchangeDefinition, rules: Mapping[str, Rule]) -> None:
    for argument, rule in rules.items():
        value = getattr(definition, rule.field)
        if value is not None and not rule.holds(value):
            raise InvalidArgument(argument=argument, value=value, allowed=rule.allowed)
    check_arguments(definition.other)


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise InvalidArgument for what no frame can carry: of bindings, and those of queues that we do not know."""
    if len(arguments) > ARGUMENTS_MAX:
        raise InvalidArgument(
            argument="arguments", value=f"{len(arguments)} of them", allowed=f"at most {ARGUMENTS_MAX}"
        )
    for argument, value in arguments.items():
        if not isinstance(argument, str) or len(argument) > NAME_BYTES_MAX or not _travels(value):
            raise InvalidArgument(argument=str(argument), value=value, allowed=_TRAVELS)
    texts = [text for pair in arguments.items() for text in pair if isinstance(text, str)]
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as error:  # half a surrogate pair
        raise InvalidArgument(argument="arguments", value=dict(arguments), allowed=f"UTF-8 ({error})") from None
    if size > ARGUMENTS_BYTES_MAX:
        raise InvalidArgument(argument="arguments", value=f"{size} bytes", allowed=f"{ARGUMENTS_BYTES_MAX} bytes")


def _travels(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= TEXT_BYTES_MAX
    return value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= COUNT_MAX)


def _difference(
    kind: str, compared: Mapping[str, str], declared: msgspec.Struct, asked: msgspec.Struct
) -> PreconditionFailed | None:
    name = getattr(declared, "name")  # noqa: B009 - both structs have one; their base does not say so
    for field, argument in compared.items():
        there, wanted = getattr(declared, field), getattr(asked, field)
        if there != wanted:
            return PreconditionFailed(kind=kind, name=name, argument=argument, declared=there, asked=wanted)
    return None
