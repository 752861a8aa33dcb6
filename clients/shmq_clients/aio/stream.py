"""One connected socket that is never waited for: what does not go out at once is kept until there is room.

Owns: telling that something is left. Does not own: when it is written (link.py).
"""

from collections.abc import Callable
from pathlib import Path

from shmq_clients.stream import Stream


class LoopStream(Stream):
    """`on_left` is called when something is left to be written; then call `write` when the socket has room."""

    def __init__(self, path: Path, on_left: Callable[["LoopStream"], object]) -> None:
        super().__init__(path)
        self._on_left = on_left
        self.sent = 0  # bytes so far

    @property
    def unsent(self) -> int:
        """Bytes that are left."""
        return len(self._out)

    def write(self) -> bool:
        """Write what goes; True: nothing is left. Raises ConnectionLost."""
        left = len(self._out)
        try:
            return self._write()
        finally:
            self.sent += left - len(self._out)

    def _flush(self, read: Callable[[], object]) -> None:  # noqa: ARG002 - reading is the loop's
        if not self.write():
            self._on_left(self)
