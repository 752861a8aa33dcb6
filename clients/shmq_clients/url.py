"""Where a daemon may be reached: the URL of a connection, and the places to look at when none is given.

Owns: the form of the URL, the default places, and what starts a daemon there. Does not own: connecting (link.py).
Invariants: a URL names exactly one socket; what it says beyond that (host, user, virtual host, query) is refused and
never ignored, because somebody meant something by it.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from shmq.errors import START_COMMAND, InvalidArgument

SCHEME: Final = "shmq"
SYSTEM_SOCKET: Final = Path("/run/shmq/shmq.sock")
SOCKET_PATH_BYTES_MAX: Final = 107  # sun_path of unix(7), without its final NUL


def socket_paths(url: str | None, environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the sockets to try, in order: the URL's, else $SHMQ_URL's, else the user's and the system's.

    `shmq://` alone is the same as no URL. Raises InvalidArgument.
    """
    if url is not None and not isinstance(url, str):
        raise InvalidArgument(f"URL {url!r}: a string is wanted, {SCHEME}:///path/of.sock", argument="url", value=url)
    for chosen in (url, environ.get("SHMQ_URL")):
        path = _parse(chosen) if chosen else None
        if path is not None:
            return (path,)
    user = _user_socket(environ)
    return (SYSTEM_SOCKET,) if user is None else (user, SYSTEM_SOCKET)


def _user_socket(environ: Mapping[str, str]) -> Path | None:
    """Where a user's own daemon listens, also where no login set the variable (cron, su); root's is the system's."""
    runtime = environ.get("XDG_RUNTIME_DIR") or (f"/run/user/{os.geteuid()}" if os.geteuid() else "")
    return Path(runtime, "shmq", "shmq.sock") if runtime else None


def start_command(paths: Sequence[Path], environ: Mapping[str, str] = os.environ) -> str:
    """Return what starts a daemon that one of these sockets would be of."""
    if len(paths) != 1:
        return START_COMMAND
    (path,) = paths
    if path == SYSTEM_SOCKET:
        return "systemctl start shmqd, or as root: shmqd"
    return "shmqd" if path == _user_socket(environ) else f"shmqd --socket {shlex.quote(str(path))}"


def url_of(path: Path) -> str:
    """Return the URL that names this socket."""
    return f"{SCHEME}://{path.absolute().as_posix().replace('%', '%25').replace('?', '%3F').replace('#', '%23')}"


def _parse(url: str) -> Path | None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _refused(url, str(error)) from error
    if parts.scheme != SCHEME:
        raise _refused(url, f"the scheme is {SCHEME}, not {parts.scheme or 'empty'}: {SCHEME}:///path/of.sock")
    if parts.netloc:
        raise _refused(url, f"no host or user here, shmq serves one host (three slashes: {SCHEME}:///path)")
    _check_query(url, parts)
    path = unquote(parts.path)
    if not path:
        return None
    _check_path(url, path)
    return Path(path)


def _check_query(url: str, parts: SplitResult) -> None:
    if parts.fragment:
        raise _refused(url, "a fragment has no meaning")
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key != "virtual_host":
            raise _refused(url, f"{key!r} is not known")
        if value != "/":
            raise _refused(url, f"there is no virtual host {value!r}, only /; a second application runs a second shmqd")


def _check_path(url: str, path: str) -> None:
    if "\0" in path:
        raise _refused(url, "the path contains NUL")
    if not path.startswith("/"):
        raise _refused(url, "the path must be absolute")
    if path.endswith("/"):
        raise _refused(url, "the path is a directory, the socket's is wanted")
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise _refused(url, f"the path is longer than {SOCKET_PATH_BYTES_MAX} bytes, the longest a socket may have")


def _refused(url: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"URL {url!r}: {why}", argument="url", value=url)
