"""Permissions as processes of other users meet them: each subject, each verb, each kind of name, allowed or not.

The daemon runs under a uid of its own, not as root. A name is `subject.need.state.object`: what the subject's rule says
of it is in the state; whatever else than the needed permission there is, it has, so that this one alone decides.
"""

import contextlib
import functools
import itertools
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmq
from shmq.wire.frames import Route, Routed
from support.deadline import scaled
from support.shmqd import Shmqd
from support.subjects import DAEMON, SOCKET, Subject, attempt, daemon_of, grant, refusal_at, run_as

SUBJECTS = {
    "user": (Subject(61_001, 61_001), "uid = 61001"),
    "group": (Subject(61_002, 62_002), "gid = 62002"),
    "member": (Subject(61_003, 61_003, (62_000, 62_003)), "gid = 62003"),
    "anybody": (Subject(61_004, 61_004), "any = true"),
}
STRANGER = Subject(61_009, 61_009, (61_999,))
VERBS = {  # and the permission that each needs; in an order in which none takes away what the next one needs
    "passive": "any",
    "bind": "write",
    "publish": "write",
    "get": "read",
    "consume": "read",
    "purge": "read",
    "declare": "configure",
    "delete": "configure",
}
NEEDS = ("configure", "write", "read", "any")
STATES = ("allow", "deny", "none", "conflict")
OBJECTS = ("plain", "with.dots", "ünï [x]*", "missing")
EXISTING = OBJECTS[:3]
PERMISSIONS = ("configure", "write", "read")


def quoted(patterns: list[str]) -> str:
    return "[" + ", ".join(f'"{pattern}"' for pattern in patterns) + "]"


def rules_of(name: str, principal: str) -> str:
    """What this subject may do."""
    lines = ["[[permissions]]", principal]
    for permission in PERMISSIONS:
        others = [f"{name}.{need}.*" for need in PERMISSIONS if need != permission]
        decided = [f"{name}.{need}.{state}.*" for need in (permission, "any") for state in ("allow", "conflict")]
        denied = [f"{name}.{need}.{state}.*" for need in (permission, "any") for state in ("deny", "conflict")]
        opened = [f"{name}.open"] if permission == "read" else []
        lines += [f"{permission} = {quoted(others + decided + opened)}", f"deny.{permission} = {quoted(denied)}"]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Shmqd]:
    settings = SOCKET + "".join(rules_of(name, principal) for name, (_, principal) in SUBJECTS.items())
    with daemon_of(DAEMON, settings) as running:
        with running.connect() as conn:
            for name in SUBJECTS:
                conn.declare_exchange(f"{name}.open")
                for need, state, what in itertools.product(NEEDS, STATES, EXISTING):
                    conn.declare_queue(f"{name}.{need}.{state}.{what}", capacity_messages=8)
                    if need == "write":
                        conn.declare_exchange(f"{name}.{need}.{state}.{what}")
        yield running


def try_verb(conn: shmq.Connection, subject: str, verb: str, name: str) -> tuple[str, str]:
    verbs: dict[str, Callable[[], object]] = {
        "passive": lambda: conn.declare_queue(name, passive=True),
        "bind": lambda: conn.bind_queue(name, f"{subject}.open", "key"),
        "publish": lambda: conn.publish(b"", exchange=name, confirm="memory"),
        "get": lambda: conn.get(name),
        "consume": lambda: consume_and_cancel(conn, name),
        "purge": lambda: conn.purge_queue(name),
        "declare": lambda: conn.declare_queue(name, capacity_messages=8),
        "delete": lambda: conn.delete_queue(name),
    }
    return attempt(verbs[verb])


def consume_and_cancel(conn: shmq.Connection, name: str) -> None:
    consumer = conn.consume(name)
    conn.cancel(consumer.consumer_tag)


def try_all(url: str, subject: str) -> dict[str, tuple[str, str]]:
    """Every verb on every name, by `verb state object`."""
    with shmq.connect(url, mode="socket", timeout=scaled(5)) as conn:
        return {
            f"{verb} {state} {what}": try_verb(conn, subject, verb, f"{subject}.{need}.{state}.{what}")
            for verb, need in VERBS.items()
            for state, what in itertools.product(STATES, OBJECTS)
        }


def expected(verb: str, state: str, what: str) -> str:
    if state != "allow":
        return "AccessRefused"
    is_there = what != "missing" or verb in {"declare", "delete"}  # deleted when it was declared
    return "done" if is_there else "NotFound"


