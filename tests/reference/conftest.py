"""The two brokers of the run: a RabbitMQ of its own and a private shmqd, each started once, gone at the end."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmq
from benchmarks.side_by_side.servers.rabbitmq import SCRIPTS, rabbitmq
from benchmarks.side_by_side.servers.server import new_directory


@pytest.fixture(scope="session")
def rabbitmq_port() -> Iterator[int]:
    """Give the port of a RabbitMQ that nobody else knows."""
    if not any(Path(script).exists() for script in SCRIPTS):
        pytest.skip("this host has no rabbitmq-server (Debian's package) to compare with")
    folder = new_directory()
    try:
        with rabbitmq(folder) as port:
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shmq_url() -> Iterator[str]:
    """Give the URL of a private broker."""
    with shmq.local() as url:
        yield url
