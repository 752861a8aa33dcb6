"""Exchanges and bindings outlive processes, and direct clients follow them without asking more than they must."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import shmq
from support.deadline import wait_until
from support.routed import bodies, publish
from support.shmqd import Shmqd, instance

MODES = pytest.mark.parametrize("mode", ["direct", "socket"])
MANY = 300  # more bindings than a direct client is told at once


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


@pytest.fixture
def conn(daemon: Shmqd) -> Iterator[shmq.Connection]:
    with daemon.connect() as connection:
        yield connection


def declare_all(conn: shmq.Connection) -> None:
    """A topic exchange that feeds a headers exchange and has an alternate, and queues behind each."""
    conn.declare_exchange("rest", "fanout", internal=True)
    conn.declare_exchange("events", "topic", alternate_exchange="rest")
    conn.declare_exchange("filter", "headers")
    conn.declare_exchange("later", "x-delayed-message", delayed_type="direct")
    conn.bind_exchange("filter", "events", "image.#")
    for queue in ("images", "others", "jobs", "late"):
        conn.declare_queue(queue)
    conn.bind_queue("images", "filter", match="any", arguments={"n": 1, "m": None})
    conn.bind_queue("others", "rest")
    conn.bind_queue("jobs", "events", "job.*")
    conn.bind_queue("late", "later", "k")


def use_all(conn: shmq.Connection) -> dict[str, list[bytes]]:
    publish(conn, "events", "image.a", b"1", headers={"n": 1})
    publish(conn, "events", "image.a", b"2", headers={"n": 2})
    publish(conn, "events", "job.a", b"3")
    publish(conn, "events", "nothing", b"4", mandatory=True)
    publish(conn, "later", "k", b"5", headers={"x-delay": 1})
    wait_until(lambda: conn.queue_info("late").messages == 1, "the delayed message is due")
    return {queue: bodies(conn, queue) for queue in ("images", "jobs", "others", "late")}


ALL = {"images": [b"1"], "jobs": [b"3"], "others": [b"4"], "late": [b"5"]}


@MODES
def test_exchanges_and_bindings_are_there_again_after_a_restart(daemon: Shmqd, mode: str) -> None:
    with daemon.connect() as connection:
        declare_all(connection)
    daemon.kill_all()
    daemon.start()

    with daemon.connect(mode) as connection:
        assert use_all(connection) == ALL
        declare_all(connection)
        connection.unbind_queue("images", "filter", arguments={"x-match": "any", "m": None, "n": 1})
        assert use_all(connection) == ALL | {"images": []}


@MODES
def test_a_connection_goes_on_with_its_routes_after_the_brokers_death(daemon: Shmqd, mode: str) -> None:
    with daemon.connect(mode) as connection:
        declare_all(connection)
        assert use_all(connection) == ALL
        daemon.kill("broker")
        if mode == "socket":
            connection.queues()  # what is under way when it dies would be told as lost
        assert use_all(connection) == ALL


@pytest.mark.parametrize("killed", ["nobody", "supervisor"])
def test_dead_letters_go_by_patterns_and_headers_also_after_the_supervisors_death(
    daemon: Shmqd, conn: shmq.Connection, killed: str
) -> None:
    declare_all(conn)
    conn.declare_queue("source", dead_letter_exchange="events", dead_letter_routing_key="image.dead")
    if killed != "nobody":
        daemon.kill(killed)
    for n in (1, 2):
        publish(conn, "", "source", b"%d" % n, headers={"n": n})
        message = conn.get("source", timeout=1)
        assert message is not None
        message.reject()
    wait_until(lambda: conn.queue_info("source").totals["dead_pending"] == 0, "the dead are settled")

    assert bodies(conn, "images") == [b"1"]


def test_a_dead_letter_with_a_delay_waits_behind_an_exchange_that_delays_and_only_once(conn: shmq.Connection) -> None:
    declare_all(conn)
    conn.declare_queue("source", dead_letter_exchange="later", dead_letter_routing_key="k")
    for delay in (1, "soon"):
        publish(conn, "", "source", headers={"x-delay": delay})
        message = conn.get("source", timeout=1)
        assert message is not None
        message.reject()
        letter = conn.get("late", timeout=5, no_ack=True)
        assert letter is not None
        assert letter.headers["x-delay"] == (-1 if delay == 1 else "soon")


def refuse_to_ask(*_arguments: Any, **_keywords: Any) -> NoReturn:
    raise AssertionError("the broker was asked")


def test_a_direct_client_asks_once_for_an_exchange_of_few_bindings(
    daemon: Shmqd, conn: shmq.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare_all(conn)
    publish(conn, "events", "image.first", headers={"n": 1})
    publish(conn, "events", "job.first")
    bodies(conn, "images"), bodies(conn, "jobs")
    with daemon.connect() as other, monkeypatch.context() as patch:
        patch.setattr(conn._link, "ask", refuse_to_ask)
        other.declare_queue("reply", exclusive=True)
        other.bind_queue("reply", "amq.topic", "reply.#")
        for number in range(100):
            publish(conn, "events", f"image.{number}", headers={"n": 1, "number": number})
            publish(conn, "events", f"job.{number}")

    assert (len(bodies(conn, "images")), len(bodies(conn, "jobs"))) == (100, 100)


@pytest.mark.parametrize("kind", ["topic", "headers"])
def test_a_direct_client_asks_for_each_key_of_an_exchange_of_many_bindings(daemon: Shmqd, kind: str) -> None:
    with daemon.connect("direct") as connection:
        connection.declare_exchange("many", kind)
        connection.declare_queue("one")
        for number in range(MANY):
            connection.bind_queue("one", "many", f"k.{number}", arguments={"n": number})
        for number in (1, 2, 1, MANY):
            publish(connection, "many", f"k.{number}", b"%d" % number, headers={"n": number})

        assert bodies(connection, "one") == [b"1", b"2", b"1"]


def test_more_queues_than_a_client_can_be_told_get_their_copies_from_the_broker(conn: shmq.Connection) -> None:
    conn.declare_exchange("first", "fanout", alternate_exchange="next0")
    for number in range(1100):
        conn.declare_exchange(f"next{number}", "headers", alternate_exchange=f"next{number + 1}")
    conn.declare_queue("last")
    conn.bind_queue("last", "next1099", arguments={"n": 1})
    publish(conn, "first", headers={"n": 1})

    assert bodies(conn, "last") == [b"x"]


def test_one_queue_that_only_the_broker_may_fill_holds_up_no_other_key(daemon: Shmqd, conn: shmq.Connection) -> None:
    conn.declare_exchange("events", "topic")
    conn.declare_queue("jobs")
    conn.declare_queue("passing", exclusive=True)
    conn.bind_queue("jobs", "events", "job.*")
    conn.bind_queue("passing", "events", "heartbeat")
    with daemon.connect("direct") as direct:
        publish(direct, "events", "job.1")
        with pytest.raises(shmq.DirectRefused, match="events"):
            publish(direct, "events", "heartbeat")
    publish(conn, "events", "heartbeat")

    assert (len(bodies(conn, "jobs")), len(bodies(conn, "passing"))) == (1, 1)


@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_anybody_may_publish_to_an_exclusive_queue(daemon: Shmqd, conn: shmq.Connection, exchange: str) -> None:
    with daemon.connect() as owner:
        owner.declare_queue("reply", exclusive=True)
        owner.bind_queue("reply", "amq.direct", "reply")
        publish(conn, exchange, "reply")

        assert bodies(owner, "reply") == [b"x"]


def test_arguments_as_long_as_may_be_reach_the_supervisor(conn: shmq.Connection, daemon: Shmqd) -> None:
    declare_all(conn)
    long = {f"n{number}": "v" * 4000 for number in range(15)}
    conn.bind_queue("others", "filter", arguments=long)
    with pytest.raises(shmq.InvalidArgument, match="at most 65536 bytes"):
        conn.bind_queue("others", "filter", arguments=long | {"one": "v" * 4000, "more": "v" * 4000})
    supervisor = daemon.child("supervisor")
    conn.declare_queue("source", dead_letter_exchange="filter")
    publish(conn, "", "source", headers=long)
    message = conn.get("source", timeout=1)
    assert message is not None
    message.reject()
    wait_until(lambda: conn.queue_info("others").messages == 1, "the dead letter is there")

    assert daemon.child("supervisor") == supervisor


def test_what_goes_through_the_broker_is_not_overtaken_by_what_goes_directly(
    daemon: Shmqd, conn: shmq.Connection
) -> None:
    conn.declare_exchange("events", "topic")
    conn.declare_queue("jobs")
    conn.bind_queue("jobs", "events", "#")
    with daemon.connect() as owner:
        owner.declare_queue("passing", exclusive=True)
        owner.bind_queue("passing", "events", "both")
        for number in range(200):
            conn.publish(b"%d" % number, exchange="events", routing_key=("both", "one")[number % 2])

        assert bodies(conn, "jobs") + bodies(conn, "jobs") == [b"%d" % number for number in range(200)]


@MODES
def test_a_storm_of_bindings_loses_no_message_of_others(daemon: Shmqd, mode: str) -> None:
    with daemon.connect(mode) as connection, daemon.connect() as other:
        connection.declare_exchange("events", "topic")
        connection.declare_queue("jobs")
        connection.bind_queue("jobs", "events", "job.#")
        changes: list[Callable[..., None]] = [other.bind_queue, other.unbind_queue]
        for number in range(200):
            changes[number % 2]("jobs", "events", f"*.{number // 2}")
            publish(connection, "events", f"job.{number}")

        assert len(bodies(connection, "jobs")) + len(bodies(connection, "jobs")) == 200
