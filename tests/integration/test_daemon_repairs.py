"""What the supervisor does: dead letters, delays, time-outs; and damage to one queue, which leaves the others alone."""

import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from shmq.core._core import LAYOUT
from shmq_daemon import state
from shmq_daemon.events import QueueDeclared
from support.deadline import scaled, wait_until
from support.needs import missing
from support.shmqd import SHM, Shmqd, instance

LAYOUT_AT = 8  # of the second word of a segment's header
SLOT_BYTES, SHAPE_AT = 64, 40  # of a slot before its body, and in it the word with the body's length


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Shmqd]:
    with instance(tmp_path) as running:
        yield running


@pytest.fixture
def connection(daemon: Shmqd) -> Iterator[shmq.Connection]:
    with daemon.connect() as connection:
        yield connection


def take(connection: shmq.Connection, queue: str, timeout: float = 2.0) -> shmq.Message:
    message = connection.get(queue, timeout=timeout)
    assert message is not None
    return message


def alarms(connection: shmq.Connection) -> dict[str, str]:
    return {alarm.kind: alarm.text for alarm in connection.status().alarms}


# -- dead letters ---------------------------------------------------------------------------------------------------


def test_a_rejected_message_goes_through_its_exchange_to_every_target_and_is_gone_here(
    connection: shmq.Connection,
) -> None:
    connection.declare_exchange("dlx", "direct")
    for name in ("first", "second"):
        connection.declare_queue(name)
        connection.bind_queue(name, "dlx", "broken")
    connection.declare_queue("jobs", dead_letter_exchange="dlx", dead_letter_routing_key="broken")
    connection.publish(b"bad", routing_key="jobs", headers={"team": "vision"})
    take(connection, "jobs").reject()

    for name in ("first", "second"):
        message = take(connection, name)
        assert (message.body, message.headers["team"]) == (b"bad", "vision")
        assert message.headers["x-death"][0]["reason"] == "rejected"
        message.ack()
    wait_until(lambda: connection.queue_info("jobs").totals["dead_pending"] == 0, "the source is free")


def test_an_expired_message_is_dead_lettered_wherever_it_is(connection: shmq.Connection) -> None:
    connection.declare_queue("dead")
    connection.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead")
    connection.publish(b"stays", routing_key="jobs")
    connection.publish(b"expires", routing_key="jobs", expiration=50)
    message = take(connection, "dead")

    assert (message.body, message.headers["x-death"][0]["reason"]) == (b"expires", "expired")
    assert message.headers["x-death"][0]["original-expiration"] == "50"
    message.ack()


def test_a_full_target_raises_an_alarm_naming_both_and_others_go_on(connection: shmq.Connection) -> None:
    connection.declare_queue("narrow", capacity_messages=1)
    connection.declare_queue("wide")
    for source, target in (("a", "narrow"), ("b", "wide")):
        connection.declare_queue(source, dead_letter_exchange="", dead_letter_routing_key=target)
    for number in range(3):
        connection.publish(b"%d" % number, routing_key="a")
        take(connection, "a").reject()
    wait_until(lambda: "dead-letter-target-full" in alarms(connection), "the alarm is raised")
    text = alarms(connection)["dead-letter-target-full"]
    connection.publish(b"other", routing_key="b")
    take(connection, "b").reject()

    assert "'narrow'" in text
    assert "'a'" in text
    take(connection, "wide").ack()
    bodies = []
    for _ in range(3):
        message = take(connection, "narrow")
        bodies.append(message.body)
        message.ack()
    assert sorted(bodies) == [b"0", b"1", b"2"]
    wait_until(lambda: not alarms(connection), "the alarm is cleared")


def test_the_alarm_comes_again_for_a_queue_that_is_made_anew(connection: shmq.Connection) -> None:
    connection.declare_queue("narrow", capacity_messages=1)
    for _ in range(2):
        connection.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="narrow")
        for number in range(2):
            connection.publish(b"%d" % number, routing_key="jobs")
            take(connection, "jobs").reject()
        wait_until(lambda: "dead-letter-target-full" in alarms(connection), "the alarm is raised")
        connection.delete_queue("jobs")

        wait_until(lambda: not alarms(connection), "the alarm went with its queue")


