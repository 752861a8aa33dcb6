"""Flower's pages of workers and tasks, asked of a real Flower that knows no more than the broker's URL."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.side_by_side.servers.server import free_port
from support.celery_worker import sender, worker
from support.deadline import scaled, wait_until
from support.needs import missing
from support.shmqd import Shmqd

NODE = "watched@test"


@pytest.fixture
def page(daemon: Shmqd, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Read pages of a Flower; "" while it does not answer."""
    if importlib.util.find_spec("flower") is None:
        missing("the package flower")
    port = free_port()
    command = [sys.executable, "-m", "celery", "-b", daemon.url, "flower", "--address=127.0.0.1", f"--port={port}"]
    environment = os.environ | {"FLOWER_UNAUTHENTICATED_API": "1"}
    with (tmp_path / "flower.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=environment)

    def read(path: str) -> str:
        url = f"http://127.0.0.1:{port}{path}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=scaled(10)) as answer:
            return str(answer.read(), "utf-8")
        return ""

    try:
        wait_until(lambda: bool(read("/workers")), "Flower answers", 30)
        yield read
    finally:
        process.kill()
        process.wait(scaled(10))


def asked(page: Callable[[str], str], path: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(page(path) or "{}")
    return told


def test_flower_shows_workers_and_tasks(daemon: Shmqd, page: Callable[[str], str], tmp_path: Path) -> None:
    settings = {"broker_url": daemon.url, "result_backend": "rpc://"}
    with worker(tmp_path, "watched", "-P", "solo", "-E", **settings), sender(daemon.url) as tasks:
        wait_until(lambda: NODE in asked(page, "/api/workers?refresh=1"), "Flower has heard of the worker", 30)
        sent = tasks.send("add", 1, 1)
        assert sent.get(timeout=scaled(10)) == 2

        wait_until(
            lambda: asked(page, "/api/tasks").get(sent.id, {}).get("state") == "SUCCESS", "it knows the task", 10
        )
        assert "add" in asked(page, f"/api/workers?workername={NODE}&refresh=1")[NODE]["registered"]
        assert NODE in page("/workers")
        assert NODE in page(f"/worker/{NODE}")
        assert sent.id in page(f"/task/{sent.id}")
