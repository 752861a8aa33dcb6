"""One daemon per place."""

import contextlib
import ctypes
import fcntl
import os
import platform
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmq.errors import AlreadyRunning, ConfigError
from shmq_daemon import instance, peer, places
from support.deadline import scaled, wait_until
from support.needs import missing

EXIT_OF_A_THREAD = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # _exit(2) of the calling thread alone


def test_a_lock_is_not_inherited_and_names_its_holder(tmp_path: Path) -> None:
    fd = instance.take_lock(tmp_path / "lock")
    pid = os.fork()
    if pid == 0:
        try:
            instance.take_lock(tmp_path / "lock")
        except AlreadyRunning as error:
            os._exit(0 if error.pid == os.getppid() else 2)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(fd)


@contextlib.contextmanager
def orphan(keep: Callable[[], object]) -> Iterator[int]:
    """A child that has something until it ends, as those of a killed master; yields its pid."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kept = keep()  # noqa: F841 - kept open
            os.write(write, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.read(read, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)


def later(pid: int) -> threading.Timer:
    """Let it end in a moment."""
    timer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    timer.start()
    return timer


def locked(path: Path, byte: instance.Byte) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, byte)
    return fd


@pytest.mark.parametrize("byte", [instance.Byte.BROKER, instance.Byte.SUPERVISOR])
def test_a_new_master_waits_for_the_children_of_a_killed_one(tmp_path: Path, byte: instance.Byte) -> None:
    with orphan(lambda: locked(tmp_path / "lock", byte)) as pid:
        timer = later(pid)
        fd = instance.take_lock(tmp_path / "lock")

        assert timer.finished.is_set()
        os.close(fd)


def test_a_child_of_a_killed_master_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "ORPHANS_SECONDS_MAX", 0.05)  # nobody wants to wait five seconds here
    with orphan(lambda: locked(tmp_path / "lock", instance.Byte.BROKER)) as pid:
        with pytest.raises(AlreadyRunning) as refused:
            instance.take_lock(tmp_path / "lock")
        assert refused.value.pid == pid

    os.close(instance.take_lock(tmp_path / "lock"))  # nothing is left locked


def test_a_socket_that_a_dying_child_of_a_killed_master_still_has_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with orphan(lambda: _listened_by_the_dead(path)) as pid:
        assert instance.who_listens(path) is not None
        timer = later(pid)
        instance.bind_listener(path).close()

        assert timer.finished.is_set()


def _listened_by_the_dead(path: Path) -> socket.socket:
    """In a child: the one who listened has ended, the socket is open here."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        listener = instance.bind_listener(path)
        socket.send_fds(there, [b"!"], [listener.fileno()])
        os._exit(0)
    _, (fd,), _, _ = socket.recv_fds(here, 1, 1)
    os.waitpid(pid, 0)
    return socket.socket(fileno=fd)


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    instance.bind_listener(path).close()
    listener = instance.bind_listener(path)
    with pytest.raises(AlreadyRunning):
        instance.bind_listener(path)
    listener.close()


def test_of_two_who_find_a_stale_socket_at_the_same_time_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.sock"
    instance.bind_listener(path).close()
    bound: list[socket.socket] = []
    other = threading.Thread(target=lambda: bound.append(instance.bind_listener(path)))

    def who_listens(path: Path) -> int | None:
        """The other one comes when we have found that nobody listens."""
        found = nobody_listens(path)
        if not other.ident:
            other.start()
            other.join(0.2)
        return found

    nobody_listens = instance.who_listens
    monkeypatch.setattr(instance, "who_listens", who_listens)
    monkeypatch.setattr(threading, "excepthook", lambda _refused: None)
    with contextlib.suppress(AlreadyRunning):
        bound.append(instance.bind_listener(path))
    other.join(scaled(5))

    assert len(bound) == 1
    assert nobody_listens(path) == os.getpid()
    bound[0].close()


def test_who_holds_the_socket_directory_for_ever_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "ALONE_SECONDS_MAX", 0.1)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    instance.bind_listener(tmp_path / "s.sock").close()
    os.close(held)


