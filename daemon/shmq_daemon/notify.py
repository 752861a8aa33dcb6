"""What we say to and take from a service manager: sd_notify(3) datagrams and passed sockets, sd_listen_fds(3).

Owns: the two protocols, read from an environment that is handed in. Does not own: when anything is said. Without a
service manager every call does nothing.
"""

import os
import socket
from collections.abc import Mapping

LISTEN_FDS_START = 3


class Notifier:
    """Sends states to the service manager, if there is one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_us = _watchdog_us(environment)

    @property
    def watchdog_ns(self) -> int | None:
        """Half the time after which the service manager gives us up, None when it does not watch."""
        return self._watchdog_us * 500 if self._watchdog_us else None

    def tell(self, **states: str) -> None:
        """Send one datagram, as in `tell(READY="1", STATUS="serving")`. A deaf service manager is not our trouble."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in states.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
            except OSError:
                return


def _watchdog_us(environment: Mapping[str, str]) -> int:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    text = environment.get("WATCHDOG_USEC", "0")
    return int(text) if text.isdigit() else 0


def passed_listener(environment: Mapping[str, str]) -> socket.socket | None:
    """Return the listening socket that the service manager holds for us, None without socket activation."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or int(environment.get("LISTEN_FDS", "0")) < 1:
        return None
    os.set_inheritable(LISTEN_FDS_START, False)
    return socket.socket(fileno=LISTEN_FDS_START)
