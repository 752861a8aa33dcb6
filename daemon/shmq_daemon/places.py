"""Where an instance lives: its socket and its data directory, and who may own them.

Owns: default paths, making the directories, the checks that they are ours. Does not own: what is in them.
Both paths are absolute from here on, because the daemon changes its directory.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from shmq.errors import ConfigError

SOCKET_PATH_BYTES_MAX: Final = 107  # sun_path of unix(7), without its final NUL


class Places(NamedTuple):
    """The two paths of an instance."""

    socket: Path
    data: Path

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    @property
    def state(self) -> Path:
        return self.data / "state.db"


def choose(socket: str | None, data: str | None) -> Places:
    """Fill in what is not given: the system's places for root, the user's otherwise."""
    return Places(
        Path(socket).absolute() if socket else _default_socket(),
        Path(data).absolute() if data else _default_data(),
    )


def _default_socket() -> Path:
    if os.geteuid() == 0:
        return Path("/run/shmq/shmq.sock")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return Path(runtime, "shmq", "shmq.sock")


def _default_data() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/shmq")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state, "shmq")


def make_data_directory(data: Path) -> None:
    """Make the data directory, for its owner only; one that belongs to somebody else is refused."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = data.stat()
    except OSError as error:
        raise ConfigError(f"data directory {data}: {error.strerror}; choose another with --data") from error
    if status.st_uid != os.geteuid():
        raise ConfigError(f"data directory {data} belongs to uid {status.st_uid}, we run as {os.geteuid()}")
    data.chmod(0o700)


def make_socket_directory(socket: Path) -> None:
    """Make the socket's directory: others may enter root's, as the socket's own mode says who may connect. One that
    is there stays as it is.
    """
    if len(os.fsencode(socket)) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"socket path {socket} is longer than {SOCKET_PATH_BYTES_MAX} bytes; choose one with --socket"
        )
    before = os.umask(0o022 if os.geteuid() == 0 else 0o077)
    try:
        socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"socket directory {socket.parent}: {error.strerror}; choose one with --socket") from error
    finally:
        os.umask(before)
