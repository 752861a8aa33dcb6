"""Above the memory watermark publishers to queues with more than their fair share wait; consumers and others go on."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.messages import QueueMaker, unique
from support.shmqd import instance

Connect = Callable[[], shmq.Connection]
MARK = 4_000_000
BODY = bytes(50_000)
WAIT = 20.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a broker with a low mark."""
    folder = tmp_path_factory.mktemp("watermark")
    settings = folder / "shmqd.toml"
    settings.write_text(f"memory_watermark_bytes = {MARK}\n")
    with instance(folder, "--config", str(settings)) as daemon:
        yield daemon.url


def is_stopped(conn: shmq.Connection, queue: str) -> bool:
    """Publish once more: whether that is refused because the queue may not grow."""
    try:
        conn.publish(BODY, routing_key=queue, confirm="memory", timeout=0)
    except shmq.QueueStopped:
        return True
    return False


def fill(conn: shmq.Connection, queue: str) -> None:
    """Publish until the queue may not grow."""
    wait_until(lambda: is_stopped(conn, queue), "the queue may not grow", WAIT)


def consume_all(conn: shmq.Connection, queue: str) -> int:
    count = 0
    while messages := conn.get_batch(queue, max_messages=100):
        conn.ack_many(messages)
        count += len(messages)
    return count


@pytest.fixture
def greedy(conn: shmq.Connection, new_queue: QueueMaker) -> str:
    """Give a queue that may not grow."""
    queue = new_queue()
    fill(conn, queue)
    return queue


@pytest.mark.rule("ALARM-1")
def test_a_publisher_that_does_not_wait_is_told_why(conn: shmq.Connection, greedy: str) -> None:
    with pytest.raises(shmq.QueueStopped) as raised:
        conn.publish(BODY, routing_key=greedy, confirm="memory", timeout=0)

    error = raised.value
    assert (error.queue, error.mark, error.unit, error.timeout) == (greedy, MARK, "bytes", 0)
    assert error.depth > error.limit > 0
    assert "Consume, purge, delete queues" in str(error)


@pytest.mark.rule("ALARM-1")
def test_one_that_waits_is_told_at_its_deadline(conn: shmq.Connection, greedy: str) -> None:
    with pytest.raises(shmq.QueueStopped, match=r"may not grow after 0\.2 s"):
        conn.publish(BODY, routing_key=greedy, confirm="memory", timeout=0.2)


@pytest.mark.rule("ALARM-1")
def test_who_catches_a_full_queue_catches_this_too(conn: shmq.Connection, greedy: str) -> None:
    with pytest.raises(shmq.QueueFull):
        conn.publish(BODY, routing_key=greedy, confirm="memory", timeout=0)


@pytest.mark.rule("ALARM-1")
def test_others_and_consumers_go_on(conn: shmq.Connection, greedy: str, queue: str) -> None:
    for number in range(200):
        conn.publish(b"%d" % number, routing_key=queue, confirm="memory", timeout=0)
        message = conn.get(queue, timeout=scaled(WAIT))
        assert message is not None
        assert message.body == b"%d" % number
        message.ack()

    message = conn.get(greedy)
    assert message is not None
    message.nack()
    assert consume_all(conn, greedy) > 10


@pytest.mark.rule("ALARM-2")
def test_a_consumer_makes_room(connect: Connect, conn: shmq.Connection, greedy: str) -> None:
    before = conn.queue_info(greedy)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(connect().publish, BODY, routing_key=greedy, confirm="memory", timeout=scaled(WAIT))
        wait_until(lambda: conn.queue_info(greedy).totals["stopped"] > before.totals["stopped"], "it waits", WAIT)
        assert not waiting.done()
        assert consume_all(conn, greedy) > 10
        waiting.result(scaled(WAIT))


@pytest.mark.rule("ALARM-2")
def test_who_waits_goes_on_when_others_leave_enough(
    connect: Connect, conn: shmq.Connection, greedy: str, new_queue: QueueMaker
) -> None:
    """Its own queue has no room all the time: it is allowed to grow."""
    other = new_queue()
    fill(conn, other)
    before = conn.queue_info(other)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(connect().publish, BODY, routing_key=other, confirm="memory", timeout=scaled(WAIT))
        wait_until(lambda: conn.queue_info(other).totals["stopped"] > before.totals["stopped"], "it waits", WAIT)
        conn.delete_queue(greedy)
        waiting.result(scaled(WAIT))

    assert conn.queue_info(other).messages == before.messages + 1


@pytest.mark.rule("ALARM-1", "PUBLISH-7")
def test_a_queue_that_may_not_grow_keeps_nothing_from_the_others(
    conn: shmq.Connection, greedy: str, queue: str
) -> None:
    exchange = unique("fanout")
    conn.declare_exchange(exchange, "fanout", auto_delete=True)
    for name in (greedy, queue):
        conn.bind_queue(name, exchange)
    with pytest.raises(shmq.QueueStopped) as raised:
        conn.publish(BODY, exchange=exchange, confirm="memory", timeout=0.1)

    assert raised.value.queue == greedy
    assert conn.queue_info(queue).messages == 1


@pytest.mark.rule("ALARM-1")
def test_batches_and_loans_wait_too(conn: shmq.Connection, greedy: str) -> None:
    with pytest.raises(shmq.QueueStopped):
        conn.publish_many([BODY] * 100, routing_key=greedy, confirm="memory", timeout=0)
    with pytest.raises(shmq.QueueStopped), conn.loan(len(BODY), routing_key=greedy, confirm="memory", timeout=0):
        pass


@pytest.mark.rule("ALARM-3")
def test_connections_are_told_once_that_publishers_wait_and_that_they_go_on(
    connect: Connect, conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    watcher, queue = connect(), new_queue()
    wait_until(lambda: not watcher.blocked, "what was before is over", WAIT)
    fill(conn, queue)
    wait_until(lambda: bool(watcher.blocked), "it is told", WAIT)
    reason = watcher.blocked
    assert "their mark is 3.8 MiB" in reason
    assert queue not in reason, "not everybody may know of it"
    other = new_queue()
    fill(conn, other)
    later = connect()
    wait_until(lambda: later.blocked == watcher.blocked == reason, "who comes later is told the same", WAIT)
    kinds = {alarm.kind: alarm.text for alarm in conn.status().alarms}
    assert kinds["memory-watermark"] == reason
    assert "its fair share is" in kinds["queue-stopped"]

    for name in (queue, other):
        conn.delete_queue(name)
    wait_until(lambda: watcher.blocked == later.blocked == "", "it is over", WAIT)
    wait_until(lambda: not conn.status().alarms, "nothing stands", WAIT)


@pytest.mark.rule("ALARM-2")
def test_memory_that_was_given_back_lets_publishers_go_on(conn: shmq.Connection, greedy: str) -> None:
    consume_all(conn, greedy)
    wait_until(lambda: conn.queue_info(greedy).totals["share_bytes"] == 0, "it may grow again", WAIT)

    conn.publish_many([BODY] * 20, routing_key=greedy, confirm="memory", timeout=0)
