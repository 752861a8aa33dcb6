"""A container for a process without rights, made of what it consists of: namespaces for users, mounts and pids.

In there it is root over nothing but itself, and sees an empty /dev/shm and the socket under another name.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

from support.needs import missing
from support.subjects import Subject

CLONE_NEWNS: Final = 0x0002_0000  # unshare(2)
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
MS_BIND: Final = 0x1000  # mount(2)
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
PR_SET_DUMPABLE: Final = 4  # prctl(2): who changed its uid may not write its own maps before this

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _mount(source: Path | None, target: Path, kind: bytes | None, flags: int = 0) -> None:
    _call("mount", None if source is None else bytes(source), bytes(target), kind, ctypes.c_ulong(flags), None)


def _unshare() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def need_containers(subject: Subject) -> None:
    """Skip the running test where somebody without rights can't make namespaces."""
    pid = os.fork()
    if pid == 0:
        try:
            subject.become()
            _unshare()
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        missing("the right to make namespaces without being root")


def enter(subject: Subject, socket: Path, door: Path) -> int:
    """Become this subject in a container in which `socket` is `door`, and go on there. Returns 0 in there; in the
    process outside, whose children are inside, the pid.
    """
    subject.become()
    _unshare()
    pid = os.fork()
    if pid == 0:
        _mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
        _mount(socket, door, None, MS_BIND)
        _mount(Path("none"), Path("/dev/shm"), b"tmpfs")
    return pid
