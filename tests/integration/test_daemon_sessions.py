"""Sessions as the broker keeps them: strangers, the slow and the silent, lost ones that come back, waits that end."""

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from shmq.core._core import LAYOUT
from shmq.definitions import QueueDefinition
from shmq.limits import CONSUMERS_MAX, WAITING_GETS_MAX
from shmq.wire import frames as wire
from shmq.wire.fields import Resume
from support.deadline import scaled, wait_until
from support.needs import missing
from support.peers import Peer
from support.shmqd import Shmqd, instance

NOBODY = 65534


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shmqd]:
    with instance(tmp_path_factory.mktemp("shmqd")) as running:
        yield running


@pytest.fixture
def peer(daemon: Shmqd) -> Iterator[Peer]:
    peer = Peer(daemon)
    peer.hello()
    yield peer
    peer.close()


def declare(peer: Peer, name: str, **arguments: Any) -> None:
    answer = peer.ask(wire.DeclareQueue(1, QueueDefinition(name, **arguments)))
    assert isinstance(answer, wire.QueueDeclared), answer


def still_serves(daemon: Shmqd) -> bool:
    with daemon.connect() as connection:
        return connection.status().durability == "memory"


# -- strangers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, struct.pack(">I", 2**32 - 1), b"\0\0\0\x02\x91\x7f", b"\0\0\0\0"],
)
def test_garbage_ends_only_its_own_session_and_at_once(daemon: Shmqd, garbage: bytes) -> None:
    stranger = Peer(daemon)
    started = time.monotonic()
    stranger.socket.sendall(garbage)
    stranger.socket.shutdown(socket.SHUT_WR)
    while stranger.socket.recv(4096):
        pass

    assert time.monotonic() - started <= 1.0
    assert still_serves(daemon)
    stranger.close()


def test_a_silent_peer_is_gone_after_two_seconds(daemon: Shmqd) -> None:
    silent = Peer(daemon)
    started = time.monotonic()
    closing = silent.hear()

    assert (type(closing), closing.code) == (wire.Closing, 501)
    assert 1.9 <= time.monotonic() - started <= 3.0
    silent.close()


def test_half_a_frame_that_does_not_grow_ends_its_session(daemon: Shmqd) -> None:
    slow = Peer(daemon)
    slow.hello()
    slow.socket.sendall(struct.pack(">I", 100) + b"\x92")
    closing = slow.hear()

    assert (type(closing), closing.code) == (wire.Closing, 501)
    slow.close()


def test_a_peer_that_never_reads_is_not_read_any_more_and_costs_bounded_memory(daemon: Shmqd) -> None:
    deaf = Peer(daemon)
    deaf.hello()
    declare(deaf, "deaf")
    deaf.say(wire.Publish(2, "", "deaf", b"", bytes(1 << 20)))
    deaf.socket.settimeout(0.5)
    sent = 0
    try:
        for number in range(1000):
            deaf.say(wire.Get(number + 3, "deaf", no_ack=False), wire.Recover(number + 3))
            sent += 1
    except TimeoutError:
        pass

    assert sent < 1000 or memory_mib(daemon.child("broker")) < 200
    assert still_serves(daemon)
    deaf.close()