# -- the matrix -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_verb_on_each_name_is_done_where_it_is_allowed_and_nowhere_else(daemon: Shmqd, subject: str) -> None:
    who, _ = SUBJECTS[subject]
    met = run_as(who, lambda: try_all(daemon.url, subject))
    cells = list(itertools.product(VERBS, STATES, OBJECTS))
    outcomes = {cell: met[" ".join(cell)][0] for cell in cells}

    assert len(cells) * len(SUBJECTS) == 512
    assert outcomes == {cell: expected(*cell) for cell in cells}
    for verb, state, what in (cell for cell in cells if cell[1] != "allow"):
        text = met[f"{verb} {state} {what}"][1]
        assert f"uid {who.uid} " in text
        assert f"{subject}.{VERBS[verb]}.{state}.{what}" in text
        if VERBS[verb] != "any":
            missing = f"has no {VERBS[verb]} pattern" if state == "none" else f"is denied to {VERBS[verb]} what matches"
            assert missing in text


def test_a_refusal_does_not_tell_whether_the_thing_is_there(daemon: Shmqd) -> None:
    def ask() -> list[list[str]]:
        with shmq.connect(daemon.url, mode="socket") as conn:
            names = ("group.any.allow.plain", "group.any.allow.absent")
            met = [[try_verb(conn, "user", verb, name) for name in names] for verb in VERBS]
            met.append([attempt(functools.partial(conn.queue_info, name)) for name in names])
            return [[text.replace(name, "it") for name, (_, text) in zip(names, pair, strict=True)] for pair in met]

    for there, absent in run_as(SUBJECTS["user"][0], ask):
        assert there == absent
        assert "refused" in there


def test_a_listing_has_no_more_than_its_reader_may_see(daemon: Shmqd) -> None:
    def names() -> list[str]:
        with shmq.connect(daemon.url, mode="socket") as conn:
            return [info.definition.name for info in conn.queues()]

    seen = run_as(SUBJECTS["member"][0], names)

    assert seen
    assert {name.partition(".")[0] for name in seen} == {"member", "anybody"}
    assert {name.split(".")[2] for name in seen if ".any." in name} == {"allow"}


def test_exchanges_and_bindings_are_listed_to_who_may_see_them_and_both_their_ends() -> None:
    rules = grant("uid = 61001", "write", names="open.*") + grant("uid = 61001", "read", names="open.*")
    with daemon_of(DAEMON, SOCKET + rules) as daemon:
        with daemon.connect() as conn:
            for end in ("open", "hidden"):
                conn.declare_queue(f"{end}.queue")
                conn.declare_exchange(f"{end}.exchange")
            for source, end in itertools.product(("open", "hidden"), repeat=2):
                conn.bind_queue(f"{end}.queue", f"{source}.exchange", "k")

        def listed() -> list[list[str]]:
            with shmq.connect(daemon.url, mode="socket") as conn:
                exchanges = [exchange.name for exchange in conn.exchanges()]
                bindings = [
                    *conn.bindings(),
                    *conn.bindings(source="hidden.exchange"),
                    *conn.bindings(destination="hidden.queue"),
                ]
                return [exchanges, [f"{one.source} {one.destination}" for one in bindings]]

        assert run_as(Subject(61_001, 61_001), listed) == [["open.exchange"], ["open.exchange open.queue"]]


def test_what_a_publisher_is_refused_names_no_queue_that_it_may_not_know_of() -> None:
    with daemon_of(DAEMON, SOCKET + grant("uid = 61001", "write", names="open*")) as daemon:
        with daemon.connect() as conn:
            for number, arguments in enumerate(
                [{"capacity_messages": 1}, {"max_length": 1, "overflow": "reject-publish"}]
            ):
                conn.declare_exchange(f"open{number}", "fanout")
                for queue in ("hidden", "open"):
                    conn.declare_queue(f"{queue}-{number}", capacity_bytes=1 << 20, **arguments)  # type: ignore[arg-type] # of a queue
                    conn.bind_queue(f"{queue}-{number}", f"open{number}")
                    conn.publish(b"", routing_key=f"{queue}-{number}", confirm="memory")

        def refusals() -> list[tuple[str, str]]:
            with shmq.connect(daemon.url, mode="socket") as conn:
                publish = functools.partial(conn.publish, confirm="memory", timeout=0)
                return [
                    attempt(functools.partial(publish, body, exchange=exchange))
                    for body in (b"", bytes(5_000_000))
                    for exchange in ("open0", "open1")
                ]

        met = run_as(Subject(61_001, 61_001), refusals)
    assert [name for name, _ in met] == ["QueueFull", "PublishRejected", "BodyTooLarge", "BodyTooLarge"]
    assert "hidden" not in str(met)
    assert "'open-1'" in met[1][1]


