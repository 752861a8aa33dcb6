"""One consumer over several queues: in turn, by priority in each, one prefetch for all; some by the broker."""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import shmq
from support.adapted import connect_adapted
from support.deadline import scaled, wait_until
from support.messages import QueueMaker
from support.taking import publish, stays, take, unacked

Connect = Callable[[], shmq.Connection]

pytestmark = pytest.mark.rule("CONSUME-12")


@pytest.fixture
def by_broker(broker: str, client: str, mode: str, request: pytest.FixtureRequest) -> Iterator[shmq.Connection]:
    """Give a connection that may go through the broker, where direct ones can't."""
    how: str = "socket" if mode == "socket" else "auto"
    if client == "asyncio":
        connection = connect_adapted(request.getfixturevalue("loop"), broker, mode=how)
    else:
        connection = shmq.connect(broker, mode=how)  # type: ignore[arg-type] # one of its words
    yield connection
    connection.close()


def pushed(conn: shmq.Connection, mode: str, *queues: str) -> None:
    """Wait until all that there is has been pushed to who consumes, where that is what happens."""
    if mode == "socket":
        wait_until(lambda: sum(conn.queue_info(queue).messages for queue in queues) == 0, "all are pushed")


def test_queues_are_served_in_turn(conn: shmq.Connection, mode: str, new_queue: QueueMaker) -> None:
    queues = [new_queue() for _ in range(3)]
    for queue in queues:
        publish(conn, queue, *range(4))
    consumer = conn.consume(queues)
    pushed(conn, mode, *queues)

    got = [next(consumer) for _ in range(12)]

    assert [message.body for message in got] == [b"%d" % number for number in range(4) for _ in queues]
    assert {message.queue_name for message in got[:3]} == set(queues)
    conn.ack_many(got)


