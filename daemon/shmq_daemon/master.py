"""The first process: takes the instance, forks broker and supervisor, starts them again, stops them in order.

Owns: the children's lives, signals, what the service manager is told. Does not own: queues, clients, state: it maps
no segment and reads no frame, so nothing a client does can end it.
Invariants: children are forked after all imports, so their memory is shared; one that can't be forked is tried again;
WATCHDOG=1 is sent only when every child has answered the question of this round; the lock ends with this process.
"""

import contextlib
import functools
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

from shmq_daemon import discard, principals
from shmq_daemon.config import Config
from shmq_daemon.instance import Byte
from shmq_daemon.log import logger
from shmq_daemon.loop import Loop, Timers
from shmq_daemon.notify import Notifier
from shmq_daemon.permissions import Policy
from shmq_daemon.places import Places
from shmq_daemon.process import ALIVE, ASK, CANT_SERVE, READY, fork_child

STOP_NS_MAX: Final = 5_000_000_000  # for a child to end in order
QUIET_NS: Final = 5_000_000_000  # a child that served this long is started again at once
BACK_OFF_NS: Final = 50_000_000  # doubled with every death since it was quiet
BACK_OFF_SERVED_NS_MAX: Final = 100_000_000  # one that served is back within a second, whatever kills it
BACK_OFF_NS_MAX: Final = 5_000_000_000  # one that does not come up must not burn the host


class Instance(NamedTuple):
    """What the master took before it forks; children inherit it."""

    config: Config
    config_file: Path | None
    policy: Policy
    places: Places
    lock_fd: int
    listener: socket.socket
    link_listener: socket.socket
    ephemeral: bool
    started_ns: int


ChildMain = Callable[[Instance, socket.socket, int], None]
"""Called with what the master took, the lifeline, and how often this child was started again."""


class Kid:
    """One child as the master sees it."""

    def __init__(self, role: Byte, main: ChildMain) -> None:
        self.role = role
        self.name = role.name.lower()
        self.main = main
        self.pid = 0
        self.pidfd = -1
        self.lifeline: socket.socket | None = None
        self.ready = False
        self.answered = False
        self.started_ns = 0
        self.deaths = 0  # since it was quiet
        self.restarts = 0

    def back_off_ns(self, now_ns: int) -> int:
        """How long to wait before the next start, after this death."""
        if now_ns - self.started_ns > QUIET_NS:
            self.deaths = 0
        self.deaths += 1
        limit = BACK_OFF_SERVED_NS_MAX if self.ready else BACK_OFF_NS_MAX
        return min(BACK_OFF_NS * (2 ** min(self.deaths - 2, 10)), limit) if self.deaths > 1 else 0


