"""The comparison can fail: for what is seen otherwise, for what is listed and is no more, and through real brokers."""

import itertools

import pytest

from reference.by_pika import PikaBroker
from reference.by_shmq import ShmqBroker
from reference.cases import ALL_CASES
from reference.driver import Broker
from reference.record import DIFFERENCES, Pair, Saw, as_rows, differences, judge, listed
from reference.run import seen

SAME = {"body": "'x'", "count": "1"}
TOLD = {"body": Pair("'x'", "'y'")}


def test_what_is_seen_otherwise_is_a_difference() -> None:
    assert differences(SAME, SAME) == {}
    assert differences(SAME, SAME | {"body": "'y'"}) == TOLD
    assert differences(SAME, {"count": "1"}) == {"body": Pair("'x'", "not observed")}
    assert differences({"count": "1"}, SAME) == {"body": Pair("not observed", "'x'")}


@pytest.mark.parametrize(
    ("found", "here", "complaint"),
    [
        (TOLD, {}, "not listed"),
        (TOLD, {"body": Pair("'x'", "'z'")}, "not listed"),
        ({}, TOLD, "no more"),
        (TOLD, {"body": Pair("'x'", "'z'")}, "no more"),
    ],
)
def test_what_is_not_listed_and_what_is_no_more_is_told(
    found: dict[str, Pair], here: dict[str, Pair], complaint: str
) -> None:
    assert complaint in judge("a_case", found, here)
    assert "| `a_case` | `body` | `'x'` |" in judge("a_case", found, here)


def test_what_is_listed_as_it_is_passes() -> None:
    assert judge("a_case", TOLD, TOLD) == judge("a_case", {}, {}) == ""


def test_rows_are_read_as_they_are_written() -> None:
    found = {"a | b": Pair("['x']", "{'a': 1}"), "c": Pair("1", "2")}

    assert listed(f"text\n{as_rows('a_case', found)}\n\n{as_rows('other', TOLD)}\n") == {"a_case": found, "other": TOLD}


def test_the_document_lists_cases_that_there_are() -> None:
    assert set(listed(DIFFERENCES.read_text())) <= set(ALL_CASES)


def test_only_what_is_named_is_left_out() -> None:
    saw = Saw()
    saw(
        "headers", {"x-last-death-queue": "q", "x-first-death-queue": "q", "x-delivery-count": 2, "x-death": [{"n": 1}]}
    )

    assert saw.values["headers"] == "{'x-death': [{'n': 1}], 'x-first-death-queue': 'q'}"


def test_a_wrong_expectation_is_reported_by_both_brokers(rabbitmq_port: int, shmq_url: str) -> None:
    """Each run of this case expects one message more than the last: the second broker must disagree with the first."""
    expected = itertools.count(1)

    def case(broker: Broker, saw: Saw) -> None:
        broker.declare_queue("q")
        for number in range(next(expected)):
            broker.publish(str(number), "q")
        saw("ready", broker.declare_queue("q", passive=True).messages)
        saw.answer("no queue", broker.purge_queue, "nobody")

    found = differences(seen(case, PikaBroker(rabbitmq_port)), seen(case, ShmqBroker(shmq_url, "auto")))

    assert found == {"ready": Pair("1", "2")}
    assert "not listed" in judge("wrong", found, {})
