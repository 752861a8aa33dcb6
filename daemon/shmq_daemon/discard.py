"""The end of an instance: every segment with its prefix unlinked, its state removed.

Owns: what `--discard` and the end of an ephemeral instance remove. Does not own: stopping anybody: it is called under
the lock, or when everybody else is dead. Idempotent: a death in between leaves less to do.
"""

import shutil

from shmq_daemon import segments, state
from shmq_daemon.places import Places


def discard(places: Places) -> list[str]:
    """Remove the instance's segments, then the state that names them. Returns the names unlinked.

    Raises ConfigError when nobody knows any more whose segments these are.
    """
    instance = state.instance_of(places.state)
    removed = segments.unlink_all_but(instance, ()) if instance else []
    for suffix in ("", "-journal", "-wal", "-shm"):
        places.state.with_name(places.state.name + suffix).unlink(missing_ok=True)
    places.state.with_name(state.INSTANCE_COPY).unlink(missing_ok=True)
    return removed


def discard_everything(places: Places) -> None:
    """As `discard`, and the socket and the data directory too: an ephemeral instance leaves nothing."""
    discard(places)
    places.socket.unlink(missing_ok=True)
    shutil.rmtree(places.data, ignore_errors=True)