def test_an_expiring_circle_ends_and_its_message_is_counted_as_dropped(connection: shmq.Connection) -> None:
    connection.declare_queue(
        "round", dead_letter_exchange="", dead_letter_routing_key="round", arguments={"x-message-ttl": 10}
    )
    connection.publish(b"dizzy", routing_key="round")

    def dropped() -> bool:
        return connection.status().totals.get("supervisor_dead_dropped", 0) == 1

    wait_until(dropped, "the message is dropped")
    assert connection.queue_info("round").messages == 0


def test_over_the_limit_without_an_exchange_is_dropped_and_counted(connection: shmq.Connection) -> None:
    connection.declare_queue("jobs", delivery_limit=1)
    connection.publish(b"poison", routing_key="jobs")
    for _ in range(2):
        take(connection, "jobs").reject(requeue=True)

    wait_until(lambda: connection.status().totals.get("supervisor_dead_dropped", 0) == 1, "it is dropped")


def test_an_exchange_with_many_arguments_leaves_the_supervisor_alive(
    daemon: Shmqd, connection: shmq.Connection
) -> None:
    before = daemon.child("supervisor")
    connection.declare_exchange("dlx", arguments={f"x-note-{number}": "v" * 4000 for number in range(40)})
    connection.declare_queue("dead")
    connection.bind_queue("dead", "dlx", "jobs")
    connection.declare_queue("jobs", dead_letter_exchange="dlx")
    connection.publish(b"bad", routing_key="jobs")
    take(connection, "jobs").reject()

    take(connection, "dead").ack()
    assert daemon.child("supervisor") == before


def test_dead_letters_for_a_target_that_the_supervisor_cannot_open_wait(
    daemon: Shmqd, connection: shmq.Connection
) -> None:
    connection.declare_queue("dead")
    connection.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead")
    segment = segment_of(daemon, "dead")
    segment.chmod(0o640)  # so it counts as somebody else's
    daemon.kill("supervisor")
    wait_until(lambda: "queue-quarantined" in alarms(connection), "the next one can't open it")
    connection.publish(b"bad", routing_key="jobs")
    take(connection, "jobs").reject()

    wait_until(lambda: "dead-letter-target-full" in alarms(connection), "the alarm is raised")
    assert connection.queue_info("jobs").totals["dead_pending"] == 1
    segment.chmod(0o600)
    daemon.kill("supervisor")
    take(connection, "dead").ack()


# -- time -----------------------------------------------------------------------------------------------------------


def test_a_delayed_message_comes_when_it_is_due_and_not_before(connection: shmq.Connection) -> None:
    connection.declare_queue("jobs")
    times = []
    for _ in range(5):
        started = time.monotonic()
        connection.publish(b"later", routing_key="jobs", delay=0.3)
        message = take(connection, "jobs")
        times.append(time.monotonic() - started)
        message.ack()

    assert min(times) >= 0.3
    assert statistics.median(times) <= 0.35


def test_delays_survive_the_supervisor(daemon: Shmqd, connection: shmq.Connection) -> None:
    connection.declare_queue("jobs")
    connection.publish(b"later", routing_key="jobs", delay=0.5)
    wait_until(lambda: connection.queue_info("jobs").totals["delayed"] == 1, "it is delayed")
    daemon.kill("supervisor")

    assert take(connection, "jobs", 5.0).body == b"later"


def test_an_ack_timeout_gives_just_that_delivery_back(connection: shmq.Connection) -> None:
    connection.declare_queue("jobs", arguments={"x-consumer-timeout": 500})
    connection.publish(b"slow", routing_key="jobs")
    late = take(connection, "jobs")
    again = take(connection, "jobs", 5.0)

    assert (again.body, again.redelivered) == (b"slow", True)
    with pytest.raises(shmq.StaleDelivery):
        late.ack()
    again.ack()


# -- damage ---------------------------------------------------------------------------------------------------------


def segment_of(daemon: Shmqd, name: str) -> Path:
    store = state.State(daemon.data / "state.db", state.boot_id())
    queues = [event.queue for event in store.events() if isinstance(event, QueueDeclared)]
    store.close()
    return SHM / next(queue.segment for queue in queues if queue.name == name).removeprefix("/")


