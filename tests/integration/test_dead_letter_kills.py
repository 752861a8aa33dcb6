"""Dead letters while the supervisor is killed again and again: each arrives, at least once, and nothing is left."""

import contextlib
import itertools
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq_daemon.dead_letters import BATCH, STUCK_MAX
from support.deadline import wait_until
from support.messages import deaths, reject
from support.shmqd import Shmqd, instance

MESSAGES = 3000
KILLS = 6
BEHIND = 2 * STUCK_MAX + 1000


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


def supervisor_is_another(daemon: Shmqd, before: int) -> bool:
    try:
        return daemon.child("supervisor") != before
    except StopIteration:
        return False


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that sees nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_dead_letters_arrive_whatever_the_supervisor_dies_of(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("dead")
        conn.declare_queue("also dead")
        conn.declare_exchange("dlx")
        for name in ("dead", "also dead"):
            conn.bind_queue(name, "dlx", "key")
        conn.declare_queue("jobs", dead_letter_exchange="dlx", dead_letter_routing_key="key")
        conn.publish_many([b"%d" % n for n in range(MESSAGES)], routing_key="jobs", confirm="memory")
        share = MESSAGES // KILLS
        for _ in range(KILLS):
            for message in itertools.islice(conn.consume("jobs"), share):
                message.reject()
            before = daemon.child("supervisor")
            daemon.kill("supervisor")
            wait_until(lambda before=before: supervisor_is_another(daemon, before), "another supervisor")  # type: ignore[misc] # binds this turn's value

        wait_until(lambda: not conn.queue_info("jobs").totals["dead_pending"], "all are settled", 20)
        for name in ("dead", "also dead"):
            arrived: Counter[bytes] = Counter()
            while found := conn.get_batch(name, max_messages=1000, max_wait=0.2):
                for message in found:
                    arrived[message.body] += 1
                    assert deaths(message) == [("jobs", "rejected", 1)]
                conn.ack_many(found)
            assert set(arrived) == {b"%d" % n for n in range(MESSAGES)}
            assert arrived.total() < MESSAGES + KILLS * share  # duplicates only of what was under way


def test_no_dead_letter_of_a_whole_daemons_death_is_lost(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("dead")
        conn.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead", message_ttl=0.2)
        conn.publish_many([b"%d" % n for n in range(500)], routing_key="jobs", confirm="memory")

        daemon.kill_all()
        daemon.start()

        wait_until(lambda: conn.queue_info("dead").messages >= 500, "all are dead-lettered", 20)
        assert len({message.body for message in conn.get_batch("dead", max_messages=1000)}) == 500


def test_more_than_are_kept_in_mind_wait_behind_a_full_target(daemon: Shmqd) -> None:
    """The supervisor dies, so the next one finds them by its scan; then somebody makes room."""
    with daemon.connect() as conn:
        conn.declare_queue("dead", capacity_messages=100)
        conn.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead")
        conn.publish_many([b"%d" % n for n in range(BEHIND)], routing_key="jobs", confirm="memory")
        for message in itertools.islice(conn.consume("jobs"), BEHIND):
            message.reject()
        before = daemon.child("supervisor")
        daemon.kill("supervisor")
        wait_until(lambda: supervisor_is_another(daemon, before), "another supervisor")

        arrived: Counter[bytes] = Counter()
        while found := conn.get_batch("dead", max_messages=100, max_wait=1.0):
            arrived.update(message.body for message in found)
            conn.ack_many(found)

        assert len(arrived) == BEHIND
        assert arrived.total() <= BEHIND + BATCH  # what was under way at the death
        assert conn.queue_info("jobs").totals["dead_pending"] == 0


def test_what_died_before_its_queue_was_deleted_arrives_however_late_that_is_seen(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("dead")
        conn.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead")
        bodies = [b"%d" % n for n in range(3 * BATCH + 1)]
        conn.publish_many(bodies, routing_key="jobs", confirm="memory")
        with stopped(daemon.child("supervisor")):
            for message in itertools.islice(conn.consume("jobs"), len(bodies)):
                message.reject()
            conn.delete_queue("jobs")
            conn.declare_queue("jobs")
            brief = conn.declare_queue("", dead_letter_exchange="", dead_letter_routing_key="dead").name
            conn.publish(b"brief", routing_key=brief, confirm="memory")
            reject(conn, brief)
            conn.delete_queue(brief)

        wait_until(lambda: conn.queue_info("dead").messages > len(bodies), "all are there")
        there = [message.body for message in conn.get_batch("dead", max_messages=1000)]
        assert [body for body in there if body != b"brief"] == bodies
        assert "dead letters lost" not in daemon.log.read_text()


def test_what_finds_no_room_when_its_queue_is_deleted_is_lost_and_counted(daemon: Shmqd) -> None:
    with daemon.connect() as conn:
        conn.declare_queue("dead", capacity_messages=1)
        room = conn.queue_info("dead").capacity_messages
        conn.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead")
        conn.publish_many([b"x"] * (room + 5), routing_key="jobs", confirm="memory")
        for message in itertools.islice(conn.consume("jobs"), room + 5):
            message.reject()
        wait_until(lambda: conn.queue_info("jobs").totals["dead_pending"] == 5, "the target is full")
        conn.delete_queue("jobs")

        wait_until(lambda: '"dead letters lost with their queue"' in daemon.log.read_text(), "that is told")
        assert conn.queue_info("dead").messages == room
        assert not conn.status().alarms