def test_a_peer_that_never_reads_gets_few_answers_to_many_small_requests(daemon: Shmqd) -> None:
    """One write of a few kilobytes asked for gigabytes of listings, or for all the descriptors that the broker has."""
    broker = daemon.child("broker")
    with daemon.connect() as connection:
        names = [connection.declare_queue("", arguments={"x-note": "n" * 4096}).name for _ in range(100)]
        peer = Peer(daemon)
        assert isinstance(peer.ask(wire.Hello(layout=LAYOUT, mode="direct")), wire.Welcome)
        before, open_before = memory_mib(broker), descriptors(broker)

        peer.say(*(wire.ListQueues(number, limit=500) for number in range(1, 201)))
        peer.say(*(wire.Attach(number, names[0]) for number in range(201, 5201)))
        time.sleep(0.5)  # for the broker to read what it is willing to

        assert memory_mib(broker) - before < 32
        assert descriptors(broker) - open_before < 64
        assert still_serves(daemon)
        for number in range(1, 5201):  # who reads after all gets every answer, in order
            answer = peer.hear()
            assert answer.seq == number
        peer.close()
        for name in names:
            connection.delete_queue(name)


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def memory_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def test_another_user_is_refused(daemon: Shmqd) -> None:
    if os.geteuid() != 0:
        missing("root, to become somebody else")
    folders = [*reversed(daemon.socket.parents)]
    modes = [folder.stat().st_mode for folder in folders]
    for path in (*folders[1:], daemon.socket):
        path.chmod(path.stat().st_mode | 0o007)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            shmq.connect(daemon.url)
        except shmq.AccessRefused:
            os.write(write, b"refused")
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    for folder, mode in zip(folders[1:], modes[1:], strict=True):
        folder.chmod(mode)

    assert os.read(read, 100) == b"refused"
    os.close(read)


def test_another_protocol_is_refused_with_both_numbers(daemon: Shmqd) -> None:
    stranger = Peer(daemon)
    closing = stranger.ask(wire.Hello(protocol=99))

    assert (closing.code, closing.data) == (601, {"ours": 1, "theirs": 99})
    stranger.close()


# -- lost sessions --------------------------------------------------------------------------------------------------


def test_a_lost_session_comes_back_with_what_it_had(daemon: Shmqd) -> None:
    first = Peer(daemon)
    welcome = first.hello()
    declare(first, "lost", exclusive=True)
    first.say(wire.Publish(2, "", "lost", b"", b"held"))
    assert first.hear() == wire.Ok(2)
    tag = first.ask(wire.Get(3, "lost")).deliveries[0].delivery_tag
    first.close()
    second = Peer(daemon)
    again = second.hello(Resume(welcome.connection_id, welcome.secret))

    assert (again.resumed, again.client_index) == (True, welcome.client_index)
    assert second.ask(wire.Ack(4, [tag])) == wire.Ok(4)
    second.close()


def test_a_wrong_secret_gets_a_session_of_its_own(daemon: Shmqd) -> None:
    first = Peer(daemon)
    welcome = first.hello()
    first.close()
    second = Peer(daemon)
    again = second.hello(Resume(welcome.connection_id, bytes(16)))

    assert not again.resumed
    assert again.connection_id != welcome.connection_id
    second.close()


@pytest.mark.slow
def test_a_lost_session_is_given_up_after_ten_seconds_and_its_messages_return(daemon: Shmqd, peer: Peer) -> None:
    broker, supervisor = daemon.child("broker"), daemon.child("supervisor")
    before = descriptors(broker), descriptors(supervisor)
    lost = Peer(daemon)
    lost.hello()
    declare(lost, "given-up")
    lost.say(wire.Publish(2, "", "given-up", b"", b"back"))
    assert lost.hear() == wire.Ok(2)
    assert lost.ask(wire.Get(3, "given-up")).deliveries
    lost.close()
    started = time.monotonic()
    peer.socket.settimeout(scaled(20))
    got = peer.ask(wire.Get(4, "given-up", max_wait_ns=15 * 10**9))

    assert 9.5 <= time.monotonic() - started <= 12.0
    assert (got.deliveries[0].delivery_count, got.deliveries[0].failure_count) == (2, 1)
    peer.ask(wire.DeleteQueue(5, "given-up"))
    # It never had a segment, so nothing of it waits for the end of its process, which is this one.
    wait_until(lambda: (descriptors(broker), descriptors(supervisor)) <= before, "what it cost is given back")


