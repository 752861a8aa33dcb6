"""The file system where shared memory lives, in words for a person. Owns nothing: it asks the system each time."""

import contextlib
import os
from typing import Final

SHM_PATH: Final = "/dev/shm"  # noqa: S108 - not a temporary file: where POSIX shared memory lives
ADVICE: Final = (
    f"Consume, purge or delete queues, or enlarge it: mount -o remount,size=4G {SHM_PATH}; in Docker --shm-size=4g"
)


def figures() -> str:
    """Return how large it is and how much is free, in brackets behind a blank."""
    with contextlib.suppress(OSError):
        told = os.statvfs(SHM_PATH)
        total, free = told.f_blocks * told.f_frsize >> 20, told.f_bavail * told.f_frsize >> 20
        return f" ({SHM_PATH} has {total} MiB, {free} MiB free)"
    return f" ({SHM_PATH} can't be read)"