def test_nobody_publishes_under_the_user_id_of_another_not_even_root() -> None:
    rules = grant("uid = 61001", "configure", "write", "read", "direct")
    with daemon_of(DAEMON, SOCKET + rules) as daemon:
        with daemon.connect() as conn:
            conn.declare_queue("jobs")

        def publish_as(mode: str) -> list[str]:
            with shmq.connect(daemon.url, mode=mode) as conn:  # type: ignore[arg-type] # a mode
                publish = functools.partial(conn.publish, b"", routing_key="jobs", confirm="memory")
                return [attempt(functools.partial(publish, user_id=one))[0] for one in ("0", "61000", "61001")]

        refused = "PreconditionFailed"
        for mode in ("direct", "socket"):
            as_user = functools.partial(publish_as, mode)
            assert run_as(Subject(61_001, 61_001), as_user) == [refused, refused, "done"]
            assert publish_as(mode) == ["done", refused, refused]


@pytest.mark.parametrize("mode", ["direct", "socket"])
def test_a_message_says_under_which_uid_and_gid_it_was_published(mode: str) -> None:
    user, rules = Subject(61_001, 62_001), grant("uid = 61001", "read", "write", "direct")
    with daemon_of(DAEMON, SOCKET + rules) as daemon, daemon.connect() as conn:
        conn.declare_queue("jobs")

        def publish() -> int:
            with shmq.connect(daemon.url, mode=mode) as theirs:  # type: ignore[arg-type] # a mode
                theirs.publish(b"", routing_key="jobs", confirm="memory")
            return os.getpid()

        pid = run_as(user, publish)
        message = conn.get("jobs", timeout=scaled(2), no_ack=True)
        assert message is not None
        assert message.sender == (user.uid, user.gid, pid)


# -- who is let in --------------------------------------------------------------------------------------------------


def test_a_stranger_learns_nothing_but_that() -> None:
    with daemon_of(DAEMON, SOCKET + grant("uid = 61001", "read")) as daemon:
        with daemon.connect() as conn:
            conn.declare_queue("secret")
        name, text = run_as(STRANGER, lambda: refusal_at(daemon.url))

    assert name == "AccessRefused"
    assert "uid 61009 has no permissions, nor has any of its groups" in text
    assert "secret" not in text


GROUPS = """
import grp
from types import SimpleNamespace
known = {"shmq": 63000, "shmq-direct": 63001}
grp.getgrnam = lambda name: SimpleNamespace(gr_gid=known[name])
"""


def work_in(url: str, mode: str) -> str:
    with shmq.connect(url, mode=mode) as conn:  # type: ignore[arg-type] # a mode
        conn.declare_queue("jobs")
        conn.publish(b"work", routing_key="jobs", confirm="memory")
        message = conn.get("jobs", timeout=scaled(5))
        assert message is not None
        message.ack()
        return conn.queue_info("jobs").mode


def test_without_permissions_the_groups_shmq_and_shmq_direct_have_theirs() -> None:
    with daemon_of(Subject(61_000, 63_000), "", GROUPS) as daemon:
        status = daemon.socket.stat()
        member, direct = Subject(61_001, 61_001, (63_000,)), Subject(61_002, 61_002, (63_000, 63_001))

        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, 63_000)
        assert run_as(member, lambda: work_in(daemon.url, "auto")) == "socket"
        assert run_as(direct, lambda: work_in(daemon.url, "direct")) == "direct"
        name, text = run_as(member, lambda: refusal_at(daemon.url, "direct"))
        assert (name, "uid 61001 has no direct pattern" in text) == ("DirectRefused", True)
        name, text = run_as(STRANGER, lambda: refusal_at(daemon.url))
        assert (name, "Permission denied" in text) == ("AccessRefused", True)  # by the socket's own mode


def test_a_lost_session_is_not_taken_over_under_another_uid(daemon: Shmqd) -> None:
    def as_two() -> bool:
        with shmq.connect(daemon.url, mode="socket") as conn:
            session = conn._link.session
            assert session is not None
            Subject(61_001, 61_001).become()
            session.stream._socket.shutdown(socket.SHUT_RDWR)
            conn.status()
            again = conn._link.session
            assert again is not None
            ids = [one.welcome.connection_id for one in (session, again) if one.welcome is not None]
            return len(set(ids)) == 1

    assert run_as(Subject(0, 0), as_two) is False


