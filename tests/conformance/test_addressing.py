"""Where one message goes: headers that address it, several queues, delays, dead letters, routes that change."""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import ready_bodies
from support.routed import bodies, publish

QueueMaker = Callable[..., str]
ExchangeMaker = Callable[..., str]


# -- CC, BCC, mandatory -----------------------------------------------------------------------------------------------


@pytest.mark.rule("ROUTE-15")
@pytest.mark.parametrize("kind", ["", "direct", "topic"])
def test_cc_and_bcc_are_routed_as_the_key_and_bcc_does_not_arrive(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker, kind: str
) -> None:
    queues = [new_queue() for _ in range(4)]
    exchange = new_exchange(kind) if kind else ""
    for queue in queues if exchange else ():
        conn.bind_queue(queue, exchange, queue)
    headers = {"CC": [queues[1], "nobody"], "BCC": [queues[2]], "mine": 1}

    publish(conn, exchange, queues[0], headers=headers)

    for queue in queues[:3]:
        message = conn.get(queue, no_ack=True)
        assert message is not None
        assert message.headers == {"CC": [queues[1], "nobody"], "mine": 1}
        assert (message.exchange, message.routing_key) == (exchange, queues[0])
    assert conn.get(queues[3]) is None
    conn.publish_many([b"1", b"2"], exchange=exchange, routing_key="nobody", headers=headers, confirm="memory")
    assert bodies(conn, queues[2]) == [b"1", b"2"]


@pytest.mark.rule("ROUTE-15", "ERROR-3")
@pytest.mark.parametrize("header", ["CC", "BCC"])
@pytest.mark.parametrize("value", ["key", {"a": 1}, 5, [5]])
def test_a_cc_that_is_no_array_of_strings_is_refused(
    conn: shmq.Connection, queue: str, header: str, value: object
) -> None:
    with pytest.raises(shmq.InvalidArgument, match=header):
        publish(conn, "", queue, headers={header: value})

    assert conn.get(queue) is None


