"""What else a daemon keeps of its permissions: limits, other rules while it runs, files that are its own alone."""

import functools
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shmq
from support.deadline import scaled, wait_until
from support.shmqd import SHM, Shmqd
from support.subjects import (
    DAEMON,
    SOCKET,
    Subject,
    attempt,
    daemon_of,
    grant,
    need_root,
    open_folder,
    refusal_at,
    run_as,
    start_as,
)

ROOT = Path(__file__).parents[2]


# -- other permissions ----------------------------------------------------------------------------------------------


def test_permissions_are_read_again_when_the_master_is_told_so_and_bad_ones_change_nothing() -> None:
    user = Subject(61_001, 61_001)
    with daemon_of(DAEMON, SOCKET + grant("uid = 61001", "read", names="jobs")) as daemon, daemon.connect() as conn:
        conn.declare_queue("jobs")
        conn.declare_queue("other")

        def told(settings: str, line: str) -> None:
            before = daemon.log.read_text().count(line)
            (daemon.folder / "shmqd.toml").write_text(settings)
            os.kill(daemon.pid, signal.SIGHUP)
            wait_until(lambda: daemon.log.read_text().count(line) > before, line)

        def names() -> list[str]:
            with shmq.connect(daemon.url) as mine:
                return [name for name in ("jobs", "other") if attempt(lambda: mine.get(name))[0] == "done"]  # noqa: B023 - called at once

        assert run_as(user, names) == ["jobs"]
        told(SOCKET + grant("uid = 61001", "read"), "permissions read again")
        assert run_as(user, names) == ["jobs", "other"]
        told("[[permissions]]\nuid = 'no such user'", "configuration not read again")
        assert run_as(user, names) == ["jobs", "other"]
        told(SOCKET + grant("uid = 61001", "read", names="other"), "permissions read again")
        daemon.kill("broker")
        wait_until(daemon.serves, "the next broker serves")
        assert run_as(user, names) == ["other"]
        told(SOCKET, "permissions read again")
        assert run_as(user, lambda: refusal_at(daemon.url)[0]) == "AccessRefused"


def test_who_may_do_nothing_any_more_is_sent_away_and_others_keep_their_session() -> None:
    both = grant("uid = 61001", "read") + grant("uid = 61002", "read")
    with daemon_of(DAEMON, SOCKET + both) as daemon:
        with daemon.connect() as conn:
            conn.declare_queue("jobs")

        def work() -> list[Any]:
            with shmq.connect(daemon.url) as mine:
                session = mine._link.session
                mine.get("jobs")
                os.write(connected, b".")
                os.read(go, 1)
                outcome = attempt(lambda: mine.get("jobs"))[0]
                return [outcome, mine._link.session is session]

        (came, connected), (go, release) = os.pipe(), os.pipe()
        users = [start_as(Subject(uid, uid), work) for uid in (61_001, 61_002)]
        for _ in users:
            os.read(came, 1)
        (daemon.folder / "shmqd.toml").write_text(SOCKET + grant("uid = 61002", "read"))
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: "permissions read again" in daemon.log.read_text(), "they are read")
        os.write(release, b"..")
        outcomes = [wait() for wait in users]

    assert outcomes == [["AccessRefused", False], ["done", True]]


# -- limits ---------------------------------------------------------------------------------------------------------


def test_limits_hold_for_each_uid_and_outlive_the_daemon() -> None:
    limits = "limits = { connections = 2, queues = 2, bytes = 100_000_000 }"
    rules = grant("any = true", "configure", "read", "write", more=limits)
    with daemon_of(DAEMON, SOCKET + rules) as daemon:
        flags = ("--config", str(daemon.folder / "shmqd.toml"))

        def declare(conn: shmq.Connection, name: str, messages: int, size: int) -> None:
            conn.declare_queue(name, capacity_messages=messages, capacity_bytes=size)

        def work() -> list[str]:
            with shmq.connect(daemon.url) as one, shmq.connect(daemon.url):
                refused = [refusal_at(daemon.url)[0]]
                sizes = {"large": (1 << 20, 0), "small": (8, 0), "second": (8, 0), "third": (8, 0)}
                for name, (messages, size) in sizes.items():
                    refused.append(attempt(functools.partial(declare, one, name, messages, size))[0])
                return refused

        def again() -> str:
            with shmq.connect(daemon.url) as conn:
                return attempt(lambda: declare(conn, "third", 8, 0))[0]

        first, second = Subject(61_001, 61_001), Subject(61_002, 61_002)
        assert run_as(first, work) == ["NotAllowed", "NotAllowed", "done", "done", "NotAllowed"]
        daemon.stop()
        daemon.start(*flags)
        assert run_as(first, again) == "NotAllowed"
        assert run_as(second, again) == "done"


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("uid", [0, DAEMON.uid])
def test_every_file_and_segment_is_the_daemons_alone_whatever_the_umask(umask: int, uid: int) -> None:
    need_root()
    before = os.umask(umask)
    try:
        with daemon_of(Subject(uid, uid), "") as daemon, daemon.connect() as conn:
            conn.declare_queue("jobs")
            conn.publish(bytes(1 << 20), routing_key="jobs")
            files = {path.name: path.stat() for path in daemon.data.iterdir()}
            files |= {name: (SHM / name).stat() for name in daemon.segments()}
            folder, door = daemon.data.stat(), daemon.socket.stat()
    finally:
        os.umask(before)

    assert {"lock", "state.db", "instance", "supervisor.sock"} <= set(files)
    assert len([name for name in files if name.startswith("shmq-")]) == 4  # as in test_daemon_life.py
    assert {name: (stat.S_IMODE(status.st_mode), status.st_uid) for name, status in files.items()} == dict.fromkeys(
        files, (0o600, uid)
    )
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o700, uid)
    assert (stat.S_IMODE(door.st_mode), door.st_uid) == (0o600, uid)


def test_a_folder_made_for_the_socket_lets_others_pass_only_where_it_is_the_systems() -> None:
    need_root()
    before = os.umask(0o077)
    try:
        with open_folder() as folder:
            for name, uid in (("root", 0), ("user", DAEMON.uid)):
                daemon = Shmqd(folder)
                daemon.socket, daemon.data = folder / name / "shmq.sock", folder / f"{name}.data"
                become = f"os.setresuid({uid}, {uid}, {uid})"
                text = f"import os, encodings.ascii; from shmq_daemon import main; {become}; main.main()"
                daemon.command = [sys.executable, "-P", "-c", text]
                try:
                    daemon.start()
                finally:
                    daemon.close()
            modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("root", "user")}
    finally:
        os.umask(before)

    assert modes == {"root": 0o755, "user": 0o700}


def test_a_bad_permission_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    config = tmp_path / "shmqd.toml"
    config.write_text('[[permissions]]\nuid = "no such user"\nread = ["*"]\n')
    done = Shmqd(tmp_path).run("--config", str(config))

    assert done.returncode == 1
    assert f"{config}:1: permissions[0]: there is no user 'no such user' on this host" in done.stderr
    wait_until(lambda: not (tmp_path / "shmq.sock").exists(), "no socket is there")


# -- the figure -----------------------------------------------------------------------------------------------------


def test_the_figure_of_one_to_one_can_be_taken_between_three_users() -> None:
    need_root()
    plan = ["--n", "2000", "--runs", "1", "--uids", "61000", "61001", "61002"]
    command = [sys.executable, str(ROOT / "benchmarks/one_to_one.py"), *plan]
    run = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)

    assert "under uids 61000, 61001, 61002" in run.stdout, run.stderr
    assert "median:" in run.stdout, run.stderr
