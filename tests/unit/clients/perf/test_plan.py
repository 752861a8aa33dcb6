from collections import Counter
from typing import Any

import pytest

from shmq.errors import InvalidArgument
from shmq_clients.perf.plan import PATTERN_MESSAGES, Plan, parse_mix, parse_size, pattern


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("256", 256), ("4KiB", 4096), ("4k", 4096), ("1M", 1 << 20), ("64 MiB", 64 << 20), ("1GB", 1 << 30)],
)
def test_sizes_are_read_with_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "4KX", "1.5M", "4 K i B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_a_mix_has_values_and_weights() -> None:
    assert parse_mix("64", of_sizes=True) == ((64, 1),)
    assert parse_mix("64:9,4KiB", of_sizes=True) == ((64, 9), (4096, 1))
    assert parse_mix("0:90,9:10", of_sizes=False) == ((0, 90), (9, 10))


@pytest.mark.parametrize("text", ["64:0", "64:-1,5:2", "64:x"])
def test_weights_must_leave_something(text: str) -> None:
    with pytest.raises(ValueError, match=r"weight|invalid literal"):
        parse_mix(text, of_sizes=True)


def test_a_mix_is_the_same_in_each_run_and_follows_the_weights() -> None:
    shape = pattern(((64, 3), (4096, 1)), ((0, 1), (9, 1)))

    assert shape == pattern(((64, 3), (4096, 1)), ((0, 1), (9, 1)))
    counts = Counter(size for size, _ in shape)
    assert 0.7 < counts[64] / PATTERN_MESSAGES < 0.8
    assert {priority for _, priority in shape} == {0, 9}


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"sizes": ((7, 1),)}, "size"),
        ({"sizes": ((2 << 30, 1),)}, "size"),
        ({"priorities": ((256, 1),)}, "priorities"),
        ({"prefetch": 4, "ack_every": 5}, "multi-ack-every"),
        ({"producers": 0, "consumers": 0}, "producers"),
        ({"producers": 257}, "producers"),
        ({"batch": 2, "zero_copy": True}, "batch"),
    ],
)
def test_what_cannot_be_done_is_named(settings: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Plan(**settings)

    assert caught.value.argument == argument


def test_tiny_bodies_are_fine_where_nothing_is_stamped() -> None:
    assert Plan(sizes=((0, 1),), measure_latency=False).mean_bytes == 0


def test_the_routing_key_is_the_queue_unless_given() -> None:
    assert Plan(queue="jobs").key == "jobs"
    assert Plan(queue="jobs", routing_key="a.b").key == "a.b"
