"""How long a child waits before it is started again."""

import socket
from pathlib import Path
from typing import cast

import pytest

from shmq_daemon.config import Config
from shmq_daemon.instance import Byte
from shmq_daemon.master import BACK_OFF_NS_MAX, BACK_OFF_SERVED_NS_MAX, QUIET_NS, Instance, Kid
from shmq_daemon.places import Places


def never(_instance: Instance, _lifeline: socket.socket, _restarts: int) -> None:
    raise AssertionError


@pytest.fixture
def kid() -> Kid:
    return Kid(Byte.BROKER, never)


def test_the_first_death_costs_nothing(kid: Kid) -> None:
    assert kid.back_off_ns(1) == 0


def test_a_child_that_served_is_back_within_a_second_however_often_it_dies(kid: Kid) -> None:
    kid.ready = True

    assert max(kid.back_off_ns(now) for now in range(100)) <= BACK_OFF_SERVED_NS_MAX < 10**9


def test_one_that_never_serves_waits_longer_and_longer(kid: Kid) -> None:
    delays = [kid.back_off_ns(now) for now in range(20)]

    assert delays == sorted(delays)
    assert delays[-1] == BACK_OFF_NS_MAX


def test_a_quiet_time_makes_it_forgotten(kid: Kid) -> None:
    for now in range(10):
        kid.back_off_ns(now)

    assert kid.back_off_ns(QUIET_NS + 100) == 0


def test_an_instance_is_what_children_inherit() -> None:
    nothing = cast("socket.socket", None)
    taken = Instance(Config(), Places(Path("/s"), Path("/d")), 3, nothing, nothing, ephemeral=False, started_ns=0)

    assert taken.places.lock == Path("/d/lock")
