"""Kombu's own integration tests over shmq and over RabbitMQ: what passes there passes here.

They are in Kombu's source distribution alone, which is fetched when it is not in the build folder yet. Each group of
them is a process of its own, over both at once: most of their time they wait.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.side_by_side.servers.rabbitmq import SCRIPTS, rabbitmq
from benchmarks.side_by_side.servers.server import free_port, new_directory
from support.deadline import scaled

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "mixins" / "cases.py"
GROUPS = (  # each a process
    ("BaseFailover",),
    ("BaseTimeToLive",),
    ("BaseExchangeTypes",),
    ("BasicFunctionality",),
    ("BasePriority", "BaseMessage", "BaseEventLoop", "ConnectionPool", "ConsumerRevive"),
)
FETCH = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
BY_TCP = {"test_failover_switches_to_alternate_url"}  # compares the ports of two URLs
SECONDS = 60.0


@pytest.fixture(scope="module")
def sdist() -> Path:
    """Return the unpacked source distribution of the Kombu that is installed."""
    folder = ROOT / "build" / "kombu"
    unpacked = folder / f"kombu-{version('kombu')}"
    if not unpacked.exists():
        fetched = subprocess.run(
            [*FETCH, "--dest", folder, f"kombu=={version('kombu')}"],
            capture_output=True,
            text=True,
            timeout=scaled(SECONDS),
            check=False,
        )
        archive = unpacked.with_name(f"{unpacked.name}.tar.gz")
        if fetched.returncode or not archive.exists():
            pytest.skip(f"the package index does not give Kombu's source distribution: {fetched.stderr[-300:]}")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return unpacked


class Runs:
    """All mixins over one transport, under way."""

    def __init__(self, sdist: Path, url: str, dead_url: str, folder: Path) -> None:
        environment = os.environ | {"SDIST": str(sdist), "URL": url, "DEAD_URL": dead_url}
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder)]
        defined = "".join((sdist / "t" / "integration" / file).read_text() for file in ("common.py", "test_py_amqp.py"))
        folder.mkdir()
        self._runs = []
        for number, group in enumerate(GROUPS):
            report = folder / f"{number}.xml"
            there = [mixin for mixin in group if mixin in defined]  # not all are in every release
            cases = [f"{CASES}::Test{mixin}" for mixin in there]
            one = [*command, "-p", "no:cacheprovider", f"--junitxml={report}", *cases]
            process = subprocess.Popen(one, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            self._runs.append((report, process))

    def outcomes(self) -> dict[str, str]:
        """Return what came of each test: "" where it passed, else why not."""
        found: dict[str, str] = {}
        for report, process in self._runs:
            said, _ = process.communicate(timeout=scaled(SECONDS))
            assert report.exists(), said
            for case in ET.parse(report).iter("testcase"):
                trouble = case.find("failure") if case.find("failure") is not None else case.find("error")
                name = f"{str(case.get('classname')).rpartition('.')[2]}.{case.get('name')}"
                found[name] = "" if trouble is None else str(trouble.text)[-2000:]
        return found

    def stop(self) -> None:
        """End what still runs."""
        for _, process in self._runs:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def over_shmq(sdist: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    runs = Runs(sdist, url, "shmq:///nowhere/shmq.sock", tmp_path_factory.mktemp("mixins") / "shmq")
    yield runs
    runs.stop()


@pytest.fixture(scope="module")
def here(over_shmq: Runs) -> dict[str, str]:
    return over_shmq.outcomes()


@pytest.fixture(scope="module")
def there(over_shmq: Runs, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:  # noqa: ARG001 - it runs at the same time
    if not any(Path(script).exists() for script in SCRIPTS):
        pytest.skip("this host has no rabbitmq-server to compare with")
    folder, dead = new_directory(), f"pyamqp://127.0.0.1:{free_port()}"
    try:
        with rabbitmq(folder) as port:
            runs = Runs(sdist, f"pyamqp://127.0.0.1:{port}", dead, tmp_path_factory.mktemp("mixins") / "rabbitmq")
            try:
                yield runs.outcomes()
            finally:
                runs.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_what_passes_over_rabbitmq_passes_over_shmq(there: dict[str, str], here: dict[str, str]) -> None:
    wanted = [name for name, trouble in there.items() if not trouble and name.rpartition(".")[2] not in BY_TCP]

    assert {name: here.get(name, "not run") for name in wanted if here.get(name, "not run")} == {}
    assert len(wanted) >= 40


def test_all_others_pass_too(here: dict[str, str]) -> None:
    failed = {name: trouble for name, trouble in here.items() if trouble and name.rpartition(".")[2] not in BY_TCP}

    assert failed == {}
    assert len(here) >= 40
