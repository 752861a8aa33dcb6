"""`shmqd`: the command line of the daemon.

Owns: flags, the order in which an instance is taken (limits, directory, lock, sockets), exit codes. Does not own:
anything after that (master.py). Exit codes: 0 stopped or discarded, 1 refused to start (the reason is on standard
error), 2 wrong flags.
"""

import argparse
import os
import resource
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from shmq._version import __version__
from shmq.core._core import LAYOUT
from shmq.errors import AlreadyRunning, ConfigError
from shmq.limits import PROTOCOL
from shmq_daemon import broker, config, discard, instance, log, notify, places, principals, supervisor
from shmq_daemon.instance import Byte
from shmq_daemon.master import Instance, Master

REFUSED = 1
PRIVATE_UMASK = 0o077  # what others may use is given to them by name, whatever the umask of who starts us


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the flags; ends the process on a wrong one."""
    parser = argparse.ArgumentParser(
        prog="shmqd", description="The shmq message broker of this host; stays in the foreground."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, in TOML")
    parser.add_argument("--socket", metavar="PATH", help="socket for clients (default: the system's or the user's)")
    parser.add_argument("--data", metavar="DIR", help="directory of this instance's lock and state")
    parser.add_argument("--discard", action="store_true", help="remove all segments of the instance in --data, and end")
    parser.add_argument(
        "--ephemeral", action="store_true", help="when standard input ends: stop, and remove segments and directory"
    )
    version = f"shmqd {__version__} (protocol {PROTOCOL}, layout {LAYOUT})"
    parser.add_argument("--version", action="version", version=version)
    flags = parser.parse_args(arguments)
    if flags.ephemeral and not (flags.socket and flags.data):
        parser.error("--ephemeral removes what it finds: give it places of its own, with --socket and --data")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon. Returns the exit code."""
    flags = parse(arguments)
    try:
        settings = config.load(flags.config) if flags.config else config.Config()
        log.configure(settings.log_format, settings.log_level)
        place = places.choose(flags.socket or settings.socket, flags.data or settings.data)
        if flags.discard:
            return _discard(place)
        file = flags.config.absolute() if flags.config else None
        return _serve(settings, file, place, ephemeral=flags.ephemeral)
    except (ConfigError, AlreadyRunning) as error:
        print(f"shmqd: {error}", file=sys.stderr)  # noqa: T201 - the command talks to a person
        return REFUSED


def _discard(place: places.Places) -> int:
    if not place.state.exists():
        print(f"shmqd: nothing to discard in {place.data}")  # noqa: T201 - as above
        return 0
    lock_fd = instance.take_lock(place.lock)
    removed = discard.discard(place)
    os.close(lock_fd)
    print(f"shmqd: {len(removed)} segments of {place.data} removed")  # noqa: T201 - as above
    return 0


def _serve(settings: config.Config, file: Path | None, place: places.Places, *, ephemeral: bool) -> int:
    os.umask(PRIVATE_UMASK)
    _raise_descriptor_limit()
    if ephemeral:
        _check_lifeline()
    places.make_data_directory(place.data)
    lock_fd = instance.take_lock(place.lock)
    os.chdir(place.data)
    listener = notify.passed_listener(os.environ)
    if listener is None:
        listener = instance.bind_listener(place.socket, settings.socket_group, settings.socket_mode)
    else:
        listener.setblocking(False)
        place = place._replace(socket=Path(listener.getsockname()))
    policy = principals.policy_of(settings.permissions, os.geteuid())
    link = instance.bind_link()
    taken = Instance(settings, file, policy, place, lock_fd, listener, link, ephemeral, time.monotonic_ns())
    children = {Byte.BROKER: broker.run, Byte.SUPERVISOR: supervisor.run}
    served = Master(taken, children, notify.Notifier(os.environ)).run()
    return 0 if served else REFUSED


def _check_lifeline() -> None:
    """Standard input must be something that ends: not a file, and not /dev/null, which can't be polled."""
    try:
        with select.epoll() as epoll:
            epoll.register(0, select.EPOLLIN)
    except OSError as error:
        raise ConfigError(
            f"--ephemeral: standard input can't be watched ({error.strerror}); give it a pipe that its owner holds open"
        ) from error


def _raise_descriptor_limit() -> None:
    """Six descriptors a queue and one or two a client: as many as we may have. A sandbox may forbid it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.logger("master").info("descriptor limit stays as it is", why=str(error))


if __name__ == "__main__":
    sys.exit(main())
