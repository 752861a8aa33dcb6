"""What becomes of dead messages: where they go, what their headers say, and which way they don't go."""

import time
from datetime import datetime
from typing import Any

import pytest

import shmq
from support.deadline import wait_until
from support.messages import QueueMaker, deaths, ready_bodies, reject, unique, wait_for, wait_until_gone

FIELDS = ("queue", "reason", "exchange")


@pytest.fixture
def dead(new_queue: QueueMaker) -> str:
    """Give a queue for dead letters."""
    return new_queue(max_priority=9)


def summary(message: shmq.Message, which: str) -> tuple[str, ...]:
    return tuple(message.headers[f"x-{which}-death-{field}"] for field in FIELDS)


@pytest.mark.rule("DEATH-3", "DEATH-5")
def test_a_rejected_message_says_where_why_and_when_it_died(
    conn: shmq.Connection, new_queue: QueueMaker, dead: str
) -> None:
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    before = int(time.time())
    conn.publish(b"bad", routing_key=jobs, headers={"mine": 1}, message_id="7", confirm="memory")
    reject(conn, jobs)

    message = wait_for(conn, dead)
    (death,) = message.headers["x-death"]
    assert isinstance(death["time"], datetime)
    assert before <= death.pop("time").timestamp() <= time.time()
    assert death == {"count": 1, "reason": "rejected", "queue": jobs, "exchange": "", "routing-keys": [jobs]}
    assert (message.body, message.exchange, message.routing_key) == (b"bad", "", dead)
    assert (message.headers["mine"], message.message_id) == (1, "7")


@pytest.mark.rule("DEATH-2", "DEATH-4")
def test_the_first_and_the_last_death_are_summed_up(conn: shmq.Connection, new_queue: QueueMaker, dead: str) -> None:
    second = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead, message_ttl=0.02)
    first = new_queue(dead_letter_exchange="", dead_letter_routing_key=second)
    conn.publish(b"bad", routing_key=first, confirm="memory")
    reject(conn, first)

    message = wait_for(conn, dead)
    assert deaths(message) == [(second, "expired", 1), (first, "rejected", 1)]
    assert summary(message, "first") == (first, "rejected", "")
    assert summary(message, "last") == (second, "expired", "")


@pytest.mark.rule("DEATH-2")
def test_who_died_elsewhere_meanwhile_comes_first_again(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    second = new_queue(dead_letter_exchange="amq.direct", dead_letter_routing_key=(key := unique("back")))
    first = new_queue(dead_letter_exchange="", dead_letter_routing_key=second)
    conn.bind_queue(first, "amq.direct", key)
    conn.publish(b"bad", routing_key=first, confirm="memory")
    for queue in (first, second, first):
        reject(conn, queue)

    assert deaths(wait_for(conn, second)) == [(first, "rejected", 2), (second, "rejected", 1)]


@pytest.mark.rule("DEATH-2", "DEATH-3")
def test_the_queue_of_a_round_is_counted_twice(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    jobs = new_queue(dead_letter_exchange="amq.direct", dead_letter_routing_key=(key := unique("again")))
    conn.bind_queue(jobs, "amq.direct", key)
    conn.publish(b"bad", routing_key=jobs, confirm="memory")
    reject(conn, jobs)
    first = wait_for(conn, jobs)
    time_of_first = first.headers["x-death"][0]["time"]
    first.reject()

    second = wait_for(conn, jobs)
    assert deaths(second) == [(jobs, "rejected", 2)]
    assert second.headers["x-death"][0]["time"] == time_of_first
    assert second.headers["x-death"][0]["exchange"] == ""
    assert (second.exchange, second.routing_key) == ("amq.direct", key)
    second.ack()


@pytest.mark.rule("DEATH-5")
def test_without_a_key_of_its_own_the_message_keeps_its_keys(
    conn: shmq.Connection, new_queue: QueueMaker, dead: str
) -> None:
    jobs = new_queue(dead_letter_exchange="amq.direct")
    conn.bind_queue(dead, "amq.direct", jobs)
    conn.publish(b"bad", routing_key=jobs, confirm="memory")
    reject(conn, jobs)

    message = wait_for(conn, dead)
    assert (message.exchange, message.routing_key) == ("amq.direct", jobs)


@pytest.mark.rule("DEATH-1", "DEATH-3")
def test_expiration_is_taken_away_and_told(conn: shmq.Connection, new_queue: QueueMaker, dead: str) -> None:
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"late", routing_key=jobs, expiration=20, confirm="memory")

    message = wait_for(conn, dead)
    (death,) = message.headers["x-death"]
    assert (death["reason"], death["original-expiration"]) == ("expired", "20")
    assert message.expiration is None


@pytest.mark.rule("DEATH-6")
def test_what_a_client_calls_a_death_is_not_interpreted(
    conn: shmq.Connection, new_queue: QueueMaker, dead: str
) -> None:
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    forged: dict[str, Any] = {
        "x-death": [{"queue": jobs, "reason": "rejected", "count": 40}],
        "x-first-death-queue": "nowhere",
        "x-last-death-queue": "nowhere",
    }
    conn.publish(b"bad", routing_key=jobs, headers=forged, confirm="memory")
    reject(conn, jobs)

    message = wait_for(conn, dead)
    assert deaths(message) == [(jobs, "rejected", 1)]
    assert summary(message, "first") == summary(message, "last") == (jobs, "rejected", "")


@pytest.mark.rule("DEATH-6")
def test_what_a_client_publishes_again_with_its_deaths_begins_anew(
    conn: shmq.Connection, new_queue: QueueMaker, dead: str
) -> None:
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"bad", routing_key=jobs, confirm="memory")
    for _ in range(2):
        reject(conn, jobs)
        message = wait_for(conn, dead)
        assert deaths(message) == [(jobs, "rejected", 1)]
        message.ack()
        conn.publish(message.body, routing_key=jobs, headers=message.headers, confirm="memory")
    conn.purge_queue(jobs)


