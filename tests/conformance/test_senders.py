"""Who published a message."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

import shmq
from support.deadline import scaled

OURS = shmq.Sender(os.getuid(), os.getgid(), os.getpid())
PUBLISHES = """
import os, sys, shmq
url, mode, queue = sys.argv[1:]
with shmq.connect(url, mode=mode) as conn:
    conn.publish(b"theirs", routing_key=queue, confirm="memory")
print(os.getpid())
"""


def senders(conn: shmq.Connection, queue: str) -> list[shmq.Sender | None]:
    return [message.sender for message in conn.get_batch(queue, no_ack=True)]


@pytest.mark.rule("PUBLISH-10")
def test_a_message_says_who_published_it(conn: shmq.Connection, queue: str) -> None:
    conn.publish(b"x", routing_key=queue, confirm="memory")
    conn.publish(b"x", routing_key=queue, message_id="with properties", confirm="memory")
    conn.publish_many([b"x", b"x"], routing_key=queue, confirm="memory")
    with conn.loan(100, routing_key=queue, confirm="memory") as body:
        body[:] = bytes(100)

    assert senders(conn, queue) == [OURS] * 5


@pytest.mark.rule("PUBLISH-10")
def test_each_queue_of_a_route_is_told(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    queues = [new_queue(), new_queue()]
    for queue in queues:
        conn.bind_queue(queue, "amq.fanout")
    conn.publish(b"x", exchange="amq.fanout", confirm="memory")

    assert [senders(conn, queue) for queue in queues] == [[OURS], [OURS]]


@pytest.mark.rule("PUBLISH-10")
def test_a_process_is_told_from_another(conn: shmq.Connection, queue: str, broker: str, mode: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", PUBLISHES, broker, mode, queue],
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=True,
    )

    assert senders(conn, queue) == [OURS._replace(pid=int(told.stdout))]


@pytest.mark.rule("PUBLISH-10")
def test_a_dead_letter_is_of_its_first_publisher(conn: shmq.Connection, new_queue: Callable[..., str]) -> None:
    dead = new_queue()
    queue = new_queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    conn.publish(b"x", routing_key=queue, confirm="memory")
    message = conn.get(queue, timeout=1)
    assert message is not None
    message.reject()

    letter = conn.get(dead, timeout=scaled(2), no_ack=True)
    assert letter is not None
    assert letter.sender == OURS


@pytest.mark.rule("PUBLISH-10")
def test_it_is_still_known_when_the_delivery_is_settled_and_the_message_delayed(
    conn: shmq.Connection, queue: str
) -> None:
    conn.publish(b"x", routing_key=queue, headers={"x-delay": 20}, confirm="memory")
    message = conn.get(queue, timeout=scaled(2))
    assert message is not None
    message.ack()

    assert message.sender == OURS
