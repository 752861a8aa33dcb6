"""The logbook: what a worker wrote is read back, whole or as far as it came."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.bodies import MessageId
from crash.history import Consumer, Delivery, History, Outcome, QueueRules, Settle
from crash.logbook import AT_ONCE, DOING, SENT, Logbook, read_into

FIRST = MessageId(3, 1, 10)
ME = Consumer(3, 1)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logbook]:
    made = Logbook(tmp_path / "3.log", create=True)
    made.begin(1, [0, 2], socket=True)
    yield made
    made.close()


def read(log: Logbook) -> History:
    history = History([QueueRules("queue")])
    lives = read_into(history, 3, log.records())
    history.ends += [life.as_end() for life in lives.values() if life.ended]
    return history


def outcomes(log: Logbook) -> list[tuple[int, Outcome]]:
    return [(publish.message.seq, publish.outcome) for publish in read(log).publishes]


def publishing(log: Logbook, *, queues: int = 1, flags: int = 0) -> int:
    return log.publishing(FIRST, queues=queues, level=5, count=3, flags=flags)


def test_messages_published_one_by_one_are_as_far_as_their_worker_came(log: Logbook) -> None:
    log.words[log.done_word(publishing(log))] = 1

    assert outcomes(log) == [(10, Outcome.OK), (11, Outcome.UNKNOWN)]


def test_a_refused_publish_ends_a_series(log: Logbook) -> None:
    record = publishing(log)
    log.words[log.done_word(record)] = 1
    log.published(record, Outcome.FAILED)

    assert outcomes(log) == [(10, Outcome.OK), (11, Outcome.FAILED)]


def test_messages_published_at_once_are_all_unknown_until_all_are_there(log: Logbook) -> None:
    record = publishing(log, flags=AT_ONCE)

    assert outcomes(log) == [(10, Outcome.UNKNOWN), (11, Outcome.UNKNOWN), (12, Outcome.UNKNOWN)]

    log.published(record, Outcome.OK)

    assert outcomes(log) == [(10, Outcome.OK), (11, Outcome.OK), (12, Outcome.OK)]


def test_one_message_may_go_to_several_queues(log: Logbook) -> None:
    log.published(publishing(log, queues=0b101, flags=AT_ONCE), Outcome.OK)

    assert [publish.queue for publish in read(log).publishes] == [0, 2] * 3


def test_what_was_only_sent_is_unknown_once_something_was_refused(log: Logbook) -> None:
    log.published(publishing(log, flags=SENT), Outcome.OK)
    log.refused()

    assert {outcome for _, outcome in outcomes(log)} == {Outcome.UNKNOWN}


def test_a_delivery_is_read_as_it_was_written(log: Logbook) -> None:
    delivery = Delivery(2, FIRST, 7, 100, 200, 3, 2, ME, redelivered=True, is_socket=True, reason="rejected")
    log.delivered(delivery)

    assert read(log).deliveries == [delivery]


def test_settling_is_unknown_between_its_invocation_and_its_end(log: Logbook) -> None:
    record = log.delivered(Delivery(0, FIRST, 0, 100, 200, 1, 0, ME, redelivered=False))
    log.settling(record, Settle.NACK)
    begun = read(log).deliveries[0]
    log.settled(record, Outcome.OK)
    ended = read(log).deliveries[0]

    assert (begun.settle, begun.outcome) == (Settle.NACK, Outcome.UNKNOWN)
    assert (ended.settle, ended.outcome) == (Settle.NACK, Outcome.OK)
    assert ended.settle_ended >= ended.settle_invoked == begun.settle_invoked


def test_a_life_ends_when_it_has_closed(log: Logbook) -> None:
    record = log.ending()
    assert read(log).ends == []

    log.ended(record)

    assert [(end.who, end.killed, end.queues) for end in read(log).ends] == [(ME, False, frozenset({0, 2}))]


def test_the_next_life_writes_on_in_the_same_file(log: Logbook) -> None:
    publishing(log, flags=AT_ONCE)
    log.words[DOING] = 1
    log.begin(2, [], socket=False)
    publishing(log, flags=AT_ONCE)

    assert log.words[DOING] == 0
    assert [publish.by.incarnation for publish in read(log).publishes] == [1, 1, 1, 2, 2, 2]


def test_another_process_sees_what_was_written(log: Logbook, tmp_path: Path) -> None:
    publishing(log)
    other = Logbook(tmp_path / "3.log")

    assert other.records() == log.records()
    other.close()