def test_an_empty_queue_holds_up_no_other(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queues = [new_queue() for _ in range(3)]
    consumer, delays = conn.consume(queues), []
    for number in range(10):
        timer = threading.Timer(0.02, lambda number=number: publish(conn, queues[number % 3], number))
        timer.start()
        start = time.monotonic()
        message = next(consumer)
        assert (message.queue_name, message.body) == (queues[number % 3], b"%d" % number)
        delays.append(time.monotonic() - start)
        message.ack()
        timer.join()

    assert statistics.median(delays) < scaled(0.15)


def test_in_each_queue_the_most_urgent_comes_first(conn: shmq.Connection, mode: str, new_queue: QueueMaker) -> None:
    queues = [new_queue(max_priority=9) for _ in range(2)]
    for queue, priority in itertools.product(queues, (1, 9, 5)):
        conn.publish(b"%d" % priority, routing_key=queue, priority=priority, confirm="memory")
    consumer = conn.consume(queues)
    pushed(conn, mode, *queues)

    assert [next(consumer).body for _ in range(6)] == [b"9", b"9", b"5", b"5", b"1", b"1"]


@pytest.mark.parametrize("on_channel", [False, True])
def test_the_prefetch_is_for_all_queues_together(
    conn: shmq.Connection, new_queue: QueueMaker, *, on_channel: bool
) -> None:
    queues = [new_queue() for _ in range(3)]
    for queue in queues:
        publish(conn, queue, *range(10))
    taker = take((conn.channel() if on_channel else conn).consume(queues, prefetch=4))
    wait_until(lambda: len(taker.messages) == 4, "the prefetch is full")
    assert stays(lambda: len(taker.messages) == 4)
    assert sum(unacked(conn, queue) for queue in queues) == 4

    for acked in range(26):
        taker.messages[acked].ack()
        wait_until(lambda acked=acked: len(taker.messages) == acked + 5, "one more")  # type: ignore[misc] # binds this turn's
    assert stays(lambda: len(taker.messages) == 30)
    for message in taker.messages[26:]:
        message.ack()
    taker.stop()

    firsts = {message.queue_name for message in taker.messages[:12]}
    assert firsts == set(queues)
    for queue in queues:
        assert [one.body for one in taker.messages if one.queue_name == queue] == [b"%d" % n for n in range(10)]


def test_a_prefetch_of_one_serves_all_queues_in_turn(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queues = [new_queue() for _ in range(3)]
    for queue in queues:
        publish(conn, queue, *range(5))
    consumer, got = conn.consume(queues, prefetch=1), []
    for _ in range(15):
        message = next(consumer)
        got.append(message.queue_name)
        message.ack()

    assert all(set(got[start : start + 3]) == set(queues) for start in range(0, 15, 3))


def test_prefetch_and_window_hold_together(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queues = [new_queue() for _ in range(2)]
    channel = conn.channel()
    channel.prefetch = 3
    taker = take(channel.consume(queues, prefetch=5))
    for queue in queues:
        publish(conn, queue, *range(10))
    wait_until(lambda: len(taker.messages) == 3, "the window is full")
    assert stays(lambda: len(taker.messages) == 3)
    channel.prefetch = 0
    wait_until(lambda: len(taker.messages) == 5, "the prefetch is full")
    assert stays(lambda: len(taker.messages) == 5)
    assert sorted(message.delivery_tag for message in taker.messages) == [1, 2, 3, 4, 5]

    channel.ack(5, multiple=True)
    wait_until(lambda: len(taker.messages) == 10, "five more")
    taker.stop()


def test_a_queue_that_is_deleted_is_told_once_and_the_others_go_on(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    queues = [new_queue() for _ in range(3)]
    consumer = conn.consume(queues)
    timer = threading.Timer(0.2, lambda: conn.delete_queue(queues[1]))
    timer.start()

    with pytest.raises(shmq.NotFound) as caught:
        next(consumer)
    timer.join()

    assert caught.value.name == queues[1]
    for queue in (queues[0], queues[2]):
        publish(conn, queue, 1)
        message = next(consumer)
        assert message.queue_name == queue
        message.ack()
    conn.delete_queue(queues[0])
    conn.delete_queue(queues[2])
    for _ in range(2):
        with pytest.raises(shmq.NotFound):
            next(consumer)
    assert list(consumer) == []


def test_what_was_taken_from_a_queue_that_is_gone_makes_room_for_the_others(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    gone, other = new_queue(), new_queue()
    publish(conn, gone, 1)
    consumer = conn.consume([gone, other], prefetch=1)
    first = next(consumer)
    publish(conn, other, 2)
    conn.delete_queue(gone)
    first.ack()
    taken = [take(consumer)]
    wait_until(lambda: bool(taken[0].errors or taken[0].messages), "the end of the one is told, or the other served")
    if taken[0].errors:
        taken.append(take(consumer))

    wait_until(lambda: b"2" in [body for each in taken for body in each.bodies], "there is room for it", 1)
    for each in taken:
        each.stop()
        conn.ack_many(each.messages)


def test_some_may_be_served_by_the_broker(by_broker: shmq.Connection, new_queue: QueueMaker) -> None:
    direct, brokered = new_queue(), new_queue(single_active_consumer=True)
    taker = take(by_broker.consume([direct, brokered], prefetch=4))
    for number in range(10):
        publish(by_broker, direct, number)
        publish(by_broker, brokered, number)
    wait_until(lambda: len(taker.messages) == 4, "the prefetch is full")
    assert stays(lambda: len(taker.messages) == 4)

    for acked in range(16):
        taker.messages[acked].ack()
        wait_until(lambda acked=acked: len(taker.messages) == acked + 5, "one more")  # type: ignore[misc] # binds this turn's

    taker.stop()
    assert [one.body for one in taker.messages if one.queue_name == direct] == [b"%d" % n for n in range(10)]
    assert [one.body for one in taker.messages if one.queue_name == brokered] == [b"%d" % n for n in range(10)]


def test_the_prefetch_is_for_all_queues_together_when_the_broker_takes_over(
    by_broker: shmq.Connection, new_queue: QueueMaker
) -> None:
    queues = [new_queue() for _ in range(3)]
    taker = take(by_broker.consume(queues, prefetch=2))
    behind = [by_broker.consume(queue, priority=-1, prefetch=1) for queue in queues]
    assert stays(lambda: not taker.messages, 1.0)
    for queue in queues:
        publish(by_broker, queue, *range(5))

    wait_until(lambda: len(taker.messages) == 2, "the prefetch is full")
    out = len(taker.messages) + len(behind)
    wait_until(lambda: sum(unacked(by_broker, queue) for queue in queues) == out, "all of them are full")
    assert stays(lambda: sum(unacked(by_broker, queue) for queue in queues) == out)
    taker.stop()


def test_cancel_ends_it_for_all_queues(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queues = [new_queue() for _ in range(2)]
    taker = take(conn.consume(queues, consumer_tag="tag"))
    for queue in queues:
        wait_until(lambda queue=queue: conn.queue_info(queue).consumers == 1, "it consumes")  # type: ignore[misc] # binds this turn's

    conn.cancel("tag")

    taker.stop()
    for queue in queues:
        wait_until(lambda queue=queue: conn.queue_info(queue).consumers == 0, "it is gone")  # type: ignore[misc] # binds this turn's


def test_closing_its_channel_gives_back_what_it_held_of_all(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    queues = [new_queue() for _ in range(2)]
    channel = conn.channel()
    consumer = channel.consume(queues)
    for queue in queues:
        publish(conn, queue, 1)
    assert {next(consumer).queue_name, next(consumer).queue_name} == set(queues)

    channel.close()

    assert [conn.queue_info(queue).messages for queue in queues] == [1, 1]
    assert [conn.queue_info(queue).consumers for queue in queues] == [0, 0]


@pytest.mark.parametrize("queues", [[], ["a", "a"], ["", "a"], [1], [f"q{number}" for number in range(257)]])
def test_a_list_that_can_not_be_is_refused(conn: shmq.Connection, queues: list[str]) -> None:
    with pytest.raises(shmq.InvalidArgument):
        conn.consume(queues)


def test_where_one_queue_is_missing_none_is_consumed(conn: shmq.Connection, queue: str) -> None:
    with pytest.raises(shmq.NotFound):
        conn.consume([queue, "there is none"])

    wait_until(lambda: conn.queue_info(queue).consumers == 0, "nothing is left")
    publish(conn, queue, 1)
    assert conn.queue_info(queue).messages == 1