@pytest.mark.rule("DEATH-3", "DEATH-5")
def test_copies_are_told_and_go_with_a_key_of_the_queues_own(
    conn: shmq.Connection, new_queue: QueueMaker, dead: str
) -> None:
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"bad", routing_key=jobs, headers={"CC": ["nowhere"]}, confirm="memory")
    reject(conn, jobs)

    message = wait_for(conn, dead)
    assert message.headers["x-death"][0]["routing-keys"] == [jobs, "nowhere"]
    assert "CC" not in message.headers


@pytest.mark.rule("DEATH-5")
def test_copies_stay_where_the_keys_stay(conn: shmq.Connection, new_queue: QueueMaker, dead: str) -> None:
    jobs = new_queue(dead_letter_exchange="amq.direct")
    conn.bind_queue(dead, "amq.direct", f"copy of {jobs}")
    conn.publish(b"bad", routing_key=jobs, headers={"CC": [f"copy of {jobs}"]}, confirm="memory")
    reject(conn, jobs)

    message = wait_for(conn, dead)
    assert message.headers["CC"] == [f"copy of {jobs}"]


@pytest.mark.rule("DEATH-10")
def test_a_dead_letter_has_the_priority_it_was_published_with(
    conn: shmq.Connection, new_queue: QueueMaker, dead: str
) -> None:
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)  # no levels
    for priority in (2, 7, 5):
        conn.publish(bytes([priority]), routing_key=jobs, priority=priority, confirm="memory")
    for message in [wait_for(conn, jobs) for _ in range(3)]:
        message.reject()
    wait_until(lambda: conn.queue_info(dead).messages == 3, "three dead letters")

    assert [wait_for(conn, dead).body[0] for _ in range(3)] == [7, 5, 2]


@pytest.mark.rule("DEATH-7")
def test_a_cycle_without_a_rejection_ends(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    jobs = new_queue(message_ttl=0.01, dead_letter_exchange="amq.direct")
    conn.bind_queue(jobs, "amq.direct", jobs)
    conn.publish(b"round", routing_key=jobs, confirm="memory")

    wait_until_gone(conn, jobs)
    assert conn.queue_info(jobs).totals["published"] == 1


@pytest.mark.rule("DEATH-7")
def test_the_other_targets_of_a_cycle_get_theirs(conn: shmq.Connection, new_queue: QueueMaker, dead: str) -> None:
    jobs = new_queue(message_ttl=0.01, dead_letter_exchange="amq.direct")
    conn.bind_queue(jobs, "amq.direct", jobs)
    conn.bind_queue(dead, "amq.direct", jobs)
    conn.publish(b"round", routing_key=jobs, confirm="memory")

    assert deaths(wait_for(conn, dead)) == [(jobs, "expired", 1)]
    wait_until_gone(conn, jobs)


@pytest.mark.rule("DEATH-7")
def test_a_rejection_on_the_way_allows_the_round(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    retry = new_queue(
        message_ttl=0.01, dead_letter_exchange="amq.direct", dead_letter_routing_key=(key := unique("jobs"))
    )
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=retry)
    conn.bind_queue(jobs, "amq.direct", key)
    conn.publish(b"job", routing_key=jobs, confirm="memory")
    for _ in range(3):
        reject(conn, jobs)

    assert deaths(wait_for(conn, jobs)) == [(retry, "expired", 3), (jobs, "rejected", 3)]


@pytest.mark.rule("DEATH-8")
def test_what_is_purged_or_deleted_is_not_dead(conn: shmq.Connection, new_queue: QueueMaker, dead: str) -> None:
    jobs = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"purged", routing_key=jobs, confirm="memory")
    conn.purge_queue(jobs)
    conn.publish(b"deleted", routing_key=jobs, confirm="memory")
    conn.delete_queue(jobs)

    assert conn.get(dead, timeout=0.3) is None


@pytest.mark.rule("DEATH-9")
def test_without_its_exchange_a_dead_letter_is_dropped_and_counted(
    conn: shmq.Connection, new_queue: QueueMaker
) -> None:
    jobs = new_queue(dead_letter_exchange="nowhere to be found")
    dropped = conn.status().totals.get("supervisor_dead_dropped", 0)
    conn.publish(b"bad", routing_key=jobs, confirm="memory")
    reject(conn, jobs)

    wait_until_gone(conn, jobs)
    wait_until(lambda: conn.status().totals.get("supervisor_dead_dropped", 0) > dropped, "it is counted")


@pytest.mark.rule("DEATH-1", "DEATH-8")
def test_what_died_before_its_queue_was_deleted_is_dead_lettered(conn: shmq.Connection, new_queue: QueueMaker) -> None:
    dead = new_queue()
    for number in range(20):
        queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
        conn.publish(b"%d" % number, routing_key=queue, confirm="memory")
        wait_for(conn, queue).reject()
        conn.delete_queue(queue)

    wait_until(lambda: conn.queue_info(dead).messages == 20, "all are there")
    assert set(ready_bodies(conn, dead)) == {b"%d" % number for number in range(20)}  # of 20 queues, in any order