def test_goodbye_gives_back_uncounted_and_ends_exclusive_queues_before_its_answer(daemon: Shmqd, peer: Peer) -> None:
    leaving = Peer(daemon)
    leaving.hello()
    declare(leaving, "shared")
    declare(leaving, "own", exclusive=True)
    leaving.say(wire.Publish(2, "", "shared", b"", b"back"))
    assert leaving.hear() == wire.Ok(2)
    leaving.ask(wire.Get(3, "shared"))
    assert leaving.ask(wire.Goodbye(clean=True)).code == 200
    got = peer.ask(wire.Get(4, "shared"))

    assert (got.deliveries[0].delivery_count, got.deliveries[0].failure_count) == (2, 0)
    assert peer.ask(wire.InspectQueue(5, "own")).code == 404
    leaving.close()


def test_an_index_is_used_again_only_after_its_client_was_reaped(daemon: Shmqd) -> None:
    def connected() -> int:
        with daemon.connect() as connection:
            return connection.status().totals["connections"]

    for _ in range(50):
        with daemon.connect() as connection:
            connection.status()

    wait_until(lambda: connected() <= 2, "goodbyes are done")


# -- full queues ----------------------------------------------------------------------------------------------------


def fill(peer: Peer, name: str, capacity: int) -> None:
    declare(peer, name, capacity_messages=capacity)
    answer = peer.ask(wire.PublishMany(2, "", name, b"", [b"x"] * (capacity + 1)))
    assert answer == wire.Counted(2, capacity)


def test_a_publish_to_a_full_queue_ends_at_its_deadline_with_depth_and_limit(peer: Peer) -> None:
    fill(peer, "full", 16)
    started = time.monotonic()
    error = peer.ask(wire.Publish(3, "", "full", b"", b"y", timeout_ns=200_000_000))

    assert 0.2 <= time.monotonic() - started <= 0.5
    assert (error.code, error.data["depth"], error.data["limit"]) == (608, 16, 16)


def test_a_waiting_publish_holds_up_nobody_and_goes_when_there_is_room(daemon: Shmqd, peer: Peer) -> None:
    fill(peer, "room", 16)
    peer.say(wire.Publish(3, "", "room", b"", b"first", timeout_ns=5 * 10**9))
    peer.say(wire.Publish(4, "", "room", b"", b"second", timeout_ns=5 * 10**9))
    with daemon.connect() as other:
        for _ in range(2):
            message = other.get("room", timeout=1)
            assert message is not None
            message.ack()

        assert [peer.hear(), peer.hear()] == [wire.Ok(3), wire.Ok(4)]
        rest = other.get_batch("room", max_messages=100, max_wait=0)
        assert [message.body for message in rest[-2:]] == [b"first", b"second"]
        for message in rest:
            message.ack()


def test_a_ping_is_answered_behind_publishes_that_wait_and_other_requests_are_not(peer: Peer) -> None:
    fill(peer, "barrier", 16)
    peer.say(wire.Publish(0, "", "barrier", b"", b"y", confirm=1, timeout_ns=300_000_000))
    peer.say(wire.Ping(3), wire.Publish(4, "", "barrier", b"", b"z", timeout_ns=10**9), wire.PurgeQueue(5, "none"))
    heard = [peer.hear() for _ in range(3)]

    assert [(type(frame), frame.seq) for frame in heard] == [(wire.Error, 5), (wire.Error, 0), (wire.Ok, 3)]
    assert heard[1].code == 608
    assert peer.ask(wire.Ping(6)).seq == 4  # is refused at its own deadline, then
    assert peer.hear() == wire.Ok(6)


def test_a_ping_passes_as_soon_as_there_is_room(daemon: Shmqd, peer: Peer) -> None:
    fill(peer, "passed", 16)
    peer.say(wire.Publish(3, "", "passed", b"", b"y", timeout_ns=5 * 10**9), wire.Ping(4), wire.Ping(5))
    with daemon.connect() as other:
        other.purge_queue("passed")

    assert [peer.hear(), peer.hear(), peer.hear()] == [wire.Ok(3), wire.Ok(4), wire.Ok(5)]
    assert peer.ask(wire.Ping(6)) == wire.Ok(6)


