"""wait and the bells: who sleeps is woken, by messages, room, signals, other descriptors, and by a close."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shmq import core
from shmq.errors import DetachedQueue
from support.deadline import scaled, wait_until
from support.segments import SMALL, Segment, child, segment

LONG_NS = int(scaled(20) * 1e9)
MS = 1_000_000


def state_of(thread: int) -> str:
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def once_asleep(work: Callable[[], object]) -> Iterator[None]:
    """Run `work` in another thread when this one sleeps."""
    main = threading.get_native_id()

    def run() -> None:
        wait_until(lambda: state_of(main) == "S", "the main thread sleeps")
        work()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


def test_time_is_up() -> None:
    with segment() as made:
        start = time.monotonic_ns()

        assert core.wait([made.attach(32)], core.CONSUMERS, 3 * MS) == core.TIMEOUT
        assert time.monotonic_ns() - start >= 3 * MS
        assert core.wait([], core.CONSUMERS, 0) == core.TIMEOUT


def test_what_is_there_is_seen_without_sleeping(queue: core.Queue) -> None:
    queue.publish(b"")

    assert core.wait([queue], core.CONSUMERS, LONG_NS) == core.LOOK
    assert queue.may_have(core.CONSUMERS)


def test_a_publish_wakes_a_consumer(small: Segment, queue: core.Queue) -> None:
    producer = small.attach(33)
    with once_asleep(lambda: producer.publish(b"hello")):
        assert core.wait([queue], core.CONSUMERS, LONG_NS) == core.LOOK

    assert [m.body for m in queue.take_many(9)] == [b"hello"]


def test_an_ack_wakes_a_blocked_producer(small: Segment, queue: core.Queue) -> None:
    assert queue.publish_many([b""] * 99) == (64, core.FULL)
    assert core.wait([queue], core.PRODUCERS, MS) == core.TIMEOUT
    message = small.attach(33).take()
    assert message is not None

    with once_asleep(message.ack):
        assert core.wait([queue], core.PRODUCERS, LONG_NS) == core.LOOK

    assert queue.publish(b"") == core.OK


@pytest.mark.parametrize("number", [2, 256, 257, 300])
def test_many_queues_are_waited_for_together(number: int) -> None:
    with segment() as made, segment() as quiet:
        queues = [quiet.attach(32) for _ in range(3)] * (number // 3) + [made.attach(32)]
        producer = made.attach(33)
        with once_asleep(lambda: producer.publish(b"")):
            assert core.wait(queues, core.CONSUMERS, LONG_NS) == core.LOOK
        assert core.wait(queues[:-1], core.CONSUMERS, 0) == core.TIMEOUT


def test_who_waits_at_several_queues_passes_on_a_token() -> None:
    """It may take from the first queue, while others sleep at the second one, beside its message."""
    with segment() as first, segment() as second:
        sleeper, queues = second.attach(33), [first.attach(32), second.attach(32)]
        sleeper.bell_register(core.CONSUMERS)
        with once_asleep(lambda: second.attach(34).publish(b"")):
            assert core.wait(queues, core.CONSUMERS, LONG_NS) == core.LOOK

        assert sleeper.bell_token(core.CONSUMERS)
        assert not sleeper.bell_token(core.CONSUMERS)


def test_another_descriptor_wakes(queue: core.Queue) -> None:
    reader, writer = os.pipe()
    with once_asleep(lambda: os.close(writer)):
        assert core.wait([queue], core.CONSUMERS, LONG_NS, reader) == core.OTHER

    assert core.wait([queue], core.CONSUMERS, LONG_NS, reader) == core.OTHER
    queue.publish(b"")
    assert core.wait([queue], core.CONSUMERS, LONG_NS, other_fd=reader) == core.LOOK
    os.close(reader)


def test_a_signal_handler_runs_and_the_wait_goes_on(queue: core.Queue) -> None:
    ran: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: ran.append(number))
    try:
        with once_asleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            assert core.wait([queue], core.CONSUMERS, 200 * MS) == core.TIMEOUT
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert ran == [signal.SIGUSR1]


def test_control_c_ends_a_wait_at_once() -> None:
    text = f"""
