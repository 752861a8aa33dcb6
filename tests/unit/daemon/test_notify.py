"""What is said to a service manager."""

import os
import socket
from pathlib import Path

import pytest

from shmq_daemon.notify import Notifier, passed_listener


def test_without_a_service_manager_nothing_happens() -> None:
    Notifier({}).tell(READY="1")


def test_states_are_one_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        Notifier({"NOTIFY_SOCKET": path}).tell(READY="1", STATUS="serving")

        assert listener.recv(100) == b"READY=1\nSTATUS=serving"


def test_a_deaf_service_manager_is_not_our_trouble(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell(READY="1")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5 * 10**9),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5 * 10**9),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_wants_an_answer_within_half_its_time(environment: dict[str, str], expected: int | None) -> None:
    assert Notifier(environment).watchdog_ns == expected


@pytest.mark.parametrize("environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid())}])
def test_sockets_that_are_not_for_us_are_not_taken(environment: dict[str, str]) -> None:
    assert passed_listener(environment) is None
