"""What an instance must not forget when its processes die: SQLite in the data directory.

Owns: the file, its schema, the instance's id, the definitions as MessagePack of the events of events.py. Does not
own: segments (it only remembers their names), messages.
Invariants: the broker is the only writer. `synchronous=OFF`: it survives the death of processes, not of the kernel,
and neither do the segments it names: a state of another boot is set aside whole. A segment's name is here before the
segment exists.
"""

import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from shmq.errors import ConfigError
from shmq_daemon.events import (
    Binding,
    Bound,
    Event,
    ExchangeDeclared,
    ExchangeDeleted,
    QueueDeclared,
    QueueDeleted,
    Unbound,
)

SCHEMA: Final = 1
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
        self.fresh = _set_aside_if_of_another_boot(path, boot)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA cache_size=-256")
        self._db.executescript(TABLES)
        self._db.execute(f"PRAGMA user_version={SCHEMA}")
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('boot', ?)", (boot,))
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('instance', ?)", (secrets.token_hex(8),))
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
        """What makes up the topology, in the order in which it came to be."""
        for (blob,) in self._db.execute("SELECT event FROM events ORDER BY number").fetchall():
            yield _decode(blob)

    def record(self, event: Event) -> None:
        """Remember what an event made, or forget what it ended."""
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
    return ("binding", binding.source, binding.destination, binding.to_exchange, binding.routing_key)


def boot_id() -> str:
    """What tells a restart from a reboot."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def instance_of(path: Path) -> str | None:
    """Return the id of the instance whose state this is, None when there is none to read."""
    return _meta_of(path, "instance")


def _meta_of(path: Path, key: str) -> str | None:
    if not path.exists():
        return None
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return None
    try:
        row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    except sqlite3.DatabaseError:
        return None
    finally:
        db.close()
    return str(row[0]) if row else None


def _set_aside_if_of_another_boot(path: Path, boot: str) -> bool:
    """Return whether there is nothing to adopt. Raises ConfigError for a state of a newer shmqd."""
    if not path.exists():
        return True
    if _meta_of(path, "boot") != boot:
        path.replace(path.with_name(path.name + ".old"))
        return True
    with sqlite3.connect(path) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    if version > SCHEMA:
        hint = f"written by a newer shmqd (schema {version}, ours is {SCHEMA}); use that one, or shmqd --discard"
        raise ConfigError(file=str(path), hint=hint)
    return False