import os
from support.segments import segment
from shmq import core
with segment() as made:
    print("ready", flush=True)
    core.wait([made.attach(32)], core.CONSUMERS, {LONG_NS})
"""
    with subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wchan = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: wchan.read_text().rpartition(")")[2].split()[0] == "S", "the child sleeps")
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=scaled(10))

    assert process.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in errors
    assert time.monotonic() - start < scaled(2)


def test_a_signal_that_raises_leaves_no_registration(small: Segment, queue: core.Queue) -> None:
    def fail(_number: int, _frame: object) -> None:
        raise ZeroDivisionError

    before = signal.signal(signal.SIGUSR1, fail)
    try:
        with pytest.raises(ZeroDivisionError), once_asleep(lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            core.wait([queue], core.CONSUMERS, LONG_NS)
    finally:
        signal.signal(signal.SIGUSR1, before)
    queue.publish(b"")

    with pytest.raises(BlockingIOError):
        os.eventfd_read(small.bells[core.CONSUMERS])


def exchange(mine: core.Queue, theirs: core.Queue, *, first: bool) -> None:
    """Pass one message to and fro 500 times between two processes; each sleeps until it has it."""
    if first:
        theirs.publish(b"0")
    for _ in range(500):
        while (message := mine.take()) is None:
            assert core.wait([mine], core.CONSUMERS, LONG_NS) == core.LOOK
        message.ack()
        theirs.publish(b"%d" % (int(message.body) + 1))


def test_bells_ring_between_processes() -> None:
    with segment() as one, segment() as two:
        start = time.monotonic_ns()
        with child(lambda: exchange(two.attach(33), one.attach(33), first=False)):
            exchange(one.attach(32), two.attach(32), first=True)

        assert time.monotonic_ns() - start < LONG_NS
        assert [m.body for m in two.attach(34).take_many(9)] == [b"1000"]


def test_a_sleeper_in_another_process_is_woken(small: Segment, queue: core.Queue) -> None:
    def sleep_and_ack() -> None:
        mine = small.attach(33)
        assert core.wait([mine], core.CONSUMERS, LONG_NS) == core.LOOK
        message = mine.take()
        assert message is not None
        message.ack()

    with child(sleep_and_ack) as pid:
        stat = Path(f"/proc/{pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "the child sleeps")
        queue.publish(b"")
    assert queue.stats()["acked"] == 1


def test_a_close_in_another_thread_wakes_the_sleeper(small: Segment, queue: core.Queue) -> None:
    start = time.monotonic()
    with once_asleep(queue.close), pytest.raises(DetachedQueue):
        core.wait([queue], core.CONSUMERS, LONG_NS)

    assert time.monotonic() - start < scaled(5)
    producer = small.attach(33)
    os.eventfd_read(small.bells[core.CONSUMERS])  # the token that woke it
    producer.publish(b"")
    with pytest.raises(BlockingIOError):
        os.eventfd_read(small.bells[core.CONSUMERS])


def test_new_bells_reach_a_sleeper(small: Segment, queue: core.Queue) -> None:
    new = (os.eventfd(0, 0x800 | 1), os.eventfd(0, 0x800 | 1), -1)
    other = small.attach(33)
    other.set_bells((os.dup(new[0]), os.dup(new[1]), -1), 5)
    other.set_epoch(5)
    assert queue.bells_stale

    def change() -> None:
        queue.set_bells(new, 5)
        other.publish(b"")

    with once_asleep(change):
        assert core.wait([queue], core.CONSUMERS, LONG_NS) == core.LOOK

    assert not queue.bells_stale


@pytest.mark.parametrize("ends", ["new bells", "close"])
def test_the_sleepers_at_the_bells_of_an_earlier_broker_are_woken_and_leave_nothing_behind(
    small: Segment, queue: core.Queue, ends: str
) -> None:
    broker = small.attach(1)
    broker.set_bells(eventfds(), 5)
    broker.set_epoch(5)
    begun = threading.Barrier(4)
    woken: list[float] = []

    def sleep() -> None:
        begun.wait()
        with contextlib.suppress(DetachedQueue):
            core.wait([queue], core.CONSUMERS, LONG_NS, silent)
        woken.append(time.monotonic())

    silent = os.eventfd(0)
    sleepers = [threading.Thread(target=sleep) for _ in range(3)]
    for sleeper in sleepers:
        sleeper.start()
    begun.wait()
    wait_until(lambda: all(state_of(one.native_id or 0) == "S" for one in sleepers), "all sleep")
    start = time.monotonic()
    queue.set_bells(eventfds(), 5) if ends == "new bells" else queue.close()
    if ends == "new bells":
        os.eventfd_write(silent, 1)
    for sleeper in sleepers:
        sleeper.join()
    os.close(silent)

    assert max(woken) - start < scaled(5)
    broker.publish(b"")
    assert not broker.bell_token(core.CONSUMERS), "nobody is registered any more"


def eventfds() -> tuple[int, int, int]:
    flags = os.EFD_NONBLOCK | os.EFD_SEMAPHORE
    return os.eventfd(0, flags), os.eventfd(0, flags), -1


def test_a_deleted_queue_wakes_everybody(small: Segment, queue: core.Queue) -> None:
    broker = small.attach(1)
    with once_asleep(broker.mark_deleted):
        assert core.wait([queue], core.CONSUMERS, LONG_NS) == core.LOOK


def test_bells_by_hand_as_an_event_loop_uses_them(small: Segment, queue: core.Queue) -> None:
    producer = small.attach(33)
    queue.bell_register(core.CONSUMERS)
    assert not queue.may_have(core.CONSUMERS)
    assert not queue.bell_token(core.CONSUMERS)
    producer.publish(b"")

    assert queue.bell_token(core.CONSUMERS)

    queue.bell_register(core.CONSUMERS)
    queue.bell_leave(core.CONSUMERS)
    producer.publish(b"")
    assert not queue.bell_token(core.CONSUMERS)


def test_tokens_are_given_to_who_is_registered(small: Segment, queue: core.Queue) -> None:
    supervisor = small.attach(16)
    for _ in range(3):
        queue.bell_register(core.CONSUMERS)

    supervisor.bell_ring(core.CONSUMERS)
    supervisor.bell_ring(core.CONSUMERS, 1 << 40)

    assert [queue.bell_token(core.CONSUMERS) for _ in range(4)] == [True, True, True, False]


def test_a_queue_without_bells_is_looked_at_and_waited_out(small: Segment) -> None:
    bare = core.Queue(os.dup(small.fd), SMALL, 40, queue_id=7)

    assert core.wait([bare], core.CONSUMERS, MS) == core.TIMEOUT
    small.attach(33).publish(b"")
    assert core.wait([bare], core.CONSUMERS, MS) == core.LOOK
    bare.close()


@pytest.mark.parametrize(
    ("queues", "side", "timeout_ns"), [([None], 0, 0), (None, 0, 0), ([], 2, 0), ([], -1, 0), ([], 0, -1)]
)
def test_arguments_out_of_range_are_refused(queues: list[core.Queue], side: int, timeout_ns: int) -> None:
    with pytest.raises((TypeError, ValueError)):
        core.wait(queues, side, timeout_ns)


def test_eight_threads_share_one_handle(queue: core.Queue) -> None:
    left = list(range(4000))
    seen: list[bytes] = []

    def produce() -> None:
        while left:
            try:
                body = b"%d" % left.pop()
            except IndexError:
                return
            while queue.publish(body) == core.FULL:
                core.wait([queue], core.PRODUCERS, 50 * MS)

    def consume() -> None:
        while len(seen) < 4000:
            if message := queue.take():
                seen.append(message.body)
                message.ack()
            else:
                core.wait([queue], core.CONSUMERS, 50 * MS)

    threads = [threading.Thread(target=work) for work in (produce, consume) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, seen)) == list(range(4000))
    assert queue.check() == []