@pytest.mark.rule("ROUTE-16")
def test_a_mandatory_message_that_no_queue_gets_is_told_before_the_confirm(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    exchange = new_exchange("topic")
    conn.bind_queue(queue, exchange, "a.*")
    with pytest.raises(shmq.Unroutable) as caught:
        publish(conn, exchange, "b", mandatory=True)

    assert (caught.value.exchange, caught.value.routing_key) == (exchange, "b")
    publish(conn, exchange, "b")
    publish(conn, exchange, "b", mandatory=True, headers={"BCC": ["a.b"]})
    assert len(bodies(conn, queue)) == 1


@pytest.mark.rule("PUBLISH-7")
def test_a_full_queue_keeps_nothing_from_the_others(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    small, roomy = new_queue(capacity_messages=16), new_queue()
    exchange = new_exchange("fanout")
    for queue in (small, roomy):
        conn.bind_queue(queue, exchange)
    with pytest.raises(shmq.QueueFull, match=small):
        conn.publish_many([b"x"] * 40, exchange=exchange, confirm="memory", timeout=0)
    before = conn.queue_info(roomy).messages
    with pytest.raises(shmq.QueueFull, match=small):
        publish(conn, exchange, timeout=0.2)

    assert conn.queue_info(roomy).messages == before + 1
    assert conn.queue_info(small).messages < before


@pytest.mark.rule("PUBLISH-7")
def test_a_publish_that_waits_for_one_queue_goes_on_when_that_is_deleted(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    small, roomy = new_queue(capacity_messages=16), new_queue()
    exchange = new_exchange("fanout")
    for queue in (small, roomy):
        conn.bind_queue(queue, exchange)
    with pytest.raises(shmq.QueueFull):
        conn.publish_many([b"x"] * 40, exchange=exchange, confirm="memory", timeout=0)
    conn.purge_queue(roomy)
    other = connect()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(publish, other, exchange, "k", b"waits", mandatory=True, timeout=20)
        wait_until(lambda: conn.queue_info(roomy).messages == 1, "the other queue has it")
        conn.delete_queue(small)
        waiting.result(scaled(10))

    assert bodies(conn, roomy) == [b"waits"]


@pytest.mark.rule("PUBLISH-1", "PUBLISH-3")
def test_a_queue_that_can_never_hold_a_body_keeps_it_from_nobody(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    queues = [new_queue(capacity_bytes=1 << 20), new_queue(), new_queue(capacity_bytes=1 << 20), new_queue()]
    exchange = new_exchange("fanout")
    for queue in queues:
        conn.bind_queue(queue, exchange)
    body = bytes(4 << 20)
    with pytest.raises(shmq.BodyTooLarge, match=queues[0]):
        publish(conn, exchange, "", body)

    assert [bodies(conn, queue) for queue in queues] == [[], [body], [], [body]]


@pytest.mark.rule("PUBLISH-1", "PUBLISH-6")
def test_a_loan_goes_to_every_queue(conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker) -> None:
    exchange, queues = new_exchange("fanout"), [new_queue() for _ in range(3)]
    for queue in queues:
        conn.bind_queue(queue, exchange)
    with conn.loan(5, exchange=exchange) as buffer:
        buffer[:] = b"hello"
    conn.wait_for_confirms()

    assert [bodies(conn, queue) for queue in queues] == [[b"hello"]] * 3


# -- delays -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("DELAY-1", "DELAY-3")
def test_an_exchange_that_delays_routes_after_the_delay_of_the_header(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    exchange = new_exchange("x-delayed-message", delayed_type="topic")
    conn.bind_queue(queue, exchange, "a.*")
    start = time.monotonic()
    publish(conn, exchange, "a.b", b"late", headers={"x-delay": 300})
    publish(conn, exchange, "a.b", b"now")
    publish(conn, exchange, "a.b", b"over", headers={"x-delay": -5})
    publish(conn, exchange, "b", b"nowhere", headers={"x-delay": 1})

    assert bodies(conn, queue) == [b"now", b"over"]
    message = conn.get(queue, timeout=5, no_ack=True)
    assert message is not None
    assert time.monotonic() - start >= 0.3
    assert (message.body, message.headers) == (b"late", {"x-delay": -300})


@pytest.mark.rule("DELAY-1")
def test_a_delay_counts_only_at_an_exchange_that_delays(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    now, later = new_queue(), new_queue()
    first = new_exchange("fanout")
    second = new_exchange("x-delayed-message", delayed_type="fanout")
    conn.bind_exchange(second, first)
    conn.bind_queue(now, first)
    conn.bind_queue(later, second)

    publish(conn, first, headers={"x-delay": 200})

    assert bodies(conn, now) == [b"x"]
    assert conn.get(later) is None
    assert conn.get(later, timeout=5, no_ack=True) is not None


@pytest.mark.rule("DELAY-3")
def test_a_delay_of_many_years_is_taken_and_one_that_is_no_time_is_not(
    conn: shmq.Connection, queue: str, new_exchange: ExchangeMaker
) -> None:
    exchange = new_exchange("x-delayed-message", delayed_type="direct")
    conn.bind_queue(queue, exchange, "k")
    publish(conn, exchange, "k", headers={"x-delay": 1 << 40})
    with pytest.raises(shmq.InvalidArgument, match="x-delay"):
        publish(conn, exchange, "k", headers={"x-delay": "soon"})

    assert conn.queue_info(queue).totals["delayed"] == 1


# -- dead letters, and routes that change -----------------------------------------------------------------------------


@pytest.mark.rule("DEATH-1", "DEATH-5")
@pytest.mark.parametrize(
    ("kind", "binding"), [("topic", {"routing_key": "dead.#"}), ("headers", {"arguments": {"n": 1}})]
)
def test_dead_letters_are_routed_by_the_same_rules(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker, kind: str, binding: dict[str, Any]
) -> None:
    dead, other, exchange = new_queue(), new_queue(), new_exchange(kind)
    conn.bind_queue(dead, exchange, **binding)
    conn.bind_queue(other, exchange, "other", arguments={"n": 2})
    source = new_queue(dead_letter_exchange=exchange, dead_letter_routing_key="dead.letter")
    publish(conn, "", source, headers={"n": 1})
    message = conn.get(source, timeout=1)
    assert message is not None
    message.reject()

    letter = conn.get(dead, timeout=5, no_ack=True)
    assert letter is not None
    assert (letter.exchange, letter.routing_key) == (exchange, "dead.letter")
    assert conn.get(other) is None


@pytest.mark.rule("DEATH-3", "DEATH-5")
@pytest.mark.parametrize("key", [None, "own"])
def test_a_dead_letter_keeps_its_cc_unless_its_queue_has_a_key_for_it_and_never_its_bcc(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker, key: str | None
) -> None:
    exchange = new_exchange("direct")
    queues = {name: new_queue() for name in ("key", "cc", "bcc", "own")}
    for name, queue in queues.items():
        conn.bind_queue(queue, exchange, name)
    source = new_queue(dead_letter_exchange=exchange, dead_letter_routing_key=key)
    conn.bind_queue(source, "amq.direct", "key")
    publish(conn, "amq.direct", "key", headers={"CC": ["cc"], "BCC": ["bcc"]})
    message = conn.get(source, timeout=1)
    assert message is not None
    message.reject()

    letter = conn.get(queues[key or "key"], timeout=5, no_ack=True)
    assert letter is not None
    assert letter.headers["x-death"][0]["routing-keys"] == ["key", "cc"]
    assert letter.headers.get("CC") == (None if key else ["cc"])
    assert [name for name, queue in queues.items() if conn.get(queue, timeout=0.1)] == ([] if key else ["cc"])


@pytest.mark.rule("ROUTE-17")
def test_a_route_follows_every_change_behind_it(
    conn: shmq.Connection, connect: Callable[[], shmq.Connection], new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    queue, other = new_queue(), connect()
    first, second = new_exchange("topic"), new_exchange("headers")
    changes: list[Callable[[], None]] = [
        lambda: other.bind_exchange(second, first, "#"),
        lambda: other.bind_queue(queue, second, arguments={"n": 1}),
        lambda: other.unbind_queue(queue, second, arguments={"n": 1}),
        lambda: other.bind_queue(queue, first, "k.*"),
    ]
    publish(conn, first, "k.1", b"before", headers={"n": 1})
    for number, change in enumerate(changes, 1):
        change()
        publish(conn, first, "k.1", b"%d" % number, headers={"n": 1})

    assert bodies(conn, queue) == [b"2", b"4"]


@pytest.mark.rule("ROUTE-17", "ROUTE-20")
def test_a_name_that_is_used_again_is_another_exchange(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    one, other = new_queue(), new_queue()
    for kind, queue in (("direct", one), ("fanout", other)):
        conn.declare_exchange("again", kind)
        conn.bind_queue(queue, "again", "k")
        publish(conn, "again", "k", kind.encode())
        conn.delete_exchange("again")
    with pytest.raises(shmq.NotFound):
        publish(conn, "again", "k")

    assert (bodies(conn, one), bodies(conn, other)) == ([b"direct"], [b"fanout"])


@pytest.mark.rule("PUBLISH-1", "PUBLISH-5", "PUBLISH-7")
def test_several_bodies_for_several_queues_are_nowhere_twice(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker
) -> None:
    fanout, roomy, small = new_exchange("fanout"), new_queue(), new_queue(capacity_messages=2)
    for queue in (roomy, small):
        conn.bind_queue(queue, fanout)
    room = conn.queue_info(small).capacity_messages
    bodies = [b"%d" % number for number in range(room + 3)]

    with pytest.raises(shmq.QueueFull) as refused:
        conn.publish_many(bodies, exchange=fanout, confirm="memory", timeout=0.1)

    assert refused.value.published == room
    assert f"({room} of {len(bodies)} were published)" in str(refused.value)
    there = ready_bodies(conn, roomy)
    assert there == bodies[: len(there)]
    assert ready_bodies(conn, small) == bodies[:room]


@pytest.mark.rule("QUEUE-14", "PUBLISH-6")
@pytest.mark.parametrize("queues", [1, 3])
def test_a_name_that_is_used_again_while_a_loan_is_written_is_another_queue(
    conn: shmq.Connection, new_queue: QueueMaker, new_exchange: ExchangeMaker, queues: int
) -> None:
    fanout, names = new_exchange("fanout"), [new_queue() for _ in range(queues)]
    for name in names:
        conn.bind_queue(name, fanout)
    with contextlib.suppress(shmq.DetachedQueue), conn.loan(3, exchange=fanout) as buffer:  # the memory of the only one
        buffer[:] = b"abc"
        conn.delete_queue(names[-1])
        conn.declare_queue(names[-1])

    assert [ready_bodies(conn, name) for name in names] == [[b"abc"]] * (queues - 1) + [[]]


@pytest.mark.rule("PUBLISH-1", "PUBLISH-6", "QUEUE-9")
def test_a_queue_that_is_anothers_now_keeps_a_loan_from_no_other(
    connect: Callable[[], shmq.Connection], conn: shmq.Connection, new_queue: QueueMaker, mode: str
) -> None:
    other, names = connect(), [new_queue() for _ in range(3)]

    def publish() -> None:
        with conn.loan(3, routing_key=names[0], headers={"CC": names[1:]}, confirm="memory") as buffer:
            buffer[:] = b"abc"
            conn.delete_queue(names[1])
            other.declare_queue(names[1], exclusive=True)

    if mode == "direct":
        with pytest.raises((shmq.ResourceLocked, shmq.DirectRefused)):
            publish()
    else:
        publish()

    assert [ready_bodies(conn, name) for name in (names[0], names[2])] == [[b"abc"]] * 2
    other.delete_queue(names[1])
