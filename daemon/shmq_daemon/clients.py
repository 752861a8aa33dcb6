"""The clients of the broker: who said hello, whose session is lost, who is gone.

Owns: admission, what a client may do (as who the kernel named it at its last hello), connection ids and secrets,
resuming, the life of a client index, exclusive queues' end. Does not own: rules (permissions.py), sockets (session.py),
what a client has out (consuming.py), repairs in segments (the supervisor).
Invariants: a client is dead when its pidfd says so, or its socket where there is no pidfd; the end of a socket alone
only loses the session; an index is free again only when the supervisor has reaped it.
"""

import functools
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal

from shmq._version import __version__
from shmq.core import _core
from shmq.errors import AccessRefused, DirectRefused, LayoutMismatch, NotAllowed, ShmqError
from shmq.limits import PROTOCOL, RESUME_SECONDS
from shmq.presence import position_of
from shmq.wire.frames import Hello, Presence, Welcome
from shmq_daemon import link
from shmq_daemon.absent import Absent
from shmq_daemon.catalog import Catalog
from shmq_daemon.descriptors import copies
from shmq_daemon.log import Logger
from shmq_daemon.loop import Loop, Timer, Timers
from shmq_daemon.peer import Peer, is_dead, reopen
from shmq_daemon.permissions import NOBODY, Access, Policy, Subject
from shmq_daemon.presence import NOTHING
from shmq_daemon.registry import Row
from shmq_daemon.session import Session
from shmq_daemon.words import WORDS_MAX

if TYPE_CHECKING:
    from shmq.wire.fields import Identity
    from shmq_daemon.consumers import Channel, Consumer, Held, Prefetch
    from shmq_daemon.opened import OpenQueue
    from shmq_daemon.publishing import Barrier, Blocked

RESUME_NS: Final = int(RESUME_SECONDS * 1e9)

End = Literal["closed", "lost", "died"]


class Client:
    """One connection of a process, with or without a socket at the moment."""

    def __init__(self, row: Row, pidfd: int, first_tag: int) -> None:
        self.row = row
        self.pidfd = pidfd
        self.session: Session | None = None
        self.access = NOBODY
        self.alive = True
        self.direct = False
        self.sender: Identity | None = None  # of what it publishes; known with its session
        self.lost: Timer | None = None
        self.left_clean: bool | None = None  # said goodbye, and how
        self.ended = False  # nothing is left but the index, which waits for its reap
        self.last_tag = self.first_tag = first_tag
        self.held: dict[int, Held] = {}  # what was delivered over the socket and is not settled
        self.overdue: dict[int, None] = {}  # what ack timeouts took back, until it settles that too late; the last ones
        self.channels: dict[int, Channel] = {}
        self.shared: dict[tuple[int, str], Prefetch] = {}  # by channel and the name that its consumers gave it
        self.consumers: dict[str, Consumer] = {}
        self.gets_waiting = 0
        self.left_queues: list[OpenQueue] = []  # that its consumers left with the socket
        self.publishing: list[Blocked | Barrier] = []  # in order: the first waits for room
        self.publishing_bytes = 0

    @property
    def owner(self) -> int:
        return self.row.owner

    @property
    def uid(self) -> int:
        return self.row.uid

    @property
    def connection_id(self) -> int:
        return self.row.connection_id


