"""What a run ran on: host, versions, settings.

Owns: finding it out. Names no person and no path.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .measure import Pace
from .peer import Peer
from .servers import beanstalkd, rabbitmq, redis
from .servers.server import find_program
from .work import MIB, ON_THE_WAY_BYTES, ON_THE_WAY_MESSAGES

PROGRAMS: Final = {  # how each says its version, and how it is run
    "redis-server": (("redis-server", "--version"), redis.SETTINGS),
    "beanstalkd": (("beanstalkd", "-v"), beanstalkd.SETTINGS),
    "rabbitmq-server": (("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"), rabbitmq.SETTINGS),
}


def facts(peers: Sequence[type[Peer]], pace: Pace) -> dict[str, str]:
    """Return the lines that a table of figures needs beside it."""
    distributions = sorted({name for peer in peers for name in peer.distributions})
    programs = sorted({peer.program for peer in peers if peer.program})
    return {
        "host": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB, {platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "clients": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in distributions),
        "revision": _output(("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")),
        **{program: f"{_output(PROGRAMS[program][0])}; {PROGRAMS[program][1]}" for program in programs},
        "rounds": f"{pace.rounds} of about {pace.seconds:g} s, all peers in turn, medians; round trips: {pace.trips:,}",
        "on the way": f"at most {ON_THE_WAY_BYTES // MIB} MiB, or {ON_THE_WAY_MESSAGES} bodies, if a peer can be told",
        "command": "python -m benchmarks.side_by_side " + " ".join(sys.argv[1:]),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _output(command: Sequence[str]) -> str:
    program = find_program(command[0])
    if program is None:
        return "unknown"
    run = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)  # noqa: S603 - as found
    return (run.stdout or run.stderr).strip().splitlines()[0] if run.stdout or run.stderr else "unknown"
