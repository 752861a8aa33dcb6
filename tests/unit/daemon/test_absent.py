"""Who has left without a session is found, now by its process, now in its turn; who is there, or is dying, is not."""

import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from shmq import presence as marks
from shmq_daemon import segments
from shmq_daemon.absent import LOOK_NS, LOOKS_MAX, Absent
from shmq_daemon.loop import Timers
from shmq_daemon.presence import Presence
from shmq_daemon.registry import Row


class Client:
    """What is looked at of a client."""

    def __init__(self, presence: Presence, number: int, pid: int | None = None) -> None:
        self.owner = number
        self.pid = os.getpid() if pid is None else pid
        self.row = Row(number, number, self.pid, 0, 1, number, bytes(16), presence.number)
        self.pidfd = os.pidfd_open(self.pid)
        self.fd = presence.enter(self.row)

    def leave(self) -> None:
        marks.leave(self.fd, marks.position_of(self.owner), clean=True)

    def close(self) -> None:
        os.close(self.pidfd)
        os.close(self.fd)


class World:
    """A set of absent clients, and a clock."""

    def __init__(self, presence: Presence) -> None:
        self.presence = presence
        self.now_ns = 0
        self.timers = Timers(lambda: self.now_ns)
        self.left: list[int] = []
        self.absent = Absent(presence, self.timers, self._on_left)
        self.clients: list[Client] = []

    def add(self, number: int, pid: int | None = None, **row: Any) -> Client:
        client = Client(self.presence, number, pid)
        client.row = client.row._replace(**row)
        self.clients.append(client)
        self.absent.add(client)  # type: ignore[arg-type] # as much of one as is looked at
        return client

    def _on_left(self, client: Any) -> None:
        self.left.append(client.owner)
        self.absent.discard(client)

    def tick(self) -> int | None:
        """Let the time of a look pass."""
        self.now_ns += LOOK_NS
        return self.timers.tick(self.now_ns)


@pytest.fixture
def world() -> Iterator[World]:
    name = segments.new_name("test-" + secrets.token_hex(4))
    world = World(Presence.open(name))
    yield world
    for client in world.clients:
        client.close()
    world.presence.close()
    segments.unlink(name)


def test_who_leaves_is_found_at_the_next_look_and_the_others_stay(world: World) -> None:
    first, second = world.add(1), world.add(2)
    world.tick()
    assert world.left == []
    second.leave()
    world.tick()

    assert world.left == [2]
    first.leave()
    assert world.tick() is None
    assert world.left == [2, 1]


def test_nobody_is_looked_at_while_all_have_sessions(world: World) -> None:
    client = world.add(1)
    world.absent.discard(client)  # type: ignore[arg-type] # as above
    client.leave()

    assert world.tick() is None
    assert world.left == []


def test_each_comes_in_its_turn(world: World) -> None:
    clients = [world.add(number) for number in range(1, 2 * LOOKS_MAX)]
    for client in clients:
        client.leave()
    world.tick()
    assert len(world.left) == LOOKS_MAX
    world.tick()

    assert world.left == [client.owner for client in clients]


def test_those_of_a_process_are_found_when_it_comes_back(world: World) -> None:
    here, there = world.add(1), world.add(2, pid=os.getppid())
    here.leave()
    there.leave()
    world.absent.look_at_process(os.getpid())

    assert world.left == [1]


def test_those_that_were_adopted_are_looked_at_at_once(world: World) -> None:
    world.add(1)
    world.add(2).leave()
    world.absent.look_first()

    assert world.left == [2]


@pytest.mark.parametrize("number", [0, 1])
def test_who_was_given_no_presence_or_that_of_another_file_never_leaves(world: World, number: int) -> None:
    world.add(1, presence=number).leave()

    assert len(world.absent) == 0
    assert world.tick() is None


def test_a_death_is_no_goodbye(world: World) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)  # until it is killed
        os._exit(0)
    client = world.add(1, pid=pid)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    client.leave()
    world.tick()

    assert world.left == []
    os.waitpid(pid, 0)