def test_what_an_ended_session_asked_for_is_not_answered_in_the_next(peer: Peer, daemon: Shmqd) -> None:
    fill(peer, "resumed", 16)
    first = Peer(daemon)
    welcome = first.hello()
    first.say(wire.Publish(3, "", "resumed", b"", b"y", timeout_ns=400_000_000), wire.Ping(4))
    assert first.ask(wire.InspectQueue(5, "resumed")).seq == 5
    first.close()
    second = Peer(daemon)
    assert second.hello(Resume(welcome.connection_id, welcome.secret)).resumed

    assert second.ask(wire.Ping(3)) == wire.Ok(3)  # behind the one that waits, whose number was 3 too
    assert second.ask(wire.InspectQueue(4, "resumed")).queue.messages == 16
    second.close()


def test_a_publish_that_waits_hears_when_its_queue_is_deleted(daemon: Shmqd, peer: Peer) -> None:
    fill(peer, "gone", 16)
    peer.say(wire.Publish(3, "", "gone", b"", b"y", timeout_ns=5 * 10**9))
    with daemon.connect() as other:
        other.delete_queue("gone")

    assert peer.hear().code == 404


def test_a_body_that_can_never_fit_is_refused_with_its_limit(peer: Peer) -> None:
    declare(peer, "small", capacity_bytes=1 << 20)
    error = peer.ask(wire.Publish(2, "", "small", b"", bytes(2 << 20), timeout_ns=10**9))

    assert (error.code, error.data["limit"]) == (311, 1 << 20)


# -- consuming ------------------------------------------------------------------------------------------------------


def test_prefetch_bounds_what_is_out_and_an_ack_lets_the_next_come(peer: Peer) -> None:
    declare(peer, "prefetched")
    peer.ask(wire.PublishMany(2, "", "prefetched", b"", [b"a", b"b", b"c"]))
    peer.say(wire.Consume(3, "prefetched", "ctag", prefetch=2))
    assert peer.hear() == wire.Consuming(3, "ctag")
    first = peer.hear().deliveries
    peer.say(wire.Ack(0, [first[0].delivery_tag]), wire.Ping(4))
    second = [peer.hear(), peer.hear()]

    assert [delivery.body for delivery in first] == [b"a", b"b"]
    assert [d.body for frame in second if isinstance(frame, wire.Deliver) for d in frame.deliveries] == [b"c"]


@pytest.fixture
def alone(daemon: Shmqd) -> Iterator[None]:
    """The broker is woken by nobody but its clients and its own timers."""
    supervisor = daemon.child("supervisor")
    os.kill(supervisor, signal.SIGSTOP)
    yield
    os.kill(supervisor, signal.SIGCONT)


@pytest.mark.usefixtures("alone")
def test_an_ack_timeout_ends_in_time_though_nothing_else_happens(peer: Peer) -> None:
    declare(peer, "timed")
    peer.ask(wire.Publish(2, "", "timed", b"", b"slow"))
    peer.say(wire.Consume(3, "timed", "ctag", prefetch=1, ack_timeout_ns=100_000_000))
    assert [type(peer.hear()) for _ in range(2)] == [wire.Consuming, wire.Deliver]
    started = time.monotonic()
    again = peer.hear()

    assert time.monotonic() - started < scaled(1)
    assert again.deliveries[0].failure_count == 1


