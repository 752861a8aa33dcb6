"""A mount namespace with a small tmpfs on /dev/shm: shm_open has no other place, and nobody else sees this one.

A module keeps scenarios beside its tests: `play` runs the module as a program in there, with the scenario's name.
"""

import os
import subprocess
import sys
from pathlib import Path

from support.deadline import scaled
from support.needs import missing
from support.shmqd import SHM

ROOT = Path(__file__).parents[2]
CANT_MOUNT = 200


def in_small_shm(mib: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a /dev/shm of so many MiB; skip where nobody may mount (in CI root must)."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = f'mount -t tmpfs -o size={mib}m,mode=1777 tmpfs {SHM} || exit {CANT_MOUNT}; exec "$@"'
    run = subprocess.run(
        [*unshare, "sh", "-c", mount, "sh", *command],
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )
    if run.returncode == CANT_MOUNT or "unshare: " in run.stderr:
        missing("mount namespaces with a tmpfs of one's own")
    return run


def play(module: str, *scenario: str, mib: int) -> None:
    """Run a scenario of the test module in this file; fail with what it said unless it comes to its end."""
    run = in_small_shm(mib, sys.executable, "-P", module, *scenario)

    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
