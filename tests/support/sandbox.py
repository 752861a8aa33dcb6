"""Run a command as the unit does: no capability to gain, no new privilege, only the system calls on standard input.

python sandbox.py COMMAND... < NAMES. A call that is not among the names fails with EPERM, as the unit's
SystemCallErrorNumber= says. Needs libseccomp, which comes with systemd.
"""

import contextlib
import ctypes
import errno
import os
import sys

PR_CAPBSET_DROP = 24
CAPABILITIES = range(64)
ALLOW = 0x7FFF0000
FAIL = 0x00050000 | errno.EPERM


def only_these_calls(names: list[str]) -> None:
    """Load a filter for this process and all it becomes."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(FAIL)))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # others are of other architectures
            library.seccomp_rule_add(rules, ctypes.c_uint32(ALLOW), ctypes.c_int(number), ctypes.c_uint(0))
    if library.seccomp_load(rules) != 0:
        raise OSError("the kernel does not take the filter")


def no_capabilities() -> None:
    """Take from this process, and from root too, what a capability would allow after exec."""
    libc = ctypes.CDLL(None)
    for number in CAPABILITIES:
        with contextlib.suppress(OSError):
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)


if __name__ == "__main__":
    allowed = sys.stdin.read().split()
    os.umask(0o077)
    no_capabilities()
    only_these_calls(allowed)
    os.execv(sys.argv[1], sys.argv[1:])
