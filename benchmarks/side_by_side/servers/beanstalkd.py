"""beanstalkd on a Unix socket, without a binlog."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .server import Server, find_program, listens

JOB_BYTES_MAX: Final = 128 << 20
SETTINGS: Final = f"Unix socket, no binlog, jobs up to {JOB_BYTES_MAX >> 20} MiB"


@contextmanager
def beanstalkd(directory: Path) -> Iterator[Path]:
    """Run it; yields the socket."""
    path = directory / "beanstalkd.sock"
    command = [find_program("beanstalkd") or "beanstalkd", "-l", f"unix:{path}", "-z", str(JOB_BYTES_MAX)]
    server = Server(directory, command)
    try:
        server.wait_until(lambda: listens(path), 10)
        yield path
    finally:
        server.stop()
