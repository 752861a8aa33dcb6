"""What a queue effectively does."""

import pytest

from shmq.core import _core
from shmq.definitions import QueueDefinition
from shmq.errors import AccessRefused
from shmq_daemon import policy

SIZES = policy.Sizes(1000, 5 << 20, 300)


def test_a_queue_that_asks_for_nothing_gets_the_defaults() -> None:
    assert policy.geometry_of(QueueDefinition("q"), SIZES) == (1, 1000, 320, policy.RING_ENTRIES, 5 << 20)


def test_a_queue_gets_what_it_asks_for_rounded_up() -> None:
    asked = QueueDefinition("q", max_priority=9, capacity_messages=10, capacity_bytes=1)

    assert policy.geometry_of(asked, SIZES) == (10, 10, 320, policy.RING_ENTRIES, 1 << 20)


@pytest.mark.parametrize(
    ("definition", "limit"),
    [
        (QueueDefinition("q"), -1),
        (QueueDefinition("q", dead_letter_exchange=""), 20),
        (QueueDefinition("q", dead_letter_exchange="", delivery_limit=-1), -1),
        (QueueDefinition("q", delivery_limit=3), 3),
    ],
)
def test_the_delivery_limit_is_on_where_dead_letters_have_somewhere_to_go(
    definition: QueueDefinition, limit: int
) -> None:
    assert policy.delivery_limit_of(definition) == limit


@pytest.mark.parametrize(
    ("queue_ms", "message_ns", "both"), [(None, -1, -1), (None, 5, 5), (1, -1, 10**6), (1, 5, 5), (0, 5, 0)]
)
def test_the_lower_time_to_live_holds(queue_ms: int | None, message_ns: int, both: int) -> None:
    assert policy.ttl_ns_of(QueueDefinition("q", message_ttl_ms=queue_ms), message_ns) == both


@pytest.mark.parametrize(
    ("definition", "overflow"),
    [
        (QueueDefinition("q", overflow="reject-publish"), 0),
        (QueueDefinition("q", max_length=5), _core.DROPS),
        (QueueDefinition("q", max_length_bytes=5, dead_letter_exchange=""), _core.DROPS_DEAD),
        (QueueDefinition("q", max_length=5, overflow_victim="highest"), _core.DROPS | _core.DROPS_HIGHEST),
        (QueueDefinition("q", max_length=5, overflow="reject-publish", dead_letter_exchange=""), _core.REFUSES),
        (QueueDefinition("q", max_length=5, overflow="reject-publish-dlx"), _core.REFUSES),
        (
            QueueDefinition("q", max_length=5, overflow="reject-publish-dlx", dead_letter_exchange=""),
            _core.REFUSES_DEAD,
        ),
    ],
)
def test_what_happens_beyond_a_length(definition: QueueDefinition, overflow: int) -> None:
    assert policy.overflow_of(definition) == overflow


def test_a_long_queue_has_the_capacity_for_its_length() -> None:
    sizes = policy.Sizes(1000, 1 << 20, 320)

    assert policy.geometry_of(QueueDefinition("q", max_length=10), sizes)[1] == 1000
    assert policy.geometry_of(QueueDefinition("q", max_length=5000), sizes)[1] > 5000
    assert policy.geometry_of(QueueDefinition("q", max_length=5000, capacity_messages=7), sizes)[1] == 7


def test_only_what_nobody_thought_of_is_warned_of() -> None:
    assert policy.limits_of(QueueDefinition("q"))["warn"]
    assert not policy.limits_of(QueueDefinition("q", delivery_limit=-1))["warn"]
    assert not policy.limits_of(QueueDefinition("q", dead_letter_exchange=""))["warn"]


def test_reserved_names_are_the_brokers() -> None:
    with pytest.raises(AccessRefused, match=r"'amq.mine' refused: .* Choose another name$"):
        policy.check_unreserved("queue", "amq.mine")


@pytest.mark.parametrize(("arena", "largest"), [(0, 320), (5 << 20, 5 << 20), (1 << 40, 1 << 30)])
def test_the_largest_body_follows_from_the_arena(arena: int, largest: int) -> None:
    assert policy.body_bytes_max((1, 10, 320, 4, arena)) == largest