# -- direct mode ----------------------------------------------------------------------------------------------------

FDS = Path("/proc/self/fd")
COMBINATIONS = [
    [permission for permission, has in zip(("read", "write", "direct"), choice, strict=True) if has]
    for choice in itertools.product((False, True), repeat=3)
]


def descriptors_of(names: list[str], url: str) -> dict[str, tuple[str, int]]:
    """What attaching to each queue came to, and how many descriptors came with it."""
    found = {}
    with shmq.connect(url) as conn:
        conn.status()  # its answer comes behind the descriptor that every client gets
        for name in names:
            before = set(FDS.iterdir())
            outcome, _ = attempt(functools.partial(conn._attachments.attach, name))
            found[name] = (outcome, len(set(FDS.iterdir()) - before))
    return found


def test_a_descriptor_goes_to_those_who_may_read_write_and_work_directly() -> None:
    names = ["-".join(some) or "nothing" for some in COMBINATIONS]
    rules = [grant("uid = 61001", *some, names=name) for name, some in zip(names, COMBINATIONS, strict=True)]
    with daemon_of(DAEMON, SOCKET + "".join(rules)) as daemon:
        with daemon.connect() as conn:
            for name in names:
                conn.declare_queue(name)
        met = run_as(Subject(61_001, 61_001), lambda: descriptors_of([*names, "absent"], daemon.url))

    got = {name for name, (outcome, descriptors) in met.items() if outcome == "done" and descriptors > 0}
    assert got == {"read-write-direct"}
    assert {tuple(met[name]) for name in met if name not in got} == {("DirectRefused", 0)}


def test_what_may_not_be_done_directly_is_done_over_the_socket() -> None:
    rules = grant("uid = 61001", "read", "write") + grant("uid = 61001", "direct", names="fast")
    with daemon_of(DAEMON, SOCKET + rules) as daemon:
        with daemon.connect() as conn:
            conn.declare_queue("fast")
            conn.declare_queue("slow")
            conn.declare_exchange("both")
            for name in ("fast", "slow"):
                conn.bind_queue(name, "both", "key")

        def work() -> list[Any]:
            with shmq.connect(daemon.url) as conn:
                conn.publish(b"", exchange="both", routing_key="key", confirm="memory")
                for name in ("fast", "slow"):
                    conn.publish(b"", routing_key=name, confirm="memory")
                infos = [conn.queue_info(name) for name in ("fast", "slow")]
                return [(info.mode, info.messages, info.reason) for info in infos]

        fast, slow = run_as(Subject(61_001, 61_001), work)

    assert fast == ["direct", 2, ""]
    assert slow == ["socket", 2, "uid 61001 has no direct pattern that matches it"]


def test_daemon_producer_and_consumer_are_three_users_and_a_killed_one_loses_nothing() -> None:
    rules = grant("uid = 61001", "write", "read", "direct") + grant("gid = 62000", "write", "read", "direct")
    producer, consumer = Subject(61_001, 61_001), Subject(61_002, 61_002, (62_000,))
    with daemon_of(DAEMON, SOCKET + rules) as daemon:
        with daemon.connect() as conn:
            conn.declare_queue("jobs", delivery_limit=5)

        def produce() -> None:
            with shmq.connect(daemon.url, mode="direct") as conn:
                for number in range(100):
                    conn.publish(b"%d" % number, routing_key="jobs")

        def consume() -> list[Any]:
            with shmq.connect(daemon.url, mode="direct") as conn:
                messages = [conn.get("jobs", timeout=scaled(5)) for _ in range(100)]
                bodies = [(int(message.body), message.redelivered) for message in messages if message is not None]
                os.write(taken, b"all of them")
                signal.pause() if killed else conn.ack_many([m for m in messages if m is not None])
                return bodies

        run_as(producer, produce)
        read, taken = os.pipe()
        killed = True
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                consumer.become()
                consume()
            os._exit(1)
        os.read(read, 100)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed = False

        assert run_as(consumer, consume) == [[number, True] for number in range(100)]


