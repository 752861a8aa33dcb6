"""The client of 100 lines, which knows the protocol from its page alone, works with a real daemon."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import shmq
from support.deadline import scaled
from support.needs import missing

EXAMPLE = Path(__file__).parents[2] / "examples/plain_client.py"
SAID = """\
job 0, delivery 1, key job.new: frame 48
job 1, delivery 1, key job.new: frame 49
job 2, delivery 1, key job.new: frame 48
job 1, delivery 2, key job.new: frame 50
dead: job 1, message 1, rejected
['plain.jobs: 0 left', 'plain.dead: 0 left']
"""


def run(path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), path], capture_output=True, text=True, timeout=scaled(20), check=False
    )


@pytest.fixture(autouse=True)
def msgpack() -> None:
    if importlib.util.find_spec("msgpack") is None:
        missing("the package msgpack")


def test_it_publishes_consumes_settles_and_leaves_nothing() -> None:
    with shmq.local() as url:
        done = run(url.removeprefix("shmq://"))

        assert (done.returncode, done.stderr, done.stdout) == (0, "", SAID)
        with shmq.connect(url) as conn:
            assert conn.queues() == []
            assert not [one for one in conn.exchanges() if not one.name.startswith("amq.")]
            assert conn.status().totals["connections"] == 1


def test_it_is_told_why_a_request_failed() -> None:
    with shmq.local() as url:
        with shmq.connect(url) as conn:
            conn.declare_queue("plain.jobs", max_priority=3)
        done = run(url.removeprefix("shmq://"))

    assert done.returncode == 1
    assert "RuntimeError: 406 queue 'plain.jobs' has " in done.stderr


def test_it_is_short_and_imports_nothing_of_shmq() -> None:
    text = EXAMPLE.read_text()
    nodes = list(ast.walk(ast.parse(text)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}

    assert len(text.splitlines()) <= 100
    assert imported - sys.stdlib_module_names == {"msgpack"}