@pytest.mark.usefixtures("alone")
def test_an_ack_behind_more_publishes_than_may_wait_makes_room_as_soon_as_it_is_read(peer: Peer, daemon: Shmqd) -> None:
    fill(peer, "crowded", 64)
    declare(peer, "acked")
    peer.ask(wire.PublishMany(2, "", "acked", b"", [b"first", b"second"]))
    peer.say(wire.Consume(3, "acked", "ctag", prefetch=1))
    first = [peer.hear(), peer.hear()][1].deliveries[0]
    waiting = [wire.Publish(0, "", "crowded", b"", b"waits", confirm=1, timeout_ns=30 * 10**9)] * 1040
    peer.say(*waiting, wire.Ack(0, [first.delivery_tag]))
    with daemon.connect() as other:
        wait_until(lambda: other.purge_queue("crowded") > 0, "publishes wait and the session is read no more")
        started = time.monotonic()
        second = peer.hear().deliveries[0]

        assert (second.body, time.monotonic() - started < scaled(1)) == (b"second", True)
        other.delete_queue("crowded")


def test_a_get_too_many_is_refused_and_those_that_wait_are_served(peer: Peer) -> None:
    declare(peer, "awaited")
    gets = [wire.Get(seq, "awaited", max_wait_ns=60 * 10**9) for seq in range(10, 10 + WAITING_GETS_MAX + 1)]
    peer.say(*gets)
    refused = peer.hear()
    peer.say(wire.Publish(0, "", "awaited", b"", b"x", confirm=1))
    got = peer.hear()
    peer.say(wire.Get(5, "awaited", max_wait_ns=1), wire.DeleteQueue(6, "awaited"))
    ended = [peer.hear() for _ in gets]  # the first and the last are answered, and there are two more

    assert (type(refused), refused.seq, refused.code) == (wire.Error, gets[-1].seq, 530)
    assert (type(got), got.seq) == (wire.Got, 10)
    assert {(frame.seq, frame.code) for frame in ended if frame.seq > 6} == {(g.seq, 404) for g in gets[1:-1]}
    declare(peer, "awaited")
    assert peer.ask(wire.Get(7, "awaited", max_wait_ns=1)) == wire.Got(7, [])


def test_a_consumer_too_many_is_refused_until_one_is_cancelled(peer: Peer) -> None:
    declare(peer, "popular")
    for seq in range(3, 3 + CONSUMERS_MAX):
        assert peer.ask(wire.Consume(seq, "popular", f"{seq}")) == wire.Consuming(seq, f"{seq}")
    refused = peer.ask(wire.Consume(1, "popular"))

    assert (type(refused), refused.code) == (wire.Error, 530)
    assert peer.ask(wire.Cancel(1, "3")) == wire.Ok(1)
    assert peer.ask(wire.Consume(2, "popular", "another")) == wire.Consuming(2, "another")


def test_a_consumer_is_told_when_its_queue_is_deleted(daemon: Shmqd, peer: Peer) -> None:
    declare(peer, "vanishing")
    peer.ask(wire.Consume(3, "vanishing", "ctag"))
    with daemon.connect() as other:
        other.delete_queue("vanishing")

    assert peer.hear() == wire.Cancelled("ctag", "queue 'vanishing' was deleted")


def test_an_auto_delete_queue_goes_with_its_last_consumer(peer: Peer) -> None:
    declare(peer, "passing", auto_delete=True)
    peer.ask(wire.Consume(3, "passing", "ctag"))
    assert peer.ask(wire.Cancel(4, "ctag")) == wire.Ok(4)

    assert peer.ask(wire.InspectQueue(5, "passing")).code == 404


def test_tags_settled_twice_or_never_given_are_refused_and_the_session_goes_on(peer: Peer) -> None:
    assert peer.ask(wire.Ack(2, [4711])).code == 607
    assert peer.ask(wire.Ping(3)) == wire.Ok(3)


def test_disk_confirms_are_refused_without_a_journal(peer: Peer) -> None:
    declare(peer, "durable", durable=True)

    assert peer.ask(wire.Publish(2, "", "durable", b"", b"x", confirm=wire.CONFIRM_DISK)).code == 610


def test_an_envelope_that_names_another_key_is_refused(peer: Peer) -> None:
    declare(peer, "named")

    assert peer.ask(wire.Publish(2, "", "named", b"\x94\xa0\xa5other\x80\x80", b"x")).code == 604
