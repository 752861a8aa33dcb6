"""How long a child waits before it is started again, and that it is, whatever the host lacks for the moment."""

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from shmq_daemon.config import Config
from shmq_daemon.instance import Byte
from shmq_daemon.master import BACK_OFF_NS_MAX, BACK_OFF_SERVED_NS_MAX, QUIET_NS, Instance, Kid, Master
from shmq_daemon.notify import Notifier
from shmq_daemon.permissions import Policy
from shmq_daemon.places import Places
from support.deadline import wait_until


def never(_instance: Instance, _lifeline: socket.socket, _restarts: int) -> None:
    raise AssertionError


def taken() -> Instance:
    nothing = cast("socket.socket", None)
    policy, places = Policy((), own_uid=0), Places(Path("/s"), Path("/d"))
    return Instance(Config(), None, policy, places, 3, nothing, nothing, ephemeral=False, started_ns=0)


def failing(times: int, works: Callable[..., Any]) -> Callable[..., Any]:
    """Give what fails so often, as for want of memory, and then works."""
    left = [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))] * times

    def call(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return works(*arguments)

    return call


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
    assert taken().places.lock == Path("/d/lock")


@pytest.mark.parametrize("call", ["fork", "pidfd_open"])
def test_a_child_that_cannot_be_started_for_want_of_memory_is_started_later(
    monkeypatch: pytest.MonkeyPatch, kid: Kid, call: str
) -> None:
    def wait_for_the_end(_instance: Instance, lifeline: socket.socket, _restarts: int) -> None:
        lifeline.setblocking(True)
        lifeline.recv(1)

    def fork() -> int:
        forked.append(real_fork())
        return forked[-1]

    real_fork, forked = os.fork, list[int]()
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, call, failing(3, getattr(os, call)))
    kid.main = wait_for_the_end
    master = Master(taken(), {}, Notifier({}))
    master._start(kid)
    wait_until(lambda: master._timers.tick(time.monotonic_ns()) is None, "nothing is to be tried again")

    assert kid.pid == forked.pop()
    assert kid.lifeline is not None
    kid.lifeline.close()
    assert os.waitpid(kid.pid, 0) == (kid.pid, 0)
    for pid in forked:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