class Master:
    """Runs an instance until a signal, or the end of the lifeline of an ephemeral one."""

    def __init__(self, instance: Instance, mains: Mapping[Byte, ChildMain], notifier: Notifier) -> None:
        self._instance = instance
        self._kids = [Kid(role, main) for role, main in mains.items()]
        self._notifier = notifier
        self._loop = Loop()
        self._timers = Timers(time.monotonic_ns)
        self._log = logger("master")
        self._stopping = False
        self._refused = False
        self._announced = False
        self._reload_wanted = False
        self._reloaded_ns = 0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> bool:
        """Serve until told to stop. False: what is there can't be served, and the log says why."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_terminate)
        signal.signal(signal.SIGHUP, self._on_hang_up)
        self._loop.add(self._wake_read, self._on_wake)
        if self._instance.ephemeral:
            self._loop.add(sys.stdin.fileno(), self._on_owner)
        gc.collect()
        gc.freeze()
        for kid in self._kids:
            self._start(kid)
        self._ask_round(time.monotonic_ns())
        while not self._stopping:
            now = time.monotonic_ns()
            deadline = self._timers.tick(now)
            self._loop.poll(None if deadline is None else deadline - now)
            if self._reload_wanted:
                self._reload()
        self._stop_all()
        return not self._refused

    # -- starting ---------------------------------------------------------------------------------------------

    def _start(self, kid: Kid, now_ns: int = 0) -> None:
        if self._stopping:
            return
        kid.ready, kid.started_ns = False, now_ns or time.monotonic_ns()
        try:
            self._fork(kid)
        except OSError as error:  # no process, memory or descriptor left for now: that must not end what still serves
            delay = kid.back_off_ns(kid.started_ns)
            self._log.error("child not started", child=kid.name, why=str(error), tried_again_in_ms=delay // 10**6)
            self._timers.at(kid.started_ns + delay, functools.partial(self._start, kid))

    def _fork(self, kid: Kid) -> None:
        """Raises OSError; then there is no child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        ours.setblocking(False)
        theirs.setblocking(False)
        pid = 0
        try:
            pid = fork_child(kid.name, functools.partial(self._in_child, kid, ours, theirs))
            kid.pidfd = os.pidfd_open(pid)
        except OSError:
            ours.close()
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise
        finally:
            theirs.close()
        kid.pid, kid.lifeline = pid, ours
        self._loop.add(kid.pidfd, functools.partial(self._on_death, kid))
        self._loop.add(ours.fileno(), functools.partial(self._on_word, kid))

    def _in_child(self, kid: Kid, ours: socket.socket, theirs: socket.socket) -> None:
        """Close what is the master's alone: a copy of a lifeline would keep the others from seeing the master's end."""
        ours.close()
        for other in self._kids:
            if other.lifeline is not None:
                other.lifeline.close()
            if other.pidfd >= 0:
                os.close(other.pidfd)
        self._loop.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        if self._instance.ephemeral:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, sys.stdin.fileno())
            os.close(nothing)
        kid.main(self._instance, theirs, kid.restarts)

    # -- watching ---------------------------------------------------------------------------------------------

    def _on_word(self, kid: Kid, _events: int) -> None:
        try:
            words = kid.lifeline.recv(64) if kid.lifeline else b""
        except OSError:
            words = b""
        if READY in words:
            kid.ready = True
            self._announce()
            if kid.started_ns < self._reloaded_ns:  # it may have come up without hearing of that
                self._tell_of_reload(kid)
        if ALIVE in words:
            kid.answered = True
            if all(other.answered for other in self._kids):
                self._notifier.tell(WATCHDOG="1")
        if not words and kid.lifeline is not None:
            self._loop.remove(kid.lifeline.fileno())  # its pidfd tells the rest

    def _announce(self) -> None:
        serving = all(kid.ready for kid in self._kids)
        path = self._instance.places.socket
        self._notifier.tell(STATUS=f"serving {path}" if serving else "starting")
        if serving and not self._announced:
            self._announced = True
            self._notifier.tell(READY="1", MAINPID=str(os.getpid()))
            self._log.info("ready", socket=str(path), data=str(self._instance.places.data), durability="memory")

    def _ask_round(self, now_ns: int) -> None:
        """Ask each child whether its loop runs. Without a watchdog nobody wants to know, and nobody is woken."""
        period = self._notifier.watchdog_ns
        if period is None:
            return
        for kid in self._kids:
            kid.answered = False
            if kid.lifeline is not None:
                with contextlib.suppress(OSError):
                    kid.lifeline.send(ASK, socket.MSG_NOSIGNAL)
        self._timers.at(now_ns + period, self._ask_round)

    def _on_death(self, kid: Kid, _events: int) -> None:
        pid, status = os.waitpid(kid.pid, os.WNOHANG)
        if pid == 0:
            return
        self._forget(kid)
        if os.waitstatus_to_exitcode(status) == CANT_SERVE:
            self._refused = self._stopping = True
            return
        now = time.monotonic_ns()
        delay = kid.back_off_ns(now)
        self._log.warning(
            "child ended",
            child=kid.name,
            pid=pid,
            exit_code=os.waitstatus_to_exitcode(status),
            restart_in_ms=delay // 10**6,
        )
        kid.ready = False
        kid.restarts += 1
        if delay:
            self._timers.at(now + delay, functools.partial(self._start, kid))
        else:
            self._start(kid)

    def _forget(self, kid: Kid) -> None:
        self._loop.remove(kid.pidfd)
        os.close(kid.pidfd)
        if kid.lifeline is not None:
            self._loop.remove(kid.lifeline.fileno())
            kid.lifeline.close()
        kid.pid, kid.pidfd, kid.lifeline = 0, -1, None

    # -- reading the configuration again ----------------------------------------------------------------------

    def _on_hang_up(self, _signal: int, _frame: FrameType | None) -> None:
        self._reload_wanted = True

    def _reload(self) -> None:
        """Permissions alone change while we run: a broker to come has the new ones, the one that is there reads them.

        A configuration that can't be used changes nothing.
        """
        self._reload_wanted = False
        policy = principals.read_again(self._instance.config_file, os.geteuid(), self._log)
        if policy is None:
            return
        self._instance = self._instance._replace(policy=policy)
        self._reloaded_ns = time.monotonic_ns()
        for kid in self._kids:
            self._tell_of_reload(kid)

    @staticmethod
    def _tell_of_reload(kid: Kid) -> None:
        if kid.role == Byte.BROKER and kid.pid:
            os.kill(kid.pid, signal.SIGHUP)

    # -- stopping ---------------------------------------------------------------------------------------------

    def _on_terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _on_wake(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 64)

    def _on_owner(self, _events: int) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self._stopping = True

    def _stop_all(self) -> None:
        """Broker first, so that the supervisor hears its last words; then the supervisor."""
        self._notifier.tell(STOPPING="1", STATUS="stopping")
        for kid in self._kids:
            if kid.pid:
                self._stop(kid)
        if self._instance.ephemeral:
            discard.discard_everything(self._instance.places)
        self._log.info("stopped", segments="discarded" if self._instance.ephemeral else "kept")

    def _stop(self, kid: Kid) -> None:
        self._loop.remove(kid.pidfd)
        os.kill(kid.pid, signal.SIGTERM)
        ended = Loop()
        ended.add(kid.pidfd, lambda _events: None)
        ended.poll(STOP_NS_MAX)
        ended.close()
        if os.waitpid(kid.pid, os.WNOHANG)[0] == 0:
            self._log.error("child does not stop, killed", child=kid.name, pid=kid.pid)
            os.kill(kid.pid, signal.SIGKILL)
            os.waitpid(kid.pid, 0)
        self._forget(kid)
