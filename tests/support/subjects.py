"""Processes of other users: work done in a child that has become somebody else, and a daemon that is nobody's root."""

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import shmq
from shmq.errors import ShmqError
from support.deadline import scaled
from support.needs import missing
from support.shmqd import Shmqd

BEFORE_IT_BECOMES_ANOTHER = """
import os, sys
import encodings.ascii  # now: it may not be able to read Python's files later
from shmq_daemon import main
{first}
os.setgroups([])
os.setresgid({gid}, {gid}, {gid})
os.setresuid({uid}, {uid}, {uid})
sys.exit(main.main())
"""


class Subject(NamedTuple):
    """Who a process is. Numbers need no names on this host."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def become(self) -> None:
        """Be this one for the rest of the process."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


DAEMON = Subject(61_000, 61_000)
SOCKET = "socket_mode = 0o666\n"


def need_root() -> None:
    """Skip the running test where it can't become somebody else."""
    if os.geteuid() != 0:
        missing("root, to become somebody else")


def run_as(subject: Subject, work: Callable[[], Any]) -> Any:  # what the work returns, as JSON has it
    """Do the work in a process of this subject and return what it returned."""
    return start_as(subject, work)()


def start_as(subject: Subject, work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin the work in a process of this subject. Returns what waits for its end and returns what it returned."""
    need_root()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _answer(write, subject, work)
    os.close(write)

    def wait() -> Any:
        with os.fdopen(read, "rb") as answer:
            text = answer.read()
        os.waitpid(pid, 0)
        done = json.loads(text) if text else {"failed": "it died"}
        assert "failed" not in done, f"{subject}: {done['failed']}"
        return done["returned"]

    return wait


def attempt(work: Callable[[], object]) -> tuple[str, str]:
    """What came of it: the name of an error, and its text."""
    try:
        work()
    except ShmqError as error:
        return type(error).__name__, str(error)
    return "done", ""


def refusal_at(url: str, mode: str = "auto") -> tuple[str, str]:
    """What came of connecting."""
    return attempt(lambda: shmq.connect(url, mode=mode, timeout=scaled(5)).close())  # type: ignore[arg-type] # a mode


def grant(principal: str, *permissions: str, names: str = "*", more: str = "") -> str:
    """A table of the configuration."""
    lines = [f'{permission} = ["{names}"]' for permission in permissions]
    return "\n".join(["[[permissions]]", principal, *lines, more, ""])


def _answer(fd: int, subject: Subject, work: Callable[[], Any]) -> None:
    try:
        subject.become()
        said = json.dumps({"returned": work()})
    except BaseException:  # noqa: BLE001 - the parent tells
        said = json.dumps({"failed": traceback.format_exc()})
    with os.fdopen(fd, "w") as out:
        out.write(said)
    os._exit(0)


@contextmanager
def open_folder(owner: Subject = DAEMON) -> Iterator[Path]:
    """A folder that everybody may pass through: pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="shmq-"))
    try:
        folder.chmod(0o711)
        os.chown(folder, owner.uid, owner.gid)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def daemon_of(subject: Subject, settings: str, first: str = "") -> Iterator[Shmqd]:
    """A daemon that runs as this subject. `first`: what its process does while it is still root's."""
    need_root()
    with open_folder(subject) as folder:
        config = folder / "shmqd.toml"
        config.write_text(settings)
        config.chmod(0o644)
        daemon = Shmqd(folder)
        text = BEFORE_IT_BECOMES_ANOTHER.format(first=first, uid=subject.uid, gid=subject.gid)
        daemon.command = [sys.executable, "-P", "-c", text]
        try:
            daemon.start("--config", str(config))
            yield daemon
        finally:
            daemon.close()