def test_a_segment_of_another_layout_is_refused_by_name_and_left_untouched(daemon: Shmqd) -> None:
    with daemon.connect() as connection:
        connection.declare_queue("foreign")
        connection.declare_queue("jobs")
    daemon.stop()
    segment = segment_of(daemon, "foreign")
    with segment.open("r+b") as file:
        file.seek(LAYOUT_AT)
        file.write(struct.pack("<Q", 99))
        file.seek(0)
        before = file.read(4096)
    daemon.start()

    with daemon.connect() as connection:
        connection.publish(b"fine", routing_key="jobs")
        take(connection, "jobs").ack()
        what = (
            f"queue 'foreign' is set apart: its segment has layout 99, this shmqd reads {LAYOUT}; it is left untouched"
        )
        with pytest.raises(shmq.InternalError, match=what):
            connection.get("foreign", timeout=0)
        wait_until(lambda: "queue-quarantined" in alarms(connection), "an alarm says so")
        assert alarms(connection)["queue-quarantined"].startswith(what)
    with segment.open("rb") as file:
        assert file.read(4096) == before


def test_a_damaged_message_stops_its_queue_and_not_the_broker(daemon: Shmqd) -> None:
    with daemon.connect("socket") as connection, daemon.connect() as direct:
        direct.declare_queue("damaged", capacity_messages=64, capacity_bytes=1 << 20)
        direct.declare_queue("jobs")
        direct.publish(b"a body to be found", routing_key="damaged")
        segment = segment_of(daemon, "damaged")
        with segment.open("r+b") as file:
            file.seek(segment.read_bytes().index(b"a body to be found") - SLOT_BYTES + SHAPE_AT)
            file.write(b"\xff" * 8)
        before = daemon.child("broker")

        with pytest.raises(shmq.NotFound, match="set apart"):
            next(iter(connection.consume("damaged")))
        assert alarms(connection)["queue-quarantined"].startswith("queue 'damaged' is set apart")
        direct.publish(b"fine", routing_key="jobs")
        take(connection, "jobs").ack()
        assert daemon.child("broker") == before
        connection.delete_queue("damaged")
        assert not alarms(connection)


def test_a_name_without_memory_is_made_anew(daemon: Shmqd) -> None:
    with daemon.connect() as connection:
        connection.declare_queue("jobs")
    daemon.stop()
    segment_of(daemon, "jobs").unlink()
    daemon.start()

    with daemon.connect() as connection:
        connection.publish(b"fine", routing_key="jobs")
        assert take(connection, "jobs").body == b"fine"


def test_an_empty_segment_of_a_death_in_between_is_finished(daemon: Shmqd) -> None:
    with daemon.connect() as connection:
        connection.declare_queue("jobs", delivery_limit=2)
    daemon.stop()
    os.truncate(segment_of(daemon, "jobs"), 0)
    daemon.start()

    with daemon.connect() as connection:
        connection.publish(b"fine", routing_key="jobs")
        assert take(connection, "jobs").body == b"fine"


