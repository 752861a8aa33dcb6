"""What goes wrong is told to the caller, by the errors that users of Celery expect."""

import time
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest
from kombu.exceptions import ContentDisallowed, EncodeError, OperationalError

import shmq
from support.celery_worker import Sender, Worker, sender, worker
from support.deadline import scaled, wait_until
from support.shmqd import Shmqd

TOO_LARGE = 4 << 20


@pytest.fixture
def tasks(daemon: Shmqd) -> Iterator[Sender]:
    with sender(daemon.url) as one:
        yield one


@pytest.mark.parametrize("retry", [True, False])
def test_nobody_at_the_socket_is_an_operational_error(tmp_path: Path, *, retry: bool) -> None:
    with sender(f"shmq://{tmp_path}/nobody.sock", broker_connection_timeout=0.5) as tasks:
        begun = time.monotonic()
        with pytest.raises(OperationalError, match=r"nobody\.sock"):
            tasks.send("add", 1, 1, retry=retry, retry_policy={"max_retries": 1, "interval_start": 0.1})

    assert time.monotonic() - begun < scaled(10)


def test_a_worker_without_a_broker_says_so_and_tries_again(tmp_path: Path) -> None:
    one = Worker(tmp_path, "lonely", "-P", "solo", broker_url=f"shmq://{tmp_path}/nobody.sock")
    try:
        one.start()
        wait_until(lambda: "Trying again" in one.text(), "it says so", 20)
        assert "nobody.sock" in one.text()
    finally:
        one.close()


@pytest.mark.parametrize("url", ["{}?heartbeat=5", "shmq://somewhere/else", "shmq://user:word@/run/shmq.sock"])
def test_a_url_that_cannot_be_is_a_value_error(daemon: Shmqd, url: str) -> None:
    with sender(url.format(daemon.url)) as tasks, pytest.raises(ValueError, match="URL"):
        tasks.send("add", 1, 1)


def test_an_option_that_cannot_be_is_a_value_error(daemon: Shmqd) -> None:
    wrong = {"mode": "carrier-pigeon"}
    with sender(daemon.url, broker_transport_options=wrong) as tasks, pytest.raises(ValueError, match="carrier-pigeon"):
        tasks.send("add", 1, 1)


def test_a_task_larger_than_its_queue_is_refused_at_once_and_the_next_one_is_not(tasks: Sender) -> None:
    small = {"x-capacity-bytes": 1 << 20}
    queue = kombu.Queue("small", queue_arguments=small)
    with pytest.raises(OperationalError, match="small"):
        tasks.send("add", "x" * TOO_LARGE, "", queue=queue)

    tasks.send("add", "x", "", queue=queue)
    assert tasks.count("small", "ready") == 1


def test_a_full_queue_is_told_to_the_caller(daemon: Shmqd) -> None:
    queue = kombu.Queue("full", queue_arguments={"x-capacity-messages": 3})
    with sender(daemon.url, broker_transport_options={"publish_timeout": 0.2}) as tasks:
        for _ in range(3):
            tasks.send("add", 1, 1, queue=queue)
        with pytest.raises(OperationalError, match="full"):
            tasks.send("add", 1, 1, queue=queue)
        assert tasks.count("full", "ready") == 3


def test_what_the_serializer_cannot_take_is_an_encode_error(tasks: Sender) -> None:
    with pytest.raises(EncodeError):
        tasks.send("add", object(), 1)


def test_pickle_where_it_is_not_accepted_is_refused_by_the_worker_and_by_the_reader(
    daemon: Shmqd, tasks: Sender, tmp_path: Path
) -> None:
    with worker(tmp_path, "picky", "-P", "solo", broker_url=daemon.url, result_backend="rpc://") as picky:
        tasks.send("add", 1, 1, serializer="pickle")
        wait_until(lambda: "ContentDisallowed" in picky.text(), "the worker refuses it", 10)
        assert tasks.result("add", 1, 2) == 3  # and goes on
    assert tasks.count("celery", "unacked") == 0

    with kombu.Connection(daemon.url) as connection:
        queue = connection.SimpleQueue("pickled", serializer="pickle")
        queue.put({1, 2})
        with pytest.raises(ContentDisallowed):
            connection.SimpleQueue("pickled", accept=["json"]).get(timeout=scaled(5)).payload  # noqa: B018 - it decodes


def test_two_owners_of_an_exclusive_queue_are_an_error(daemon: Shmqd, tasks: Sender) -> None:
    with shmq.connect(daemon.url) as owner:
        owner.declare_queue("mine", exclusive=True)
        with pytest.raises(OperationalError, match="exclusive"):
            tasks.send("add", 1, 1, queue=kombu.Queue("mine", exclusive=True))