class Clients:
    """All of them, by index and by connection id."""

    def __init__(self, catalog: Catalog, policy: Policy, loop: Loop, timers: Timers, log: Logger) -> None:
        self._catalog = catalog
        self._policy = policy
        self._registry = catalog.registry
        self._loop = loop
        self._timers = timers
        self._log = log
        self._by_owner: dict[int, Client] = {}
        self._by_id: dict[int, Client] = {}
        self._connections: Counter[int] = Counter()  # by uid: clients that have not ended
        self._absent = Absent(catalog.presence, timers, self._on_left)
        self._first_tag = (catalog.epoch - 1) << 40  # tags of an earlier broker are never given out again
        self.tell: Callable[[link.ToSupervisor, tuple[int, ...]], None] = lambda _frame, _descriptors: None
        self.on_session_end: Callable[[Client], None] = lambda _client: None
        self.on_end: Callable[[Client, End], None] = lambda _client, _how: None

    def __iter__(self) -> Iterator[Client]:
        return iter(self._by_owner.values())

    def __len__(self) -> int:
        return sum(client.session is not None for client in self)

    # -- coming -----------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over the clients of an earlier broker: sessions to be resumed, or dead ones to be reaped.

        It was a broker that went, not they: one that is at a long job, and makes no call that would tell it, keeps
        what it holds in direct mode for as long as it is there: its process lives, and has not closed it.
        """
        for row in self._registry.rows():
            client = self._add(row, reopen(row.pid, row.start_time))
            client.alive = client.pidfd >= 0 or row.pid == 0
            if row.left:
                client.left_clean = True
                self._mark_ended(client)
            elif client.alive and client.pidfd < 0:
                self._lose(client)
            elif client.alive:
                self._absent.add(client)
            else:
                self._timers.after(0, functools.partial(self._on_adopted_dead, client))
        self._timers.after(0, lambda _now_ns: self._absent.look_first())
        for queue in list(self._catalog.topology.queues.values()):
            if queue.exclusive_to and queue.exclusive_to not in self._by_id:
                self._catalog.delete_queue(queue)
        if self._by_owner:
            self._log.info("clients adopted", clients=len(self._by_owner), dead=sum(not c.alive for c in self))

    def _on_adopted_dead(self, client: Client, _now_ns: int) -> None:
        self._end(client, "died")

    def hello(self, session: Session, hello: Hello) -> Client:
        """Admit a peer and welcome it. Raises what ends the session."""
        peer = session.peer
        access = self._access_of(peer)
        access.check_admitted()
        reason = self._why_not_direct(hello, access)
        if reason and hello.mode == "direct":
            if hello.layout not in (0, _core.LAYOUT):
                raise LayoutMismatch(ours=_core.LAYOUT, theirs=hello.layout)
            raise DirectRefused(reason=reason)
        client = self._resumable(hello, peer)
        resumed = client is not None
        if client is None:
            self._absent.look_at_process(peer.pid)
            access.check_connections(self._connections[peer.uid])
            client = self._admit(peer)
        elif peer.pidfd >= 0:
            self._know_by(client, peer.pidfd)
        client.session, session.client = session, client
        client.access, client.direct = access, not reason
        self._welcome(client, session, reason, resumed=resumed)
        if hello.presence is not None and not resumed:
            self._enter(client, session)
        self._log.debug(
            "client connected", client=client.owner, pid=peer.pid, uid=peer.uid, resumed=resumed, direct=client.direct
        )
        return client

    def _access_of(self, peer: Peer) -> Access:
        return self._policy.access_of(Subject(peer.uid, frozenset((peer.gid, *peer.groups))))

    def follow(self, policy: Policy) -> None:
        """Other permissions from now on. What has begun goes on, such as consuming; who may do nothing is sent away."""
        self._policy = policy
        for client in list(self):
            if client.session is None:
                continue
            client.access = self._access_of(client.session.peer)
            client.direct = client.direct and client.access.may_ever_direct
            try:
                client.access.check_admitted()
            except AccessRefused as error:
                client.session.end(error)

    @staticmethod
    def _why_not_direct(hello: Hello, access: Access) -> str:
        if hello.mode == "socket":
            return "socket mode was asked for"
        if hello.layout == 0:
            return "the client can't map segments"
        if hello.layout != _core.LAYOUT:
            return f"the client reads layout {hello.layout}, segments have {_core.LAYOUT}"
        return "" if access.may_ever_direct else f"uid {access.uid} has no direct pattern"

    def _admit(self, peer: Peer) -> Client:
        owner = self._registry.free_index()
        if owner is None:
            raise NotAllowed("all client indices are in use; close connections")
        connection_id = secrets.randbits(62) | 1
        row = self._registry.add(owner, peer, connection_id, secrets.token_bytes(16))
        client = self._add(row, peer.pidfd)
        self.tell_joined(client)
        return client

    def _enter(self, client: Client, session: Session) -> None:
        """Pass on what it is seen by while it has no session. Before it has read that it has nothing to lose."""
        presence = self._catalog.presence
        try:
            fd = presence.enter(client.row)
        except OSError as error:
            self._log.warning("a client without presence", client=client.owner, pid=client.row.pid, why=str(error))
            return
        client.row = self._registry.enter(client.row, presence.number)
        session.send(Presence(position_of(client.row.incarnation)), (fd,))

    def _resumable(self, hello: Hello, peer: Peer) -> Client | None:
        """The lost session that a client asks for, if it is there, and it is the same process with the right secret."""
        if hello.resume is None:
            return None
        try:
            client = self._by_id.get(int(hello.resume.connection_id, 16))
        except ValueError:
            return None
        if client is None or client.ended or not client.alive:
            return None
        row = client.row
        same_process = (row.pid, row.start_time) == (peer.pid, peer.start_time)
        if not same_process or not hmac.compare_digest(client.row.secret, hello.resume.secret):
            return None
        if row.uid != peer.uid:
            if client.session is None:  # from our answer on it is not there, though it may have things half done
                self._give_up(client)
            return None
        if client.session is not None:  # the end of its old socket has not come yet
            client.session.close()
        if client.lost is not None:
            client.lost.cancel()
            client.lost = None
        self._absent.discard(client)
        if client.row.presence and hello.presence != position_of(row.incarnation):
            client.row = self._registry.enter(row, NOTHING)  # it never got it
        return client

    def _know_by(self, client: Client, pidfd: int) -> None:
        """Take over the pidfd that came with a resumed client, if it is known by its socket alone until now."""
        if client.pidfd >= 0:
            os.close(pidfd)
            return
        client.pidfd = pidfd
        self._loop.add(pidfd, functools.partial(self._on_pidfd, client))
        self.tell_joined(client)

    def _welcome(self, client: Client, session: Session, reason: str, *, resumed: bool) -> None:
        direct, peer = client.direct, session.peer
        client.sender = (peer.uid, peer.gid, peer.pid)
        descriptors = copies(self._catalog.supervisor_bell, self._catalog.words_fd) if direct else ()
        welcome = Welcome(
            protocol=PROTOCOL,
            layout=_core.LAYOUT,
            version=__version__,
            instance=self._catalog.state.instance,
            connection_id=f"{client.connection_id:016x}",
            secret=client.row.secret,
            client_index=client.owner,
            resumed=resumed,
            direct=direct,
            reason=reason,
            words=WORDS_MAX if direct else 0,
            descriptors=len(descriptors),
            sender=client.sender,
        )
        session.send(welcome, descriptors)

    def _add(self, row: Row, pidfd: int) -> Client:
        client = Client(row, pidfd, self._first_tag)
        self._by_owner[row.owner] = self._by_id[row.connection_id] = client
        self._connections[row.uid] += 1
        if pidfd >= 0:
            self._loop.add(pidfd, functools.partial(self._on_pidfd, client))
        return client

    def tell_joined(self, client: Client) -> None:
        """Tell the supervisor of a client, with its pidfd while it lives."""
        frame = link.ClientJoined(client.owner, client.row.incarnation, client.row.pid, client.alive)
        self.tell(frame, (client.pidfd,) if client.alive and client.pidfd >= 0 else ())
        if client.left_clean is not None:
            self.tell(link.ClientLeft(client.owner, client.left_clean), ())
        elif client.ended and client.alive:
            self.tell(link.SessionLost(client.owner), ())

    # -- going ------------------------------------------------------------------------------------------------

    def goodbye(self, client: Client, *, clean: bool) -> None:
        """Everything of this client is settled when this returns, as far as a living process can."""
        self._end(client, "closed")
        self._leave(client, clean=clean)

    def _leave(self, client: Client, *, clean: bool) -> None:
        """Clean: its index is free once it was reaped, though its process lives."""
        client.left_clean = clean
        if clean:
            self._registry.leave(client.owner)
        self.tell(link.ClientLeft(client.owner, clean), ())

    def session_ended(self, client: Client) -> None:
        """A socket ended without goodbye."""
        client.session = None
        self.on_session_end(client)
        if client.ended:
            return
        if client.pidfd < 0:
            client.alive = False
            self._end(client, "died")
            self.tell(link.ClientDied(client.owner), ())
        elif client.alive:
            self._lose(client)

    def _on_left(self, client: Client) -> None:
        """Its goodbye, though nobody heard it."""
        clean = self._catalog.presence.is_clean(client.row)
        self._log.info("client closed unheard", client=client.owner, pid=client.row.pid, clean=clean)
        self.goodbye(client, clean=clean)

    def _lose(self, client: Client) -> None:
        self._absent.add(client)
        client.lost = self._timers.after(RESUME_NS, functools.partial(self._on_not_resumed, client))

    def _on_not_resumed(self, client: Client, _now_ns: int) -> None:
        if client.session is None and not client.ended:
            self._give_up(client)

    def _give_up(self, client: Client) -> None:
        self._log.info("session lost, not resumed", client=client.owner, pid=client.row.pid)
        self._end(client, "lost")
        if client.pidfd < 0:
            client.alive = False
            self.tell(link.ClientDied(client.owner), ())
        elif self._has_segments(client):
            self.tell(link.SessionLost(client.owner), ())
        else:
            self._leave(client, clean=True)

    def _has_segments(self, client: Client) -> bool:
        """Whether it may have something under way that nobody but itself can end."""
        return any(self._registry.had(o.queue.number, client.owner) for o in self._catalog.open.values())

    def _on_pidfd(self, client: Client, _events: int) -> None:
        """The process is dead: the supervisor, which sees the same, reaps; what is the broker's goes at once."""
        if is_dead(client.pidfd):  # else the event was that of a closed descriptor with the same number
            self._loop.remove(client.pidfd)
            self._died(client)

    def _died(self, client: Client) -> None:
        """What it had said before counts: it is read first, whoever told us of the death."""
        session = client.session
        if session is not None:
            session.drain()  # closes the session when it comes to the end
            session.close()
        client.alive = False
        self._end(client, "died")

    def _end(self, client: Client, how: End) -> None:
        if client.ended:
            return
        self._mark_ended(client)
        if client.lost is not None:
            client.lost.cancel()
        self.on_end(client, how)
        for queue in self._catalog.topology.exclusive_to(client.connection_id):
            try:
                self._catalog.delete_queue(queue)
            except ShmqError as error:
                self._log.error("exclusive queue not deleted", queue=queue.name, why=str(error))

    def _mark_ended(self, client: Client) -> None:
        client.ended = True
        self._absent.discard(client)
        self._connections[client.uid] -= 1
        if not self._connections[client.uid]:
            del self._connections[client.uid]

    def reaped(self, frame: link.ClientReaped) -> None:
        """The supervisor has put right all that this index left: it may be used again."""
        client = self._by_owner.get(frame.owner)
        if client is None or client.row.incarnation != frame.incarnation:
            return
        if not client.ended:
            self._died(client)
        for opened in self._catalog.open.values():
            self._registry.unmark(opened.queue.number, frame.owner)
        self._registry.free(frame.owner)
        del self._by_owner[frame.owner], self._by_id[client.connection_id]
        if client.pidfd >= 0:
            self._loop.remove(client.pidfd)
            os.close(client.pidfd)
            client.pidfd = -1