def test_a_route_names_only_what_its_client_may_see() -> None:
    rules = grant("uid = 61001", "write", "read", "direct", names="open.*")
    rules += grant("uid = 61001", "write", names="shut")
    with daemon_of(DAEMON, SOCKET + rules) as daemon, daemon.connect() as conn:
        for source in ("open.all", "open.some", "open.hops", "open.hops.2"):
            conn.declare_exchange(source, "headers")
        conn.declare_exchange("secret", "headers")
        for queue in ("open.q", "shut"):
            conn.declare_queue(queue)
        conn.bind_queue("open.q", "open.all", arguments={"kind": "a"})
        conn.bind_exchange("open.all", "open.hops", arguments={"kind": "a"})
        conn.bind_queue("shut", "open.some", arguments={"kind": "b"})
        conn.bind_exchange("secret", "open.hops.2", arguments={"kind": "a"})
        conn.bind_queue("open.q", "secret", arguments={"kind": "a"})

        def ask() -> list[Any]:
            told = []
            with shmq.connect(daemon.url) as mine:
                for source in ("open.all", "open.some", "open.hops", "open.hops.2"):
                    routed = mine._link.ask(functools.partial(ask_route, source), Routed)
                    told.append([routed.direct, sorted(one.name for one in routed.exchanges), len(routed.bindings)])
                    mine.publish(b"", exchange=source, headers={"kind": "a"}, confirm="memory")
                    mine.publish(b"", exchange=source, headers={"kind": "b"}, confirm="memory")
            return told

        whole, half, hops, behind = run_as(Subject(61_001, 61_001), ask)

        assert whole == [True, ["open.all"], 1]
        assert half == [False, [], 0]
        assert hops == [True, ["open.all", "open.hops"], 2]
        assert behind == [False, [], 0]
        assert (conn.queue_info("open.q").messages, conn.queue_info("shut").messages) == (3, 1)


def ask_route(exchange: str, seq: int) -> Route:
    return Route(seq, exchange, "key")


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_a_copy_to_a_queue_that_may_not_be_written_to_is_refused_with_the_rest(header: str) -> None:
    rules = grant("uid = 61001", "write", "read", "direct", names="mine")
    with daemon_of(DAEMON, SOCKET + rules) as daemon, daemon.connect() as conn:
        for name in ("mine", "others"):
            conn.declare_queue(name)

        def publish() -> tuple[str, str]:
            with shmq.connect(daemon.url) as mine:
                headers = {header: ["others"]}
                return attempt(lambda: mine.publish(b"", routing_key="mine", headers=headers, confirm="memory"))

        name, text = run_as(Subject(61_001, 61_001), publish)

        assert (name, "access to queue 'others' refused" in text) == ("AccessRefused", True)
        assert [info.messages for info in conn.queues()] == [0, 0]


def test_exchanges_are_bound_by_who_may_write_to_one_and_read_the_other() -> None:
    rules = grant("uid = 61001", "write", names="to") + grant("uid = 61001", "read", names="from")
    with daemon_of(DAEMON, SOCKET + rules) as daemon, daemon.connect() as conn:
        for name in ("to", "from", "other"):
            conn.declare_exchange(name)

        def bind() -> list[str]:
            pairs = [("to", "from"), ("from", "to"), ("other", "from"), ("to", "other")]
            with shmq.connect(daemon.url, mode="socket") as mine:
                verbs = (mine.bind_exchange, mine.unbind_exchange)
                return [attempt(functools.partial(verb, *pair, "key"))[0] for verb in verbs for pair in pairs]

        refused = ["AccessRefused"] * 3
        assert run_as(Subject(61_001, 61_001), bind) == ["done", *refused, "done", *refused]


# -- what is not asked again ----------------------------------------------------------------------------------------


def test_routing_and_dead_letters_ask_for_nothing_on_the_queues_behind() -> None:
    rules = grant("uid = 61001", "write", names="images") + grant("uid = 61001", "read", names="jobs")
    with daemon_of(DAEMON, SOCKET + rules) as daemon, daemon.connect() as conn:
        conn.declare_exchange("images")
        conn.declare_queue("dead")
        conn.declare_queue("jobs", dead_letter_exchange="", dead_letter_routing_key="dead")
        conn.bind_queue("jobs", "images", "new")

        def work() -> None:
            with shmq.connect(daemon.url) as mine:
                mine.publish(b"", exchange="images", routing_key="new", confirm="memory")
                message = mine.get("jobs", timeout=scaled(5))
                assert message is not None
                message.reject()

        run_as(Subject(61_001, 61_001), work)
        assert conn.get("dead", timeout=scaled(5)) is not None
