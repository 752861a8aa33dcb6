"""The broker: one event loop that admits clients and answers their frames.

Owns: the listening socket, the dispatch from frame type to method, the order of a start. Does not own: who may send
which frame (gate.py), what a frame does (control.py, publishing.py, consuming.py, reporting.py), memory and state
(catalog.py), clients' lives (clients.py).
Invariants: no frame is acted on before the gate let it through; nothing waits on a peer; a failure of one request is an
answer to it; one session's garbage ends that session.
"""

import errno
import functools
import os
import resource
import signal
import socket
import time
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from shmq.errors import AccessRefused, ConnectionLost, InternalError, RemoteFrameError, ShmqError
from shmq.limits import HELLO_TIMEOUT_SECONDS
from shmq.wire import frames as wire
from shmq.wire.codes import GOODBYE, to_wire
from shmq.wire.states import State
from shmq_daemon import policy, principals, segments, state
from shmq_daemon.catalog import Catalog
from shmq_daemon.clients import Client, Clients, End
from shmq_daemon.consuming import Consuming
from shmq_daemon.control import Control
from shmq_daemon.events import Event, QueueDeleted
from shmq_daemon.gate import Gate
from shmq_daemon.instance import Byte, wait_for_predecessor
from shmq_daemon.log import logger
from shmq_daemon.loop import READ, Loop, Timers
from shmq_daemon.master import Instance
from shmq_daemon.opened import OpenQueue
from shmq_daemon.peer import identify
from shmq_daemon.process import Child, die_with
from shmq_daemon.publishing import Publishing
from shmq_daemon.replies import Replies
from shmq_daemon.reporting import Reporting
from shmq_daemon.session import Session
from shmq_daemon.supervision import Supervision
from shmq_daemon.unused import Unused
from shmq_daemon.watched import QUARANTINED
from shmq_daemon.watermark import MEMORY, SHM_FULL, STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable

HELLO_NS: Final = int(HELLO_TIMEOUT_SECONDS * 1e9)
ACCEPTED_MAX: Final = 64  # in one turn of the loop
DESCRIPTORS_RESERVED: Final = 256  # for the work of those who are connected
DESCRIPTORS_OF_SESSIONS: Final = 4096  # that queues leave to them, one or two each
NO_DESCRIPTORS_REST_NS: Final = 100_000_000
OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Broker:
    """One process's work."""

    def __init__(self, instance: Instance, loop: Loop, restarts: int) -> None:
        self._instance = instance
        self._loop = loop
        self._restarts = restarts
        self._started_ns = time.monotonic_ns()
        self._log = logger("broker")
        self._timers = Timers(time.monotonic_ns)
        self._supervision = Supervision(loop, self._timers, self._log)
        self._sessions: set[Session] = set()
        self.unflushed: set[Session] = set()
        self._blocked_reason = ""
        self._reload_wanted = False
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._descriptors_max = limit - min(limit // 4, DESCRIPTORS_RESERVED)

    # -- the life of the process ------------------------------------------------------------------------------

    def start(self) -> None:
        """Adopt what is there, then let clients in."""
        signal.signal(signal.SIGHUP, self._on_hang_up)
        config, places = self._instance.config, self._instance.places
        kept, supervisor_bell = self._supervision.ask_for_bells()
        sizes = policy.Sizes(config.queue_capacity, config.queue_capacity_bytes, config.queue_inline_bytes)
        store = state.State(places.state, state.boot_id())
        for_queues = self._descriptors_max - min(self._descriptors_max // 4, DESCRIPTORS_OF_SESSIONS)
        self._catalog = Catalog(store, sizes, self._loop, self._log, for_queues)
        self._clients = Clients(self._catalog, self._instance.policy, self._loop, self._timers, self._log)
        self._gate = Gate(self._catalog.topology)
        self._publishing = Publishing(self._catalog, self._loop, self._timers, self._log)
        self._consuming = Consuming(self._catalog, self._loop, self._timers, self._log)
        self._unused = Unused(self._catalog, self._timers, self._log)
        self._control = Control(self._catalog, self._supervision.releases)
        self._consuming.replies = Replies(self._catalog, self._control.make)
        self._reporting = Reporting(
            self._catalog,
            self._clients,
            self._supervision,
            master_ns=self._instance.started_ns,
            started_ns=self._started_ns,
            restarts=self._restarts,
        )
        self._dispatch: dict[type, Callable[[Client, Any], None]] = {
            wire.Goodbye: self._on_goodbye,
            **self._control.table(),
            **self._publishing.table(),
            **self._consuming.table(),
            **self._reporting.table(),
        }
        self._clients.on_session_end = self._consuming.session_ended
        self._clients.on_end = self._on_client_end
        self._consuming.on_damage = self._on_damage
        self._clients.tell = self._supervision.tell
        self._supervision.on_alarms = self._tell_alarms
        self._catalog.adopt(kept, supervisor_bell)
        self._clients.adopt()
        self._catalog.on_event = self._on_event
        self._unused.begin()
        self._supervision.begin(self._catalog, self._clients)
        self._loop.add(self._instance.listener.fileno(), self._on_connect)
        if store.fresh:
            self._log.info(
                "begun with an empty state; durability is memory: it survives this daemon's end, not a reboot",
                why=store.fresh,
            )

    def _on_hang_up(self, _signal: int, _frame: FrameType | None) -> None:
        """The master's word that there are other permissions."""
        self._reload_wanted = True

    def _reload(self) -> None:
        self._reload_wanted = False
        policy = principals.read_again(self._instance.config_file, os.geteuid(), self._log)
        if policy is not None:
            self._clients.follow(policy)
            self._log.info("permissions read again", rules=len(policy.rules))

    def tick(self, now_ns: int) -> int | None:
        if self._reload_wanted:
            self._reload()
        self._timers.tick(now_ns)
        self._consuming.tick()
        for session in list(self.unflushed):
            session.go_on()
        # asked last: what a session was held up with may be an ack that makes room, and all of it may set a time
        return now_ns if self._consuming.has_more or self.unflushed else self._timers.due_ns

    def stop(self) -> None:
        """Tell every session, so that nobody waits for an answer; messages and queues stay, unless we are ephemeral."""
        self._loop.remove(self._instance.listener.fileno())
        gone = self._instance.ephemeral
        reason = "its owner has let it go" if gone else "shmqd stops"
        closing = wire.Closing(*to_wire(ConnectionLost(reason=reason, gone=gone)))
        for session in list(self._sessions):
            session.say_last(closing)
        if gone:
            self._catalog.mark_all_deleted()
        self._catalog.close()
        self._log.info("stopped")

    def master_died(self) -> None:
        """Nothing to save: every change was recorded before it was answered."""

    # -- sessions ---------------------------------------------------------------------------------------------

    def _on_connect(self, _events: int) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                connection, _ = self._instance.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._rest(error)
                return
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        try:
            peer = identify(connection)
        except OSError:
            connection.close()
            return
        session = Session(
            connection,
            peer,
            self._loop,
            self._timers,
            self,
        )
        self._sessions.add(session)
        if connection.fileno() >= self._descriptors_max:
            session.end(
                ConnectionLost(reason=f"shmqd has no descriptors left for more than {len(self._sessions)} sessions")
            )
            return
        self._timers.after(HELLO_NS, functools.partial(self._check_hello, session))

    def _rest(self, error: OSError) -> None:
        """Out of descriptors: those who are here are served, new ones wait in the kernel's queue, nobody spins."""
        self._log.warning("no more connections for now", why=str(error), sessions=len(self._sessions))
        listener = self._instance.listener.fileno()
        self._loop.remove(listener)
        self._timers.after(NO_DESCRIPTORS_REST_NS, lambda _now_ns: self._loop.add(listener, self._on_connect, READ))

    @staticmethod
    def _check_hello(session: Session, _now_ns: int) -> None:
        if session.client is None and session.open:
            session.end(RemoteFrameError(f"no hello within {HELLO_TIMEOUT_SECONDS:g} s"))

    def on_frame(self, session: Session, frame: wire.ClientFrame) -> None:
        client = session.client
        if client is None:
            assert isinstance(frame, wire.Hello), "the states of a session let nothing else through"
            self._on_hello(session, frame)
            return
        try:
            self._gate.check(client.access, frame)
            self._dispatch[type(frame)](client, frame)
        except ShmqError as error:
            if error.ends_session:
                raise
            session.send(wire.Error(getattr(frame, "seq", 0), *to_wire(error)))
        except Exception:  # noqa: BLE001 - a fault of ours costs one request, not the broker
            self._log.exception("request failed", request=type(frame).__name__, client=client.owner)
            session.send(wire.Error(getattr(frame, "seq", 0), *to_wire(InternalError())))

    def _on_hello(self, session: Session, frame: wire.Hello) -> None:
        try:
            client = self._clients.hello(session, frame)
        except ShmqError as error:
            if isinstance(error, AccessRefused):
                self._log.warning("peer refused", pid=session.peer.pid, uid=session.peer.uid, gid=session.peer.gid)
            session.say_last(wire.Closing(*to_wire(error)))
            return
        except OSError as error:
            self._log.warning("peer not admitted", pid=session.peer.pid, why=str(error))
            session.end(ConnectionLost(reason=f"shmqd can't take another session now: {error.strerror}"))
            return
        if self._blocked_reason and client.session is not None:
            client.session.send(wire.Blocked(self._blocked_reason))

    def _on_goodbye(self, client: Client, frame: wire.Goodbye) -> None:
        session = client.session
        self._clients.goodbye(client, clean=frame.clean)
        if session is not None:
            session.say_last(wire.Closing(GOODBYE))

    def on_session_end(self, session: Session) -> None:
        self._sessions.discard(session)
        if session.client is not None and session.client.session is session:
            self._clients.session_ended(session.client)

    def on_room(self, client: Client) -> None:
        """A session that had too much to write has room again."""
        self._consuming.wake_all_of(client)

    def _on_client_end(self, client: Client, how: End) -> None:
        self._consuming.client_ended(client, how)

    # -- what changes for all ---------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, QueueDeleted):
            opened = self._catalog.leaving
            assert opened is not None
            self._consuming.queue_deleted(opened)
            self._publishing.queue_deleted(opened)
            self._supervision.clear_alarm(QUARANTINED, opened.name)
        self._unused.on_event(event)
        self._supervision.tell_event(event)

    def _on_damage(self, opened: OpenQueue, error: ShmqError) -> None:
        """A queue that failed a check while nobody asked stops only itself."""
        self._catalog.set_apart(opened, error)
        told = opened.set_apart_error()
        self._supervision.raise_alarm(QUARANTINED, opened.name, str(told))
        self._consuming.end_all(opened, str(told), told)
        self._publishing.end_all(opened, told)

    def _tell_alarms(self) -> None:
        """Blocked once with a reason when the first such alarm is raised, unblocked once when none is left."""
        reason = self._why_blocked()
        if bool(reason) == bool(self._blocked_reason):
            return
        self._blocked_reason = reason
        frame = wire.Blocked(reason) if reason else wire.Unblocked()
        for client in self._clients:
            if client.session is not None and client.session.wire.state is State.OPEN:
                client.session.send(frame)

    def _why_blocked(self) -> str:
        """Nothing that names a queue: not everybody may see it."""
        alarms = self._supervision.alarms
        standing = alarms.get((SHM_FULL, str(segments.SHM)))
        if standing is None and any(alarm.kind == STOPPED for alarm in alarms.values()):
            standing = alarms.get((MEMORY, str(segments.SHM)))
        return standing.text if standing is not None else ""


def run(instance: Instance, lifeline: socket.socket, restarts: int) -> None:
    """The broker's process."""
    die_with(os.getppid(), signal.SIGKILL)
    loop = Loop()
    wait_for_predecessor(instance.lock_fd, Byte.BROKER)
    Child(loop, lifeline, Broker(instance, loop, restarts)).run()
