"""Any daemon process may be killed at any time: it is back within a second, and nothing is lost or comes twice."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd, instance

BACK_SECONDS = 1.0
CHILDREN = ("broker", "supervisor")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running, running.connect() as connection:
        connection.declare_queue("dead")
        connection.declare_queue("jobs", capacity_messages=128, dead_letter_exchange="", dead_letter_routing_key="dead")
        yield running


def kill_and_wait(daemon: Shmqd, role: str) -> float:
    """Kill a child and wait until another one serves in its place. Returns the seconds that took."""
    before = daemon.child(role)
    os.kill(before, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return daemon.child(role) != before
        except (shmq.ShmqError, StopIteration):
            return False

    return wait_until(is_back, f"{role} is back")


@pytest.mark.parametrize("role", CHILDREN)
def test_a_killed_child_is_back_within_a_second_time_after_time(daemon: Shmqd, role: str) -> None:
    times = [kill_and_wait(daemon, role) for _ in range(10)]

    assert max(times) <= BACK_SECONDS


@pytest.mark.parametrize("role", CHILDREN)
@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_messages_and_queues_survive_a_killed_child(daemon: Shmqd, role: str, mode: str) -> None:
    with daemon.connect(mode) as connection:
        for number in range(100):
            connection.publish(b"%d" % number, routing_key="jobs")
        kill_and_wait(daemon, role)
        bodies = [take(connection) for _ in range(100)]

        assert bodies == [b"%d" % number for number in range(100)]
        assert connection.get("jobs", timeout=0) is None


def take(connection: shmq.Connection) -> bytes:
    message = connection.get("jobs", timeout=5)
    assert message is not None
    message.ack()
    return message.body


def test_a_direct_consumer_keeps_what_it_has_when_the_broker_dies(daemon: Shmqd) -> None:
    with daemon.connect("direct") as connection:
        connection.publish(b"held", routing_key="jobs")
        message = connection.get("jobs", timeout=1)
        assert message is not None
        kill_and_wait(daemon, "broker")
        message.ack()

        assert connection.queue_info("jobs").totals["acked"] == 1
        assert connection.get("jobs", timeout=0.1) is None


def test_what_a_socket_consumer_had_comes_back_uncounted_when_the_broker_dies(daemon: Shmqd) -> None:
    with daemon.connect("socket") as connection:
        connection.publish(b"held", routing_key="jobs")
        assert connection.get("jobs", timeout=1) is not None
        kill_and_wait(daemon, "broker")
        message = connection.get("jobs", timeout=5)

        assert message is not None
        assert message.redelivered
        message.ack()


def test_all_killed_at_once_and_a_waiting_consumer_gets_what_is_published_after(daemon: Shmqd) -> None:
    with daemon.connect() as connection:
        got: list[bytes] = []
        waiter = threading.Thread(target=lambda: got.append(take_within(connection, 20)))
        waiter.start()
        wait_until(waiter.is_alive, "the consumer waits")
        daemon.kill_all()
        daemon.start()
        started = time.monotonic()
        with daemon.connect() as other:
            other.publish(b"after", routing_key="jobs")
        waiter.join(scaled(10))

        assert got == [b"after"]
        assert time.monotonic() - started <= 1.0


HEARD_SECONDS = 2.0  # the supervisor comes round four times a second


@pytest.fixture(params=["broker", "all"])
def long_job(request: pytest.FixtureRequest, daemon: Shmqd) -> Iterator[shmq.Message]:
    """A message in the hands of who has noticed no new broker, and has the bells of the old one."""
    with daemon.connect("direct") as worker:
        worker.publish(b"long", routing_key="jobs")
        message = worker.get("jobs", timeout=1)
        assert message is not None
        if request.param == "all":
            daemon.kill_all()
            daemon.start()
        else:
            kill_and_wait(daemon, request.param)
        yield message


def test_who_waits_at_the_new_broker_for_room_is_told_of_an_ack_of_before(
    daemon: Shmqd, long_job: shmq.Message
) -> None:
    with daemon.connect("socket") as connection:
        for _ in range(connection.queue_info("jobs").totals["capacity"] - 1):
            connection.publish(b"fills", routing_key="jobs")
        connection.publish(b"too many", routing_key="jobs")
        connection.queue_info("jobs")  # answered behind the publish, so the broker waits for room
        long_job.ack()

        connection.wait_for_confirms(timeout=scaled(HEARD_SECONDS))


def test_who_waits_at_the_new_broker_for_messages_is_told_of_a_nack_of_before(
    daemon: Shmqd, long_job: shmq.Message
) -> None:
    with daemon.connect("socket") as connection:
        came: list[bytes] = []
        consumer = connection.consume("jobs")
        waiter = threading.Thread(target=lambda: came.append(next(consumer).body))
        waiter.start()
        connection.queue_info("jobs")  # answered behind Consume
        long_job.nack()
        waiter.join(scaled(HEARD_SECONDS))

        assert came == [b"long"]
        consumer.cancel()


def test_what_is_put_off_with_bells_of_before_comes_when_it_is_due(daemon: Shmqd, long_job: shmq.Message) -> None:
    with daemon.connect("socket") as connection:
        long_job.nack(delay=0.05)

        assert connection.get("jobs", timeout=scaled(HEARD_SECONDS)) is not None


def test_what_is_refused_with_bells_of_before_is_dead_lettered(daemon: Shmqd, long_job: shmq.Message) -> None:
    with daemon.connect("socket") as connection:
        long_job.reject()

        assert connection.get("dead", timeout=scaled(HEARD_SECONDS)) is not None


def take_within(connection: shmq.Connection, seconds: float) -> bytes:
    message = connection.get("jobs", timeout=seconds)
    assert message is not None
    message.ack()
    return message.body


def dies_holding(daemon: Shmqd, before_death: str = "") -> None:
    """A consumer takes a message and is killed; before that, a daemon process is."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with daemon.connect() as connection:
            message = connection.get("jobs", timeout=5)
            os.write(write, b"1" if message is not None else b"0")
            signal.pause()
        os._exit(0)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)
    if before_death:
        os.kill(daemon.child(before_death), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("role", ["", *CHILDREN])
def test_what_a_dead_consumer_held_comes_back_counted_even_if_a_child_died_with_it(daemon: Shmqd, role: str) -> None:
    with daemon.connect() as connection:
        connection.publish(b"again", routing_key="jobs")
    dies_holding(daemon, role)
    with daemon.connect() as connection:
        message = connection.get("jobs", timeout=5)

        assert message is not None
        assert (message.redelivered, message.delivery_count) == (True, 2)
        message.ack()


def test_redelivery_after_a_kill_takes_at_most_ten_milliseconds(daemon: Shmqd) -> None:
    times = []
    with daemon.connect() as connection:
        for _ in range(20):
            connection.publish(b"again", routing_key="jobs")
            dies_holding(daemon)
            started = time.monotonic()
            message = connection.get("jobs", timeout=5)
            times.append(time.monotonic() - started)
            assert message is not None
            message.ack()

    assert sorted(times)[-2] <= 0.010


def test_an_exclusive_queue_goes_at_once_with_its_dead_owner(daemon: Shmqd) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with daemon.connect() as connection:
            connection.declare_queue("mine", exclusive=True)
            os.write(write, b"1")
            signal.pause()
        os._exit(0)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    with daemon.connect() as connection:
        with pytest.raises(shmq.ResourceLocked):
            connection.queue_info("mine")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

        wait_until(lambda: is_missing(connection, "mine"), "the queue is gone", 1.0)


def is_missing(connection: shmq.Connection, queue: str) -> bool:
    try:
        connection.queue_info(queue)
    except shmq.NotFound:
        return True
    except shmq.ResourceLocked:
        return False
    return False


def test_dead_letters_of_a_killed_supervisor_arrive(daemon: Shmqd) -> None:
    with daemon.connect() as connection:
        connection.declare_queue("dead")
        connection.declare_queue("work", dead_letter_exchange="", dead_letter_routing_key="dead")
        supervisor = daemon.child("supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        for number in range(50):
            connection.publish(b"%d" % number, routing_key="work")
            message = connection.get("work", timeout=1)
            assert message is not None
            message.reject()
        os.kill(supervisor, signal.SIGKILL)
        bodies = set()
        while (message := connection.get("dead", timeout=1)) is not None:
            bodies.add(message.body)
            message.ack()

        assert bodies == {b"%d" % number for number in range(50)}
