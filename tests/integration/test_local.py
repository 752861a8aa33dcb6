"""`shmq.local()` leaves no process and nothing in /dev/shm, however its owner ends.

Each scenario runs with a /dev/shm of its own and makes owners: processes with brokers whose places are in one folder.
Invariant at its end: /dev/shm is empty, and no process knows of that folder but who asks.
"""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped] # ships no types
import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import in_shm
from support.small_shm import play

SERVE = """
import os, shmq, signal, sys, time
with shmq.local() as url, shmq.connect(url, mode="direct") as conn:
    conn.declare_queue("q")
    conn.publish(bytes(100_000), routing_key="q")
    pids = {process.role: process.pid for process in conn.status().processes}
    print(url, pids["master"], pids["broker"], pids["supervisor"], flush=True)
    {work}
"""
ROLES = ("master", "broker", "supervisor")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "scenario",
    [
        "it_ends_in_order",
        "it_ends_with_an_exception",
        "it_ends_without_cleaning_up",
        "its_owner_is_killed",
        "its_owner_is_killed_under_load",
        "its_owner_is_killed_while_it_starts",
        "its_owner_is_stopped_and_killed",
        "its_owner_forked_and_is_killed",
        "its_owner_is_interrupted",
        "it_has_clients_that_live_on",
        "many_end_at_once",
    ],
)
def test_nothing_is_left_when(scenario: str) -> None:
    play(__file__, scenario, mib=64)


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_left_when_its_owner_is_killed_together_with_the(role: str) -> None:
    play(__file__, "its_owner_is_killed_with", role, mib=64)


@pytest.mark.parametrize("role", ROLES)
def test_it_outlives_a_child_and_ends_with_its(role: str) -> None:
    play(__file__, "a_process_of_it_is_killed", role, mib=64)


# -- inside -----------------------------------------------------------------------------------------------------------