def test_a_full_dev_shm_is_an_error_in_the_caller_and_an_alarm(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, for a small /dev/shm of its own")
    script, settings = tmp_path / "full.py", tmp_path / "shmqd.toml"
    settings.write_text("memory_watermark = 1\n")
    script.write_text(
        "import pathlib, shmq, sys, tempfile, time\n"
        "from support.shmqd import instance\n"
        f"flags = ['--config', {str(settings)!r}]\n"
        "with tempfile.TemporaryDirectory() as folder, instance(pathlib.Path(folder), *flags) as daemon, \\\n"
        "        daemon.connect(sys.argv[1]) as connection:\n"
        "    connection.declare_queue('jobs', capacity_bytes=1 << 30)\n"
        "    count = 0\n"
        "    try:\n"
        "        while True:\n"
        "            connection.publish(bytes(100_000), routing_key='jobs', timeout=1, confirm='memory')\n"
        "            count += 1\n"
        "    except shmq.ShmFull as error:\n"
        "        print('full', count > 50)\n"
        "    deadline = time.monotonic() + 10\n"
        "    while not connection.status().alarms and time.monotonic() < deadline:\n"
        "        time.sleep(0.01)\n"
        "    print({alarm.kind for alarm in connection.status().alarms} <= {'shm-full', 'queue-cant-grow'})\n"
        "    message = connection.get('jobs', timeout=1)\n"
        "    print(len(message.body))\n"
        "    message.ack()\n"
        "    connection.publish(bytes(100_000), routing_key='jobs', timeout=1, confirm='memory')\n"
        "    print('room again')\n"
    )
    for mode in ("direct", "socket"):
        command = f"mount -t tmpfs -o size=24m tmpfs /dev/shm && exec {sys.executable} {script} {mode}"
        run = subprocess.run(
            ["unshare", "--mount", "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=scaled(30),
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        if "unshare" in run.stderr or "mount:" in run.stderr:
            missing("mount namespaces")

        assert run.stdout.split("\n")[:4] == ["full True", "True", "100000", "room again"], run.stderr


def test_without_descriptors_those_who_are_here_are_served_and_others_later(tmp_path: Path) -> None:
    daemon = Shmqd(tmp_path)
    daemon.process = process = limited(daemon, 64)
    others = []
    try:
        wait_until(lambda: daemon.socket.exists() and serves(daemon), "it serves")
        with shmq.connect(daemon.url) as connection:
            connection.declare_queue("jobs")
            for _ in range(100):
                other = socket.socket(socket.AF_UNIX)
                others.append(other)
                other.connect(str(daemon.socket))
            connection.publish(b"fine", routing_key="jobs")
            take(connection, "jobs").ack()
        for other in others:
            other.close()
        wait_until(lambda: serves(daemon), "there is room again")
    finally:
        process.terminate()
        process.communicate(timeout=scaled(10))
        daemon.run("--discard")


def limited(daemon: Shmqd, files: int) -> subprocess.Popen[bytes]:
    """Start a daemon that may open so many files."""
    limit = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))"
    script = f"{limit}; runpy.run_module('shmq_daemon.main', run_name='__main__')"
    return subprocess.Popen([sys.executable, "-P", "-c", script, *daemon.places], stderr=subprocess.PIPE)


def declared_until_refused(connection: shmq.Connection) -> tuple[int, str]:
    """Declare queues q0, q1, ... until that is refused. Returns how many there are, and why not more."""
    for number in range(100):
        try:
            connection.declare_queue(f"q{number}")
        except shmq.NotAllowed as error:
            return number, str(error)
    pytest.fail("nothing was refused")


def test_more_queues_than_descriptors_are_refused_and_the_others_work_on(tmp_path: Path) -> None:
    daemon = Shmqd(tmp_path)
    daemon.process = process = limited(daemon, 200)
    try:
        wait_until(lambda: daemon.socket.exists() and serves(daemon), "it serves")
        with daemon.connect() as connection:
            made, why = declared_until_refused(connection)
            assert made > 10
            assert "as many files open as it may. Raise the limit" in why
            for number in range(made):
                connection.publish(b"fine", routing_key=f"q{number}")
                take(connection, f"q{number}").ack()
            with daemon.connect("direct") as other, daemon.connect("socket") as third:
                other.publish(b"fine", routing_key="q0")
                take(third, "q0").ack()
            assert len(connection.queues()) == made
            connection.delete_queue("q0")
            connection.declare_queue("q0")
    finally:
        process.terminate()
        process.communicate()
    daemon.process = process = limited(daemon, 100)
    _, told = process.communicate(timeout=scaled(10))
    assert process.returncode == 1
    assert f"{made} queues need {6 * made} open files, and the limit is 100. Raise the limit" in told.decode()
    daemon.run("--discard")


def serves(daemon: Shmqd) -> bool:
    try:
        with daemon.connect() as connection:
            return connection.status().durability == "memory"
    except shmq.ShmqError:
        return False


# -- auto_delete ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_the_death_of_its_last_consumer_takes_an_auto_delete_queue_along(
    daemon: Shmqd, connection: shmq.Connection, mode: str
) -> None:
    connection.declare_queue("passing", auto_delete=True)
    program = (
        "import shmq, sys\n"
        "conn = shmq.connect(sys.argv[1], mode=sys.argv[2])\n"
        "for message in conn.consume('passing'):\n"
        "    print('here', flush=True)\n"
    )
    command = [sys.executable, "-c", program, daemon.url, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        connection.publish(b"x", routing_key="passing")
        assert victim.stdout.readline() == b"here\n"
        wait_until(lambda: connection.queue_info("passing").consumers == 1, "it is counted")
        victim.kill()

    def is_gone() -> bool:
        return "passing" not in {info.definition.name for info in connection.queues()}

    wait_until(is_gone, "the queue is gone", 15)
