"""shmqctl as a person and as a script use it: tables, JSON, exit codes, one line for an error."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import shmq
from shmq._version import __version__
from shmq.core import LAYOUT
from shmq.limits import PROTOCOL
from support.deadline import scaled, wait_until


def run(*arguments: str | bytes, stdin: bytes = b"", code: int = 0) -> str:
    """Run the command and return what it printed; on an error, its one line. An alarm is none."""
    done = subprocess.run(
        [sys.executable, "-m", "shmq_clients.cli", *arguments],
        input=stdin,
        capture_output=True,
        timeout=scaled(20),
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    if code and not done.stdout:
        assert len(done.stderr.decode().splitlines()) == 1
        return done.stderr.decode()
    assert done.stderr == b""
    return done.stdout.decode()


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_it_does_what_it_says(url: str) -> None:
    at = ("--url", url)
    assert "jobs" in run("declare", "jobs", "--max-priority", "9", "--argument", "x-delivery-limit=3", *at)
    run("publish", "jobs", "first", "--header", "a=1", "--priority", "2", *at)
    run("publish", "jobs", *at, stdin=b"\xff\x00")

    (queue,) = run_json("queues", *at)
    assert (queue["name"], queue["messages"]) == ("jobs", 2)
    assert queue["arguments"] == {"x-max-priority": 9, "x-delivery-limit": 3}
    assert "jobs" in run("queues", *at)
    (looked,) = run_json("get", "jobs", "--requeue", *at)
    assert (looked["body"], looked["headers"], looked["priority"]) == ("first", {"a": 1}, 2)
    assert run("get", "jobs", "--raw", *at) == "first"
    assert "\\x00" in run("get", "jobs", *at)
    run("publish", "jobs", "x", *at)
    assert run("purge", "jobs", *at) == "1 messages dropped\n"
    assert run_json("delete", "jobs", *at) == {"count": 0}
    assert run_json("queues", *at) == []


def test_exchanges_and_bindings_are_listed(url: str) -> None:
    at = ("--url", url)
    with shmq.connect(url) as conn:
        conn.declare_queue("all")
        conn.declare_exchange("[b]events", "x-delayed-message", delayed_type="topic", internal=True)
        conn.bind_queue("all", "[b]events", "a.#", arguments={"n": 1})

    (row,) = [line.split() for line in run("exchanges", *at).splitlines() if "events" in line]
    assert row == ["[b]events", "x-delayed-message", "durable", "internal", "x-delayed-type=topic"]
    (facts,) = [one for one in run_json("exchanges", *at) if one["name"] == "[b]events"]
    assert (facts["type"], facts["arguments"]) == ("x-delayed-message", {"x-delayed-type": "topic"})
    (row,) = [line.split() for line in run("bindings", "--destination", "all", *at).splitlines()[1:]]
    assert row == ["[b]events", "all", "queue", "a.#", "n=1"]
    binding = {"source": "[b]events", "destination": "all", "to_exchange": False, "routing_key": "a.#"}
    assert run_json("bindings", "--source", "[b]events", *at) == [binding | {"arguments": {"n": 1}}]
    assert run("bindings", "--source", "amq.topic", *at) == "no bindings\n"


def test_exchanges_and_bindings_are_made_and_taken_back(url: str) -> None:
    at = ("--url", url)
    run("declare", "cats", *at)
    assert run("declare-exchange", "animals", "--type", "topic", *at) == "exchange animals of type topic\n"
    run("declare-exchange", "pictures", "--type", "headers", "--transient", "--alternate-exchange", "animals", *at)
    assert run("bind", "cats", "animals", "cat.#", *at) == "animals leads to cats by 'cat.#'\n"
    run("bind", "animals", "pictures", "--to-exchange", "--match", "any", "--argument", "kind=cat", *at)

    run("publish", "cat.black", "meow", "--exchange", "pictures", "--header", "kind=cat", *at)
    assert run("get", "cats", "--raw", *at) == "meow"
    (facts,) = run_json("bindings", "--source", "pictures", *at)
    assert (facts["to_exchange"], facts["arguments"]) == (True, {"kind": "cat", "x-match": "any"})
    assert "animals" in run("delete-exchange", "animals", "--if-unused", *at, code=1)
    assert run_json("unbind", "cats", "animals", "cat.#", *at) == {"count": 1}
    assert run("unbind", "cats", "animals", "cat.#", *at, code=1) == "0 bindings taken back\n"
    assert run_json("delete-exchange", "pictures", *at) == {"exchange": "pictures"}
    assert "pictures" not in run("exchanges", *at)


def test_a_wrong_exchange_or_binding_is_one_line_and_a_code(url: str) -> None:
    at = ("--url", url)
    run("declare", "cats", *at)
    run("declare-exchange", "minerals", *at)

    assert "'direct'" in run("declare-exchange", "minerals", "--type", "topic", *at, code=1)
    assert "type" in run("declare-exchange", "other", "--type", "rainbow", *at, code=1)
    assert "birds" in run("bind", "birds", "minerals", "x", *at, code=1)
    assert "plants" in run("bind", "cats", "plants", "x", *at, code=1)
    assert "match" in run("bind", "cats", "minerals", "x", "--match", "some", *at, code=1)
    assert "plants" in run("delete-exchange", "plants", *at, code=1)
    assert "amq.topic" in run("delete-exchange", "amq.topic", *at, code=1)


def test_queues_shows_how_long_messages_take(url: str) -> None:
    at = ("--url", url)
    run("declare", "timed", *at)
    assert [queue["time_to_ack"]["count"] for queue in run_json("queues", *at) if queue["name"] == "timed"] == [0]
    run("publish", "timed", "x", *at)
    run("get", "timed", *at)

    (queue,) = [queue for queue in run_json("queues", *at) if queue["name"] == "timed"]

    for time in (queue["time_in_queue"], queue["time_to_ack"]):
        assert time["count"] == 1
        assert 0 < time["p50_ns"] == time["p99_ns"] < scaled(10) * 1e9
    (row,) = [line for line in run("queues", *at).splitlines() if line.startswith("timed")]
    assert row.count(" / ") == 2


def test_status_is_for_people_and_programs(url: str) -> None:
    facts = run_json("status", "--url", url)

    assert facts["durability"] == "memory"
    assert {process["role"] for process in facts["processes"]} >= {"broker", "supervisor"}
    assert "durability: memory" in run("status", "--url", url)


def test_an_error_is_one_line_and_a_code(url: str, tmp_path: Path) -> None:
    at = ("--url", url)
    assert "no queue 'nix'" in run("purge", "nix", *at, code=1)
    assert "'nix' to no queue; shmqctl queues lists" in run("publish", "nix", "x", *at, code=1)
    run("declare", "other", *at)
    assert "max-priority" in run("declare", "other", "--max-priority", "3", *at, code=1)
    assert "can't be used" in run("declare", "a\nb", *at, code=1)
    assert str(tmp_path) in run("status", "--url", f"shmq://{tmp_path}/none.sock", code=3)


def test_url_and_json_stand_before_or_after_the_command(url: str) -> None:
    run("declare", "both", "--url", url)
    after = run_json("queues", "--url", url)

    assert json.loads(run("--url", url, "--json", "queues")) == after
    assert json.loads(run("--url", "shmq:///nowhere", "queues", "--url", url, "--json")) == after


def test_a_url_that_is_none_is_a_fault_of_the_command_line(url: str) -> None:
    assert "the scheme is shmq" in run("status", "--url", url.replace("shmq", "http", 1), code=2)


def test_what_starts_a_daemon_is_said(tmp_path: Path) -> None:
    assert f"Start it: shmqd --socket {tmp_path}/s.sock" in run("--url", f"shmq://{tmp_path}/s.sock", "queues", code=3)


def test_an_alarm_is_shown_first_and_is_the_exit_code(url: str) -> None:
    at = ("--url", url)
    run("declare", "narrow", "--capacity-messages", "1", *at)
    run("declare", "source", "--dead-letter-exchange", "", "--dead-letter-routing-key", "narrow", *at)
    with shmq.connect(url) as conn:
        for number in range(2):
            conn.publish(b"%d" % number, routing_key="source")
            message = conn.get("source", timeout=5)
            assert message is not None
            message.reject()
        wait_until(lambda: bool(conn.status().alarms), "an alarm")

    shown = run("status", *at, code=1)
    facts = json.loads(run("status", "--json", *at, code=1))
    run("purge", "narrow", *at)

    assert shown.startswith("ALARM dead-letter-target-full, for ")
    assert "'narrow' is full for the dead letters of queue 'source'" in shown
    assert [alarm["kind"] for alarm in facts["alarms"]] == ["dead-letter-target-full"]


def test_what_is_empty_is_said_to_be(url: str) -> None:
    run("declare", "bare", "--url", url)

    assert run("get", "bare", "--url", url) == "no messages\n"


def test_messages_are_shown_with_short_headers_and_no_list_of_deaths(url: str) -> None:
    at = ("--url", url)
    run("declare", "dead", *at)
    run("declare", "dying", "--dead-letter-exchange", "", "--dead-letter-routing-key", "dead", *at)
    run("publish", "dying", "x", "--expiration", "0", "--header", "n=1", "--header", 't="1"', *at)

    (row,) = run("get", "dead", "--timeout", "5", "--requeue", *at).splitlines()[1:]
    (full,) = run_json("get", "dead", *at)

    assert 'n=1 t="1" x-' in row
    assert "x-death=" not in row
    assert full["headers"]["x-death"][0]["reason"] == "expired"


def test_names_are_shown_and_not_interpreted(url: str) -> None:
    at = ("--url", url)
    run("declare", "[red]a[/red]", *at)

    assert "[red]a[/red]" in run("queues", *at)


def test_the_version_names_protocol_and_layout() -> None:
    assert run("--version") == f"shmqctl {__version__} (protocol {PROTOCOL}, layout {LAYOUT})\n"


def test_queues_can_be_watched_with_rates_until_interrupted(url: str) -> None:
    run("declare", "watched", "--url", url)
    with subprocess.Popen(
        [sys.executable, "-m", "shmq_clients.cli", "queues", "--watch", "0.1", "--url", url], stdout=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        lines = (line.decode().split() for line in watching.stdout)
        assert "published/s" not in next(lines)
        run("publish", "watched", "x", "--url", url)
        seen = next(
            line for line in lines if line[0] == "watched" and len(line) > 3 and line[1] == "1" and line[3] != "0"
        )
        watching.send_signal(signal.SIGINT)
        assert watching.wait(scaled(5)) == 0

    assert int(seen[3].replace(",", "")) > 0


def test_a_body_of_any_bytes_is_published_as_it_is(url: str) -> None:
    run("declare", "bytes", "--url", url)
    run("publish", "--url", url, "bytes", b"\xff\xfe")

    with shmq.connect(url) as connection:
        message = connection.get("bytes", timeout=1, no_ack=True)
        assert message is not None
        assert message.body == b"\xff\xfe"
