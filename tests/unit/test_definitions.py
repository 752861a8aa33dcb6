"""shmq.definitions: keywords and x- arguments mean the same; what can't be used is named; differences are told."""

from typing import Any

import msgspec
import pytest

from shmq.definitions import (
    QUEUE_ARGUMENTS,
    QueueDefinition,
    check_queue,
    define_exchange,
    define_queue,
    exchange_difference,
    queue_arguments,
    queue_difference,
)
from shmq.errors import AccessRefused, InvalidArgument, InvalidName, NotSupported

GOOD: dict[str, Any] = {
    "x-max-priority": 255,
    "x-capacity-messages": 1,
    "x-capacity-bytes": 0,
    "x-max-length": 0,
    "x-max-length-bytes": 0,
    "x-overflow": "reject-publish",
    "x-overflow-victim": "highest",
    "x-message-ttl": 0,
    "x-expires": 1,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
    "x-delivery-limit": -1,
    "x-delayed-retry-type": "all",
    "x-delayed-retry-min": 10,
    "x-delayed-retry-max": 1000,
    "x-priority-ageing": 500,
    "x-consumer-timeout": 1000,
    "x-single-active-consumer": True,
    "x-queue-type": "quorum",
}
BAD = [
    ("x-max-priority", 0),
    ("x-max-priority", 256),
    ("x-max-priority", "9"),
    ("x-max-priority", True),
    ("x-capacity-messages", 0),
    ("x-max-length", -1),
    ("x-overflow", "drop"),
    ("x-message-ttl", -1),
    ("x-message-ttl", 1.5),
    ("x-expires", 0),
    ("x-dead-letter-exchange", 5),
    ("x-dead-letter-exchange", "a\0"),
    ("x-dead-letter-routing-key", "x" * 256),
    ("x-delivery-limit", -2),
    ("x-overflow-victim", "middle"),
    ("x-delayed-retry-type", "sometimes"),
    ("x-delayed-retry-max", 0),
    ("x-priority-ageing", 0),
    ("x-single-active-consumer", 1),
    ("x-queue-type", "fifo"),
    ("x-unknown", [1]),
    ("x-unknown", 2**64),
]


def test_every_argument_has_a_keyword_that_means_the_same() -> None:
    fields = {QUEUE_ARGUMENTS[argument].field: value for argument, value in GOOD.items()}

    assert GOOD.keys() == QUEUE_ARGUMENTS.keys()
    assert define_queue("q", arguments=GOOD) == define_queue("q", **fields)
    assert queue_arguments(define_queue("q", arguments=GOOD)) == GOOD


@pytest.mark.parametrize(("argument", "value"), BAD)
def test_an_argument_that_cannot_be_used_is_named_with_what_is_allowed(argument: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as error:
        define_queue("q", arguments={"x-dead-letter-exchange": "d", argument: value})

    assert (error.value.argument, error.value.value) == (argument, value)
    assert error.value.allowed


def test_a_keyword_and_an_argument_may_not_contradict_each_other() -> None:
    assert define_queue("q", max_priority=5, arguments={"x-max-priority": 5}).max_priority == 5
    with pytest.raises(InvalidArgument, match="as the keyword says"):
        define_queue("q", max_priority=5, arguments={"x-max-priority": 6})


def test_an_unknown_keyword_is_refused_and_an_unknown_argument_kept() -> None:
    with pytest.raises(InvalidArgument, match="colour"):
        define_queue("q", colour="red")
    assert define_queue("q", arguments={"x-colour": "red"}).other == {"x-colour": "red"}


def test_what_was_not_given_is_not_there() -> None:
    assert define_queue("q", max_priority=None) == QueueDefinition("q")


def test_a_quorum_queue_is_durable_a_classic_one_needs_no_saying_and_streams_are_not_there() -> None:
    assert define_queue("q", queue_type="quorum").durable
    assert define_queue("q", queue_type="classic") == QueueDefinition("q")
    with pytest.raises(NotSupported):
        define_queue("q", queue_type="stream")


def test_a_dead_letter_key_needs_an_exchange() -> None:
    with pytest.raises(InvalidArgument, match="only together with x-dead-letter-exchange"):
        define_queue("q", dead_letter_routing_key="dead")


def test_a_queue_that_drops_heads_has_room_beyond_its_length() -> None:
    for overflow in (None, "drop-head"):
        with pytest.raises(InvalidArgument, match="more than x-max-length"):
            define_queue("q", max_length=10, capacity_messages=10, overflow=overflow)
    assert define_queue("q", max_length=10, capacity_messages=11).capacity_messages == 11
    assert define_queue("q", max_length=10, capacity_messages=10, overflow="reject-publish").max_length == 10


@pytest.mark.parametrize("flag", ["durable", "exclusive", "auto_delete"])
def test_a_flag_is_true_or_false(flag: str) -> None:
    with pytest.raises(InvalidArgument, match=flag):
        check_queue(msgspec.structs.replace(QueueDefinition("q"), **{flag: 1}))


def test_an_empty_queue_name_asks_for_one_and_other_names_are_checked() -> None:
    assert define_queue().name == ""
    for name in ("a\n", None, 0):
        with pytest.raises(InvalidName):
            check_queue(QueueDefinition(name))  # type: ignore[arg-type] # what an application may pass
    with pytest.raises(AccessRefused):
        define_exchange("")


@pytest.mark.parametrize(
    ("declared", "asked", "told"),
    [
        ({"max_priority": 9}, {"max_priority": 5}, ("x-max-priority", 9, 5)),
        ({"max_priority": 9}, {}, ("x-max-priority", 9, None)),
        ({"durable": True}, {"max_priority": 1}, ("durable", True, False)),
        ({"arguments": {"x-message-ttl": 5}}, {"message_ttl_ms": 6}, ("x-message-ttl", 5, 6)),
    ],
)
def test_the_first_difference_is_told_with_both_values(
    declared: dict[str, Any], asked: dict[str, Any], told: tuple[str, object, object]
) -> None:
    error = queue_difference(define_queue("q", **declared), define_queue("q", **asked))

    assert error is not None
    assert (error.name, error.argument, error.declared, error.asked) == ("q", *told)


def test_unknown_arguments_and_exclusive_are_not_compared() -> None:
    assert queue_difference(define_queue("q", arguments={"x-a": 1}), define_queue("q", exclusive=True)) is None


def test_exchanges_differ_by_type_flags_and_arguments() -> None:
    images = define_exchange("images", "topic", durable=True)

    assert exchange_difference(images, define_exchange("images", "topic", durable=True)) is None
    assert str(exchange_difference(images, define_exchange("images"))).startswith(
        "exchange 'images' has type = 'topic'"
    )
    with pytest.raises(InvalidArgument, match="x-delayed-type"):
        define_exchange("images", arguments={"x-delayed-type": "none"})
    with pytest.raises(InvalidArgument, match="type = 'round'"):
        define_exchange("images", "round")


def test_arguments_that_are_too_much_together_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="262144 bytes"):
        define_queue("q", arguments={f"x-{number}": "\u20ac" * 4096 for number in range(22)})


@pytest.mark.parametrize("arguments", [[1], "x-max-length", {1: 2}, 7])
def test_arguments_that_are_no_mapping_of_names_are_refused(arguments: Any) -> None:
    with pytest.raises(InvalidArgument, match="a mapping of names to values"):
        define_queue("q", arguments=arguments)