class Owner:
    """A process that has a broker: what `SERVE` says, with some work at the end."""

    def __init__(self, work: str, *, wait: bool = True) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE.replace("{work}", work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        self.pids: dict[str, int] = {}
        if wait:
            self.read_places()

    def read_places(self) -> None:
        assert self.process.stdout is not None
        self.url, *pids = self.process.stdout.readline().decode().split()
        self.pids = dict(zip(ROLES, map(int, pids), strict=True)) | {"owner": self.process.pid}

    def kill(self, *roles: str) -> None:
        for role in roles:
            os.kill(self.pids[role], signal.SIGKILL)

    def ends(self) -> tuple[int, str]:
        """Wait for its end; return its code and what it said."""
        _, said = self.process.communicate(timeout=scaled(20))
        return self.process.returncode, said.decode()


@contextlib.contextmanager
def nothing_is_left(*, folder_too: bool = True) -> Iterator[None]:
    """Give the owners a folder; expect it, the process table and /dev/shm to be clean soon after."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        yield
        wait_until(lambda: knowing(folder) == [], "no process is left")
        wait_until(lambda: in_shm() == set(), "nothing is left in /dev/shm")
        if folder_too:
            wait_until(lambda: list(Path(folder).iterdir()) == [], "nothing is left of its places")


def knowing(folder: str) -> list[str]:
    """The command lines, of processes that have not ended, that name the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(folder in word for word in words):
            found.append(" ".join(words))
    return found


def it_ends_in_order() -> None:
    with nothing_is_left():
        assert Owner("pass").ends() == (0, "")


def it_ends_with_an_exception() -> None:
    with nothing_is_left():
        code, said = Owner("raise RuntimeError('mine')").ends()
        assert code == 1
        assert said.rstrip().endswith("RuntimeError: mine")
    with nothing_is_left():
        assert Owner("sys.exit(7)").ends()[0] == 7


def it_ends_without_cleaning_up() -> None:
    with nothing_is_left():
        assert Owner("os._exit(3)").ends()[0] == 3
    with nothing_is_left():
        assert Owner("os.kill(os.getpid(), signal.SIGSEGV)").ends()[0] == -signal.SIGSEGV
    with nothing_is_left():
        owner = Owner("time.sleep(60)")
        owner.process.terminate()
        assert owner.ends()[0] == -signal.SIGTERM


def its_owner_is_killed() -> None:
    with nothing_is_left():
        owner = Owner("time.sleep(60)")
        owner.kill("owner")
        assert owner.ends()[0] == -signal.SIGKILL


def its_owner_is_killed_under_load() -> None:
    for mode in ("direct", "socket"):
        with nothing_is_left():
            work = f"more = shmq.connect(url, mode='{mode}')\n    while 1: more.publish(bytes(300), routing_key='q')"
            owner = Owner(work)
            select.select([], [], [], 0.2)
            owner.kill("owner")
            owner.ends()


def its_owner_is_killed_while_it_starts() -> None:
    """At 40 points of the first half second, before anybody knows where its broker is."""
    dice = random.Random(7)
    with nothing_is_left(folder_too=False):
        for _ in range(40):
            owner = Owner("pass", wait=False)
            select.select([], [], [], dice.uniform(0.05, 0.5))
            owner.process.kill()
            owner.ends()


def its_owner_is_stopped_and_killed() -> None:
    with nothing_is_left():
        owner = Owner("time.sleep(60)")
        os.kill(owner.process.pid, signal.SIGSTOP)
        with shmq.connect(owner.url) as other:
            assert other.queue_info("q").messages == 1
        owner.kill("owner")
        owner.ends()


def its_owner_forked_and_is_killed() -> None:
    """A child that lives on holds nothing of the broker."""
    with nothing_is_left():
        owner = Owner("child = os.fork(); print(flush=True); time.sleep(60)")
        assert owner.process.stdout is not None
        owner.process.stdout.readline()
        children = [
            child for child in psutil.Process(owner.process.pid).children() if child.pid != owner.pids["master"]
        ]
        owner.kill("owner")
        wait_until(lambda: in_shm() == set(), "the broker is gone though a child of its owner lives")
        assert [child.is_running() for child in children] == [True]
        for child in children:
            child.kill()
        owner.ends()


def its_owner_is_interrupted() -> None:
    """Ctrl-C reaches the owner and all that is in the foreground with it, and ends every kind of wait at once."""
    for work in ("time.sleep(60)", "conn.get('empty', timeout=60)", "next(iter(conn.consume('empty')))"):
        with nothing_is_left():
            owner = Owner(f"conn.declare_queue('empty'); print(flush=True); {work}")
            assert owner.process.stdout is not None
            owner.process.stdout.readline()
            started = time.monotonic()
            os.killpg(owner.process.pid, signal.SIGINT)
            code, said = owner.ends()
            assert code == -signal.SIGINT or "KeyboardInterrupt" in said
            assert said.count("Error") == 0, said
            assert time.monotonic() - started < scaled(3)


def it_has_clients_that_live_on() -> None:
    """Clients that are connected, and one that waits, do not keep it; they hear that it is gone."""
    with nothing_is_left():
        owner = Owner("time.sleep(60)")
        client = shmq.connect(owner.url, mode="direct")
        message = client.get("q")
        assert message is not None
        view = message.view()
        owner.kill("owner")
        owner.ends()
        wait_until(lambda: in_shm() == set(), "nothing is left in /dev/shm though somebody has it mapped")
        assert bytes(view) == bytes(100_000)
        with pytest.raises(shmq.SessionError):
            client.queue_info("q")
        with pytest.raises((shmq.SessionError, shmq.NotFound)):
            client.get("q", timeout=None)
        view.release()
        client.close()


def many_end_at_once() -> None:
    """Twelve at a time, ending in all these ways."""
    works = ["pass", "raise SystemExit(1)", "os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"] * 3
    with nothing_is_left():
        owners = [Owner(f"sys.stdin.read(); {work}", wait=False) for work in works]
        for owner in owners:
            owner.read_places()
        for owner in owners:
            owner.ends()


def its_owner_is_killed_with(role: str) -> None:
    for roles in (("owner", role), (role, "owner")):
        with nothing_is_left(folder_too=role != "master"):
            owner = Owner("time.sleep(60)")
            owner.kill(*roles)
            owner.ends()


def a_process_of_it_is_killed(role: str) -> None:
    """A child is started again; without its master a private broker is over, and its owner ends all the same."""
    with nothing_is_left():
        owner = Owner("sys.stdin.readline()", wait=True)
        owner.kill(role)
        if role != "master":
            with shmq.connect(owner.url) as other:
                wait_until(
                    lambda: {p.pid for p in other.status().processes}.isdisjoint({owner.pids[role]}), "it is back"
                )
                assert other.queue_info("q").messages == 1
        owner.process.terminate()
        owner.ends()


SCENARIOS: dict[str, Callable[..., None]] = {
    scenario.__name__: scenario
    for scenario in (
        it_ends_in_order,
        it_ends_with_an_exception,
        it_ends_without_cleaning_up,
        its_owner_is_killed,
        its_owner_is_killed_under_load,
        its_owner_is_killed_while_it_starts,
        its_owner_is_stopped_and_killed,
        its_owner_forked_and_is_killed,
        its_owner_is_interrupted,
        it_has_clients_that_live_on,
        many_end_at_once,
        its_owner_is_killed_with,
        a_process_of_it_is_killed,
    )
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](*sys.argv[2:])