def test_what_is_no_socket_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is no socket"):
        instance.bind_listener(path)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        instance.bind_listener(tmp_path / ("x" * 120))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listen(path: Path, group: int | str | None = None, mode: int | None = None) -> None:
    instance.bind_listener(path, group, mode).close()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_socket_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "group_id_or_none", lambda _name: None)  # a host without the group
    before = os.umask(umask)
    try:
        for number, (mode, expected) in enumerate([(None, 0o600), (0o666, 0o666), (0o640, 0o640)]):
            path = tmp_path / f"{number}.sock"
            listen(path, None, mode)
            assert mode_of(path) == expected
    finally:
        os.umask(before)


def test_a_socket_with_a_group_is_open_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gid = os.getegid()
    monkeypatch.setattr(instance, "group_id_or_none", lambda _name: gid)  # a host that has it
    listen(tmp_path / "default.sock")
    listen(tmp_path / "own.sock", gid)

    for name in ("default.sock", "own.sock"):
        assert ((tmp_path / name).stat().st_gid, mode_of(tmp_path / name)) == (gid, 0o660)


def test_the_group_is_left_out_by_a_daemon_of_one_of_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "group_id_or_none", lambda _name: 4711)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # a member, and not by its own group
    monkeypatch.setattr(os, "getegid", lambda: 1000)

    assert instance._default_group() is None


def test_a_group_that_is_not_there_is_an_error_of_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="socket_group: there is no group 'no such group'"):
        listen(tmp_path / "s.sock", "no such group")


def test_root_has_the_systems_places_and_users_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert places.choose(None, None) == places.Places(Path("/run/shmq/shmq.sock"), Path("/var/lib/shmq"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # a user
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/a/.state")

    assert places.choose(None, None) == places.Places(
        Path("/run/user/1000/shmq/shmq.sock"), Path("/home/a/.state/shmq")
    )


def test_paths_become_absolute() -> None:
    chosen = places.choose("s.sock", "data")

    assert chosen.socket.is_absolute()
    assert chosen.data.is_absolute()


def test_a_peer_is_known_by_pid_start_time_and_pidfd() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = peer.identify(ours)

    assert (found.pid, found.uid, found.start_time) == (os.getpid(), os.geteuid(), peer.start_time(os.getpid()))
    assert not peer.is_dead(found.pidfd)
    os.close(found.pidfd)


@pytest.mark.parametrize("count", [0, 3, 256, 257, 2000])
def test_a_peer_is_known_by_all_its_groups(count: int) -> None:
    if os.geteuid() != 0:
        missing("root, to have other groups")
    before = os.getgroups()
    os.setgroups(range(10_000, 10_000 + count))
    try:
        ours, theirs = socket.socketpair()
    finally:
        os.setgroups(before)
    with ours, theirs:
        found = peer.identify(ours)

    os.close(found.pidfd)
    assert sorted(found.groups) == list(range(10_000, 10_000 + count))


def test_another_process_with_the_same_pid_is_not_the_same() -> None:
    assert peer.reopen(os.getpid(), peer.start_time(os.getpid()) + 1) == -1
    fd = peer.reopen(os.getpid(), peer.start_time(os.getpid()))
    assert fd >= 0
    os.close(fd)


def test_a_dead_process_is_seen_as_dead() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)

    assert peer.is_dead(pidfd)
    assert peer.is_ending(pid, pidfd)
    assert peer.start_time(pid) == 0
    os.close(pidfd)


def test_a_process_that_has_begun_to_end_is_seen_to_be_ending() -> None:
    """Its first thread has ended and the other waits, as while the kernel takes a process down."""
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=time.sleep, args=(60,)).start()
        ctypes.CDLL(None).syscall(EXIT_OF_A_THREAD, 0)
    pidfd = os.pidfd_open(pid)
    assert not peer.is_ending(os.getpid(), pidfd)
    wait_until(lambda: peer.is_ending(pid, pidfd), "it has begun to end")

    assert not peer.is_dead(pidfd)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pidfd)
