"""What an instance must not forget when its processes die: SQLite in the data directory.

Owns: the file, its schema, the instance's id, the definitions as MessagePack of the events of events.py. Does not
own: segments (it only remembers their names), messages.
Invariants: the broker is the only writer. `synchronous=OFF`: it survives the death of processes, not of the kernel,
and neither do the segments it names: a state of another boot is set aside whole; one that can't be read is refused and
left as it is. A segment's name is here before the segment exists.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from shmq.errors import ConfigError, InternalError
from shmq.routing.bindings import Binding
from shmq_daemon.events import (
    Bound,
    Event,
    ExchangeDeclared,
    ExchangeDeleted,
    QueueDeclared,
    QueueDeleted,
    Unbound,
)

SCHEMA: Final = 1
INSTANCE_COPY: Final = "instance"  # a file beside the state: what to discard when the state is damaged
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (key BLOB PRIMARY KEY, number INTEGER NOT NULL, event BLOB NOT NULL) WITHOUT ROWID;
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


class State:
    """The open database of one instance. `boot` tells a restart from a reboot."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self.fresh = _set_aside_if_of_another_boot(path, boot)  # why there is nothing to adopt, empty if there is
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA cache_size=-256")
        self._db.executescript(TABLES)
        self._db.execute(f"PRAGMA user_version={SCHEMA}")
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('boot', ?)", (boot,))
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('instance', ?)", (secrets.token_hex(8),))
        path.with_name(INSTANCE_COPY).write_text(self.instance + "\n", encoding="ascii")
        self._number = self._db.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()[0]

    @property
    def instance(self) -> str:
        return self.meta("instance", "")

    def meta(self, key: str, default: str) -> str:
        """Return a remembered value; remember the default if there is none."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, default))
        value: str = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]
        return value

    def events(self) -> Iterator[Event]:
        """What makes up the topology, in the order in which it came to be. Raises ConfigError for a damaged state."""
        try:
            for (blob,) in self._db.execute("SELECT event FROM events ORDER BY number").fetchall():
                yield _decode(blob)
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            raise _damaged(self._path, error) from error

    def record(self, *events: Event, before_commit: Callable[[], object] = bool) -> None:
        """Remember what events made, or forget what they ended: all of them or, with InternalError, none."""
        try:
            with self._db:
                self._db.execute("BEGIN")
                for event in events:
                    self._record(event)
                before_commit()
        except sqlite3.Error as error:
            raise InternalError(f"{self._path} can't be written: {error}. Nothing was changed") from error

    def _record(self, event: Event) -> None:
        match event:
            case QueueDeleted(queue_id=queue_id):
                self._forget(("queue", queue_id))
            case ExchangeDeleted(name=name):
                self._forget(("exchange", name))
            case Unbound(binding=binding):
                self._forget(_binding_key(binding))
            case QueueDeclared(queue=queue):
                self._remember(("queue", queue.queue_id), event)
            case ExchangeDeclared(exchange=exchange):
                self._remember(("exchange", exchange.name), event)
            case Bound(binding=binding):
                self._remember(_binding_key(binding), event)

    def _remember(self, key: tuple[object, ...], event: Event) -> None:
        self._number += 1
        self._db.execute("INSERT OR REPLACE INTO events VALUES (?, ?, ?)", (_encode(key), self._number, _encode(event)))

    def _forget(self, key: tuple[object, ...]) -> None:
        self._db.execute("DELETE FROM events WHERE key = ?", (_encode(key),))

    def close(self) -> None:
        self._db.close()


def _binding_key(binding: Binding) -> tuple[object, ...]:
    key = ("binding", binding.source, binding.destination, binding.to_exchange, binding.routing_key)
    return (*key, binding.arguments) if binding.arguments else key


def boot_id() -> str:
    """What tells a restart from a reboot."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def instance_of(path: Path) -> str | None:
    """Return the id of the instance whose state this is, None when there never was one.

    Raises ConfigError when neither the state nor the copy beside it can be read.
    """
    beside = path.with_name(INSTANCE_COPY)
    try:
        found = _meta_of(path).get("instance")
    except ConfigError:
        if not beside.exists():
            raise
        found = None
    return found or (beside.read_text(encoding="ascii").strip() if beside.exists() else None)


def _meta_of(path: Path) -> dict[str, str]:
    """What a state says of itself; nothing, when it was not finished. Raises ConfigError when it can't be read.

    Opened for writing: a broker that was killed while it wrote left a journal, which must be rolled back first.
    """
    if not path.exists():
        return {}
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
        try:
            begun = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]
            return dict(db.execute("SELECT key, value FROM meta").fetchall()) if begun else {}
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ConfigError:
    hint = (
        f"can't be read: {error}. It names the queues and their memory, so nothing was changed. Put a good copy back,"
        " or give up the queues and their messages: shmqd --discard"
    )
    return ConfigError(file=str(path), hint=hint)


def _set_aside_if_of_another_boot(path: Path, boot: str) -> str:
    """Return why there is nothing to adopt, if so. Raises ConfigError for what is damaged, or of a newer shmqd."""
    meta, copy = _meta_of(path), path.with_name(INSTANCE_COPY)
    if "boot" not in meta:
        if path.exists() and copy.exists():
            raise _damaged(path, ValueError("it is empty, and was not"))
        return "there was none"
    if meta["boot"] != boot:
        copy.unlink(missing_ok=True)  # first: it says that the state beside it was complete
        path.replace(path.with_name(path.name + ".old"))
        return "it was of another boot, and is kept as " + path.name + ".old"
    with contextlib.closing(sqlite3.connect(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        hint = f"written by a newer shmqd (schema {version}, ours is {SCHEMA}); use that one, or shmqd --discard"
        raise ConfigError(file=str(path), hint=hint)
    return ""
