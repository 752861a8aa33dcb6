"""The live window of a channel: for all its consumers together, beside the prefetch of each, and not for gets."""

from collections.abc import Callable

import pytest

import shmq
from support.deadline import wait_until
from support.messages import QueueMaker
from support.taking import publish, stays, take, unacked

Connect = Callable[[], shmq.Connection]


@pytest.mark.rule("CHANNEL-5")
def test_a_window_holds_for_all_consumers_of_the_channel_together(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    first, second = new_queue(), new_queue()
    channel = conn.channel()
    channel.prefetch = 3
    takers = [take(channel.consume(first)), take(channel.consume(second))]
    publish(conn, first, *range(10))
    publish(conn, second, *range(10))

    wait_until(lambda: unacked(conn, first) + unacked(conn, second) == 3, "the window is full")
    assert stays(lambda: unacked(conn, first) + unacked(conn, second) == 3)
    assert sum(len(taker.messages) for taker in takers) == 3
    channel.ack(2)
    wait_until(lambda: sum(len(taker.messages) for taker in takers) == 4, "one more")

    for taker in takers:
        taker.stop()


@pytest.mark.rule("CHANNEL-5")
def test_a_window_may_change_at_any_time(conn: shmq.Connection, queue: str) -> None:
    channel = conn.channel()
    taker = take(channel.consume(queue))
    publish(conn, queue, *range(20))
    wait_until(lambda: len(taker.messages) == 20, "no window")

    channel.prefetch = 5
    publish(conn, queue, *range(20, 40))
    assert stays(lambda: len(taker.messages) == 20)
    channel.ack(15, multiple=True)
    assert stays(lambda: len(taker.messages) == 20)
    channel.ack(16)
    wait_until(lambda: len(taker.messages) == 21, "one is let in")
    assert stays(lambda: len(taker.messages) == 21)
    channel.prefetch = 8
    wait_until(lambda: len(taker.messages) == 24, "three more")
    assert stays(lambda: len(taker.messages) == 24)
    channel.qos(0)
    wait_until(lambda: len(taker.messages) == 40, "no window again")

    taker.stop()


@pytest.mark.rule("CHANNEL-5")
def test_window_and_prefetch_hold_together(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    first, second = new_queue(), new_queue()
    channel = conn.channel()
    channel.qos(5)
    one, other = take(channel.consume(first, prefetch=2)), take(channel.consume(second, prefetch=10))
    publish(conn, first, *range(10))
    wait_until(lambda: len(one.messages) == 2, "its own prefetch")
    assert stays(lambda: len(one.messages) == 2)
    publish(conn, second, *range(10))
    wait_until(lambda: len(other.messages) == 3, "what the window leaves")
    assert stays(lambda: (len(one.messages), len(other.messages)) == (2, 3))

    one.messages[0].ack()
    wait_until(lambda: len(one.messages) + len(other.messages) == 6, "room for one")

    one.stop()
    other.stop()


@pytest.mark.rule("CHANNEL-5", "CONSUME-2")
def test_a_window_does_not_hold_for_gets_and_gets_do_not_fill_it(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, *range(6))
    channel = conn.channel()
    channel.prefetch = 1
    assert len(channel.get_batch(queue, max_messages=3, max_wait=1)) == 3

    consumer = channel.consume(queue)
    assert next(consumer).body == b"3"
    assert len(channel.get_batch(queue, max_messages=2, max_wait=1)) == 2
    assert channel.unacked == 6


@pytest.mark.rule("CHANNEL-5")
def test_a_window_is_one_channels(conn: shmq.Connection, queue: str) -> None:
    narrow, wide = conn.channel(), conn.channel()
    narrow.prefetch = 1
    publish(conn, queue, *range(10))
    one = narrow.consume(queue)
    assert next(one).body == b"0"

    other = take(wide.consume(queue))
    wait_until(lambda: len(other.messages) == 9, "all the rest")

    other.stop()


@pytest.mark.rule("CHANNEL-5")
def test_what_is_out_of_reach_of_the_window_is_everybodys(conn: shmq.Connection, connect: Connect, queue: str) -> None:
    channel = conn.channel()
    channel.prefetch = 2
    consumer = channel.consume(queue)
    publish(conn, queue, *range(5))
    held = [next(consumer), next(consumer)]

    others = connect().get_batch(queue, max_messages=10, max_wait=0.3)

    assert [message.body for message in [*held, *others]] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.rule("CHANNEL-5")
@pytest.mark.parametrize("prefetch", [-1, 65_536, "1", None])
def test_a_window_that_can_not_be_is_refused(conn: shmq.Connection, prefetch: object) -> None:
    channel = conn.channel()

    with pytest.raises(shmq.InvalidArgument):
        channel.qos(prefetch)  # type: ignore[arg-type] # what a program may get wrong
    with pytest.raises(shmq.NotSupported):
        channel.qos(1, prefetch_size=1)
    assert channel.prefetch == 0
