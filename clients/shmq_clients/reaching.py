"""Connecting to the first socket that answers, and what it means when none does.

Owns: the errors of connect(2) in our words. Does not own: when to try again (link.py), what is said then (session.py).
"""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from shmq.errors import AccessRefused, ConnectionLost, DaemonNotRunning, NotShmqd
from shmq_clients.stream import Stream
from shmq_clients.url import start_command

Refusal: TypeAlias = NotShmqd | ConnectionLost | AccessRefused
NOBODY: Final = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)
NOT_A_STREAM: Final = (errno.EPROTOTYPE, errno.ENOTSOCK)


def reach(paths: Sequence[Path], connect: Callable[[Path], Stream]) -> Stream:
    """Return the first that `connect` gives. Raises DaemonNotRunning, NotShmqd, ConnectionLost, AccessRefused."""
    refused: Refusal | None = None
    silent: list[str] = []
    for path in paths:
        try:
            return connect(path)
        except OSError as error:
            refusal = _refusal(path, error)
            refused = refused or refusal
            if refusal is None:
                silent.append(str(path))
    if refused is None:
        raise DaemonNotRunning(paths=silent, start_command=start_command(paths))
    if silent:  # it may have been one of these that was meant
        refused.reason += f"; nothing answers on {', '.join(silent)}"
    raise refused


def _refusal(path: Path, error: OSError) -> Refusal | None:
    if error.errno in NOBODY:
        return None
    if error.errno in NOT_A_STREAM:
        return NotShmqd(path=str(path), reason="it is not a stream socket")
    if error.errno == errno.EAGAIN:
        return ConnectionLost(path=str(path), reason="too many wait to connect")
    return AccessRefused(what=str(path), reason=error.strerror or str(error))
