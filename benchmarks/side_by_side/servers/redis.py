"""redis-server on a Unix socket, with nothing kept on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .server import Server, find_program, listens

SETTINGS = "Unix socket, no snapshots, no append-only file"


@contextmanager
def redis_server(directory: Path) -> Iterator[Path]:
    """Run it; yields the socket."""
    path = directory / "redis.sock"
    command = [find_program("redis-server") or "redis-server", "--port", "0", "--unixsocket", str(path)]
    command += ["--save", "", "--appendonly", "no", "--dir", str(directory)]
    server = Server(directory, command)
    try:
        server.wait_until(lambda: listens(path), 10)
        yield path
    finally:
        server.stop()
