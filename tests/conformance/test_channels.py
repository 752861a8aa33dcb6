"""Channels: tags of their own, acks of several, recover, the live window, and what a channel leaves to the others."""

import gc
import itertools
from collections.abc import Callable

import pytest

import shmq
from support.deadline import wait_until
from support.messages import QueueMaker, ready_bodies, wait_for
from support.taking import publish, take, unacked

Connect = Callable[[], shmq.Connection]


# -- tags -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHANNEL-1")
def test_tags_count_up_from_one_on_each_channel(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    first, second = new_queue(), new_queue()
    publish(conn, first, *range(3))
    publish(conn, second, *range(3))
    one, other = conn.channel(), conn.channel()

    consumer = one.consume(first)
    tags = [next(consumer).delivery_tag, next(consumer).delivery_tag, wait_for(one, second).delivery_tag]

    assert tags == [1, 2, 3]
    assert [message.delivery_tag for message in other.get_batch(second, max_messages=2, max_wait=1)] == [1, 2]
    assert one.number != other.number
    assert one.unacked == 3


@pytest.mark.rule("CHANNEL-1")
def test_a_connection_without_channels_gives_no_tags(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1)

    message = wait_for(conn, queue)

    assert message.delivery_tag == 0
    message.ack()


@pytest.mark.rule("CHANNEL-2")
def test_an_ack_by_tag_settles_that_delivery(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1, 2, 3)
    channel = conn.channel()
    assert len(channel.get_batch(queue, max_messages=3, max_wait=1)) == 3

    channel.ack(2)
    conn.wait_for_confirms()

    assert unacked(conn, queue) == 2
    channel.close()
    assert ready_bodies(conn, queue) == [b"1", b"3"]


@pytest.mark.rule("CHANNEL-2")
def test_a_message_settled_by_itself_uses_its_tag_up(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1)
    channel = conn.channel()
    message = wait_for(channel, queue)

    message.ack()

    assert channel.unacked == 0
    with pytest.raises(shmq.AlreadySettled):
        channel.ack(message.delivery_tag)


@pytest.mark.rule("CHANNEL-2")
def test_a_tag_outlives_the_message_in_hand(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1)
    channel = conn.channel()
    tag = wait_for(channel, queue).delivery_tag
    gc.collect()

    channel.ack(tag)
    conn.wait_for_confirms()

    assert unacked(conn, queue) == 0


@pytest.mark.rule("CHANNEL-2", "SETTLE-1")
@pytest.mark.parametrize("settle", ["ack", "nack", "reject"])
@pytest.mark.parametrize("tag", [1, 2, 0, 99])
def test_unknown_and_double_tags_are_refused_and_change_nothing(
    conn: shmq.Connection, queue: str, settle: str, tag: int
) -> None:
    publish(conn, queue, 1, 2, 3)
    channel, other = conn.channel(), conn.channel()
    assert len(channel.get_batch(queue, max_messages=3, max_wait=1)) == 3
    channel.ack(1)
    channel.ack(2)

    with pytest.raises(shmq.PreconditionFailed) as caught:
        getattr(channel, settle)(tag)
    with pytest.raises(shmq.PreconditionFailed):
        other.ack(3)

    assert isinstance(caught.value, shmq.AlreadySettled)
    assert channel.unacked == 1
    channel.ack(3)


@pytest.mark.rule("CHANNEL-2")
@pytest.mark.parametrize("tag", [-1, "1", 1.0, None, True])
def test_what_is_no_tag_is_refused(conn: shmq.Connection, tag: object) -> None:
    channel = conn.channel()

    with pytest.raises(shmq.InvalidArgument):
        channel.ack(tag)  # type: ignore[arg-type] # what a program may get wrong


@pytest.mark.rule("CHANNEL-1", "CONSUME-3")
def test_a_tag_that_needs_no_ack_is_counted_and_unknown(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1, 2, 3)
    channel = conn.channel()
    consumer = channel.consume(queue, no_ack=True)
    message = next(consumer)

    with pytest.raises(shmq.AlreadySettled):
        channel.ack(message.delivery_tag)
    assert (message.delivery_tag, next(consumer).delivery_tag, channel.unacked) == (1, 2, 0)


# -- several --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHANNEL-3")
@pytest.mark.parametrize(("tag", "left"), [(3, [b"4", b"5"]), (0, [])])
def test_an_ack_of_several_settles_all_before(
    conn: shmq.Connection, new_queue: QueueMaker, tag: int, left: list[bytes]
) -> None:
    first, second = new_queue(), new_queue()
    publish(conn, first, 1, 3, 5)
    publish(conn, second, 2, 4)
    channel, other = conn.channel(), conn.channel()
    for queue in (first, second, first, second, first):
        wait_for(channel, queue)
    publish(conn, first, 6)
    wait_for(other, first)

    channel.ack(tag, multiple=True)
    conn.wait_for_confirms()

    assert (channel.unacked, other.unacked) == (len(left), 1)
    channel.close()
    assert sorted(ready_bodies(conn, first) + ready_bodies(conn, second)) == left


@pytest.mark.rule("CHANNEL-3")
def test_an_ack_of_several_up_to_an_unknown_tag_settles_none(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1, 2, 3)
    channel = conn.channel()
    assert len(channel.get_batch(queue, max_messages=3, max_wait=1)) == 3
    channel.ack(2)

    for tag in (2, 4):
        with pytest.raises(shmq.AlreadySettled):
            channel.ack(tag, multiple=True)

    assert channel.unacked == 2


@pytest.mark.rule("CHANNEL-3")
def test_of_none_all_may_be_acked(conn: shmq.Connection) -> None:
    channel = conn.channel()

    channel.ack(0, multiple=True)
    channel.nack(0, multiple=True)

    assert channel.unacked == 0


@pytest.mark.rule("CHANNEL-3", "SETTLE-2")
def test_a_nack_of_several_gives_them_back_in_place(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, *range(5))
    channel = conn.channel()
    assert len(channel.get_batch(queue, max_messages=5, max_wait=1)) == 5

    channel.nack(3, multiple=True)
    conn.wait_for_confirms()

    again = list(conn.get_batch(queue, max_messages=3, max_wait=1))
    assert [message.body for message in again] == [b"0", b"1", b"2"]
    assert conn.get(queue) is None
    assert all(message.redelivered and message.headers == {} for message in again)
    conn.ack_many(again)


@pytest.mark.rule("CHANNEL-3", "SETTLE-3")
def test_a_nack_of_several_without_requeue_dead_letters_them(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    published = publish(conn, queue, *range(5))
    channel = conn.channel()
    assert len(channel.get_batch(queue, max_messages=5, max_wait=1)) == 5

    channel.nack(5, multiple=True, requeue=False)

    letters = [wait_for(conn, dead) for _ in range(5)]
    assert sorted(letter.body for letter in letters) == published
    assert {letter.headers["x-death"][0]["reason"] for letter in letters} == {"rejected"}
    conn.ack_many(letters)


@pytest.mark.rule("CHANNEL-2", "SETTLE-2", "SETTLE-6")
def test_a_nack_may_delay_and_a_reject_counts(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1, 2)
    channel = conn.channel()
    assert len(channel.get_batch(queue, max_messages=2, max_wait=1)) == 2

    channel.nack(1, delay=0.3)
    channel.reject(2, requeue=True)
    conn.wait_for_confirms()

    second, first = wait_for(conn, queue), wait_for(conn, queue)
    assert (second.body, second.headers) == (b"2", {"x-delivery-count": 1})
    assert (first.body, first.headers) == (b"1", {})
    conn.ack_many([first, second])


# -- recover --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHANNEL-4")
def test_recover_gives_back_what_this_channel_holds_and_delivers_it_again(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, *range(6))
    channel, other = conn.channel(), conn.channel()
    assert wait_for(other, queue).body == b"0"
    consumer = channel.consume(queue)
    held = list(itertools.islice(consumer, 3))

    channel.recover()

    again = [next(consumer) for _ in range(5)]
    assert [message.body for message in again] == [b"1", b"2", b"3", b"4", b"5"]
    assert [message.redelivered for message in again[:3]] == [True] * 3
    assert [message.delivery_tag for message in again] == [4, 5, 6, 7, 8]
    with pytest.raises(shmq.AlreadySettled):
        held[0].ack()
    assert (channel.unacked, other.unacked) == (5, 1)
    channel.ack(8, multiple=True)


@pytest.mark.rule("CHANNEL-4")
def test_recover_without_requeue_is_not_done(conn: shmq.Connection) -> None:
    with pytest.raises(shmq.NotSupported):
        conn.channel().recover(requeue=False)


# -- consumers of a channel -----------------------------------------------------------------------------------------


@pytest.mark.rule("CONSUME-7")
def test_a_consumer_tag_is_one_channels(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    first, second = new_queue(), new_queue()
    publish(conn, first, 1)
    publish(conn, second, 2)
    one, other = conn.channel(), conn.channel()
    consumers = [one.consume(first, consumer_tag="tag"), other.consume(second, consumer_tag="tag")]
    with pytest.raises(shmq.NotAllowed):
        one.consume(second, consumer_tag="tag")

    assert [next(consumer).body for consumer in consumers] == [b"1", b"2"]
    assert [consumer.consumer_tag for consumer in consumers] == ["tag", "tag"]
    one.cancel("tag")
    with pytest.raises(shmq.NotFound):
        one.cancel("tag")
    publish(conn, second, 3)
    assert next(consumers[1]).body == b"3"


@pytest.mark.rule("CHANNEL-2", "CONSUME-4")
def test_cancel_leaves_what_is_out_to_be_settled_by_tag(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1, 2, 3)
    channel = conn.channel()
    consumer = channel.consume(queue, prefetch=2)
    next(consumer), next(consumer)

    consumer.cancel()
    channel.ack(1)
    channel.nack(2)
    conn.wait_for_confirms()

    assert ready_bodies(conn, queue) == [b"2", b"3"]


@pytest.mark.rule("CHANNEL-2")
def test_a_consumer_that_is_forgotten_leaves_its_deliveries_to_the_channel(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1, 2)
    channel = conn.channel()
    channel.prefetch = 1
    tag = next(iter(channel.consume(queue))).delivery_tag
    gc.collect()
    wait_until(lambda: conn.queue_info(queue).consumers == 0, "it is gone")

    assert unacked(conn, queue) == 1
    channel.ack(tag)
    assert next(iter(channel.consume(queue))).body == b"2"


@pytest.mark.rule("CONSUME-5")
def test_a_queue_that_goes_ends_its_consumer_and_no_other(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    first, second = new_queue(), new_queue()
    channel = conn.channel()
    gone, stays_on = take(channel.consume(first, consumer_tag="tag")), channel.consume(second)
    publish(conn, first, 1)
    wait_until(lambda: len(gone.messages) == 1, "it consumes")

    conn.delete_queue(first)
    wait_until(lambda: len(gone.errors) == 1, "it hears")

    assert isinstance(gone.errors[0], shmq.NotFound)
    assert gone.errors[0].name == first
    publish(conn, second, 2)
    assert next(stays_on).body == b"2"
    assert channel.consume(second, consumer_tag="tag").consumer_tag == "tag"


# -- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.rule("CHANNEL-6", "SETTLE-4", "SETTLE-6")
def test_closing_gives_back_what_is_unacked_and_counts_no_failure(conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, *range(5))
    channel, other = conn.channel(), conn.channel()
    channel.prefetch = 2
    consumer = channel.consume(queue)
    held = [next(consumer), next(consumer)]
    assert wait_for(channel, queue).body == b"2"
    kept = wait_for(other, queue)

    channel.close()
    channel.close()

    again = list(conn.get_batch(queue, max_messages=4, max_wait=1))
    assert [message.body for message in again] == [b"0", b"1", b"2", b"4"]
    assert conn.get(queue) is None
    assert all(message.headers == {} for message in again)
    assert [message.redelivered for message in again] == [True, True, True, False]
    with pytest.raises(shmq.PreconditionFailed):
        held[0].ack()
    assert list(consumer) == []
    assert conn.queue_info(queue).consumers == 0
    other.ack(kept.delivery_tag)
    conn.ack_many(again)


@pytest.mark.rule("CHANNEL-6")
def test_a_closed_channel_refuses_everything(conn: shmq.Connection, queue: str) -> None:
    with conn.channel() as channel:
        assert channel.is_open
    assert not channel.is_open

    for call in (
        lambda: channel.get(queue),
        lambda: channel.get_batch(queue),
        lambda: channel.consume(queue),
        lambda: channel.ack(1),
        channel.recover,
        lambda: channel.qos(1),
        lambda: channel.cancel("tag"),
    ):
        with pytest.raises(shmq.ConnectionClosed, match="channel"):
            call()
    publish(conn, queue, 1)
    wait_for(conn, queue).ack()


@pytest.mark.rule("CHANNEL-6")
def test_the_number_and_the_window_of_a_closed_channel_are_free(conn: shmq.Connection, queue: str) -> None:
    channel = conn.channel()
    channel.prefetch = 1
    number = channel.number
    channel.close()
    publish(conn, queue, *range(5))

    again = conn.channel()
    taker = take(again.consume(queue))

    assert (again.number, again.prefetch) == (number, 0)
    wait_until(lambda: len(taker.messages) == 5, "no window")
    taker.stop()


def test_channels_are_bounded(conn: shmq.Connection) -> None:
    channels = [conn.channel() for _ in range(2047)]
    with pytest.raises(shmq.NotAllowed, match="2047"):
        conn.channel()

    channels[7].close()

    assert conn.channel().number == channels[7].number


@pytest.mark.rule("ERROR-1", "CHANNEL-2")
def test_an_error_on_a_channel_leaves_it_and_the_others_as_they_are(conn: shmq.Connection, queue: str) -> None:
    channel, other = conn.channel(), conn.channel()
    consumer = other.consume(queue, prefetch=1)
    with pytest.raises(shmq.NotFound):
        channel.consume("there is none")
    with pytest.raises(shmq.AlreadySettled):
        channel.ack(1)
    publish(conn, queue, 1, 2)

    assert next(consumer).body == b"1"
    assert wait_for(channel, queue).delivery_tag == 1


@pytest.mark.rule("CHANNEL-6")
def test_closing_the_connection_closes_its_channels(connect: Connect, conn: shmq.Connection, queue: str) -> None:
    publish(conn, queue, 1, 2)
    other = connect()
    channel = other.channel()
    channel.get(queue)
    next(channel.consume(queue))

    other.close()

    assert not channel.is_open
    with pytest.raises(shmq.ConnectionClosed):
        channel.ack(1)
    assert ready_bodies(conn, queue) == [b"1", b"2"]
