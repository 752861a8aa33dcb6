"""What a user may do who is neither root nor the daemon's: asked from a process of such a user, with each client.

All 512 cells of subjects, verbs and names are in tests/integration/test_permissions.py.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import pytest

import shmq
from support.adapted import LoopThread, connect_adapted
from support.deadline import scaled
from support.shmqd import Shmqd
from support.subjects import DAEMON, SOCKET, Subject, attempt, daemon_of, grant, run_as

USER = Subject(61_021, 61_021)
STRANGER = Subject(61_022, 61_022)
Calls = Mapping[str, Callable[[], object]]
Ask = Callable[[Callable[[shmq.Connection], Calls]], dict[str, str]]

SETTINGS = SOCKET + "\n".join([
    grant("uid = 61021", "configure", names="own.*"),
    grant("uid = 61021", "write", names="in.*"),
    grant("uid = 61021", "read", names="out.*"),
    grant("uid = 61021", "direct", names="all.direct"),
    grant("uid = 61021", "configure", "write", "read", names="all.*", more='deny.write = ["all.denied"]'),
])  # fmt: skip
EXISTING = ("own.q", "in.q", "out.q", "all.q", "all.denied", "other.q", "all.queue", "all.direct")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Shmqd]:
    with daemon_of(DAEMON, SETTINGS) as running:
        with running.connect() as conn:
            for name in EXISTING:
                conn.declare_queue(name)
                conn.declare_exchange(name)
        yield running


def connect_as(client: str, mode: str, url: str, *, insist: bool = False) -> shmq.Connection:
    wanted = mode if insist or mode == "socket" else "auto"
    if client == "asyncio":
        return connect_adapted(LoopThread(), url, mode=wanted, timeout=scaled(5))
    return shmq.connect(url, mode=wanted, timeout=scaled(5))  # type: ignore[arg-type] # one of its words


@pytest.fixture
def ask(daemon: Shmqd, client: str, mode: str) -> Ask:
    """Make calls as the user, in a process of its own; what came of each."""

    def outcomes(calls_of: Callable[[shmq.Connection], Calls]) -> dict[str, str]:
        def work() -> dict[str, str]:
            with connect_as(client, mode, daemon.url) as conn:
                return {name: attempt(call)[0] for name, call in calls_of(conn).items()}

        met: dict[str, str] = run_as(USER, work)
        return met

    return outcomes


@pytest.mark.rule("PERMIT-1")
def test_nothing_is_allowed_that_no_pattern_of_the_whole_name_allows_and_a_denial_wins(ask: Ask) -> None:
    met = ask(
        lambda conn: {
            "own.new": lambda: conn.declare_queue("own.new"),
            "xown.new": lambda: conn.declare_queue("xown.new"),
            "own": lambda: conn.declare_queue("own"),
            "other.new": lambda: conn.declare_queue("other.new"),
            "all.q": lambda: conn.publish(b"", exchange="all.q", confirm="memory"),
            "all.denied": lambda: conn.publish(b"", exchange="all.denied", confirm="memory"),
        }
    )

    allowed = {"own.new", "all.q"}
    assert met == {name: "done" if name in allowed else "AccessRefused" for name in met}


@pytest.mark.rule("PERMIT-1")
def test_who_has_no_permission_at_all_is_not_admitted_and_hears_why(daemon: Shmqd, client: str, mode: str) -> None:
    name, text = run_as(STRANGER, lambda: attempt(lambda: connect_as(client, mode, daemon.url)))

    assert name == "AccessRefused"
    assert f"uid {STRANGER.uid}" in text


@pytest.mark.rule("PERMIT-2")
@pytest.mark.parametrize(("name", "may"), [("own.q", "configure"), ("in.q", "write"), ("out.q", "read")])
def test_each_call_needs_its_permission(ask: Ask, name: str, may: str) -> None:
    met = ask(
        lambda conn: {
            "configure declare": lambda: conn.declare_queue(name),
            "configure exchange": lambda: conn.declare_exchange(name),
            "configure delete": lambda: conn.delete_exchange(name, if_unused=True),
            "write publish": lambda: conn.publish(b"", exchange=name, confirm="memory"),
            "write to the queue": lambda: conn.publish(b"", routing_key=name, confirm="memory"),
            "read get": lambda: conn.get(name, no_ack=True),
            "read consume": lambda: conn.consume(name).cancel(),
            "read purge": lambda: conn.purge_queue(name),
            "any passive": lambda: conn.declare_queue(name, passive=True),
        }
    )

    allowed = [call for call in met if call.startswith((may, "any"))]
    expected = {call: "done" if call in allowed else "AccessRefused" for call in met}
    assert met == expected


@pytest.mark.rule("PERMIT-3")
def test_binding_needs_write_at_its_end_and_read_at_its_source(ask: Ask) -> None:
    met = ask(
        lambda conn: {
            "in.q out.q": lambda: conn.bind_queue("in.q", "out.q", "k"),
            "in.q in.q": lambda: conn.bind_queue("in.q", "in.q", "k"),
            "out.q out.q": lambda: conn.bind_queue("out.q", "out.q", "k"),
            "own.q all.q": lambda: conn.bind_exchange("own.q", "all.q", "k"),
            "all.q out.q": lambda: conn.unbind_exchange("all.q", "out.q", "k"),
        }
    )

    allowed = {"in.q out.q", "all.q out.q"}
    assert met == {name: "done" if name in allowed else "AccessRefused" for name in met}


@pytest.mark.rule("PERMIT-4")
def test_passing_on_needs_read_at_its_owner_and_write_where_it_goes(ask: Ask) -> None:
    met = ask(
        lambda conn: {
            "all.1 in.q": lambda: conn.declare_queue("all.1", dead_letter_exchange="in.q"),
            "all.2 out.q": lambda: conn.declare_queue("all.2", dead_letter_exchange="out.q"),
            "own.1 in.q": lambda: conn.declare_queue("own.1", dead_letter_exchange="in.q"),
            "all.3 in.q": lambda: conn.declare_exchange("all.3", alternate_exchange="in.q"),
            "all.4 out.q": lambda: conn.declare_exchange("all.4", alternate_exchange="out.q"),
            "own.2 in.q": lambda: conn.declare_exchange("own.2", alternate_exchange="in.q"),
        }
    )

    allowed = {"all.1 in.q", "all.3 in.q"}
    assert met == {name: "done" if name in allowed else "AccessRefused" for name in met}


@pytest.mark.rule("PERMIT-5")
def test_working_in_memory_is_a_permission_of_its_own(daemon: Shmqd, client: str, mode: str) -> None:
    def used(conn: shmq.Connection, queue: str) -> str:
        conn.publish(b"x", routing_key=queue, confirm="memory")
        message = conn.get(queue, timeout=scaled(5))
        assert message is not None
        message.ack()
        return conn.queue_info(queue).mode

    def work() -> list[str]:
        with connect_as(client, mode, daemon.url) as conn:
            return [used(conn, queue) for queue in ("all.direct", "all.queue")]

    def insist() -> list[str]:
        with connect_as(client, "direct", daemon.url, insist=True) as conn:
            return [attempt(functools.partial(conn.get, queue))[0] for queue in ("all.direct", "all.queue")]

    assert run_as(USER, work) == [mode, "socket"]
    assert run_as(USER, insist) == ["done", "DirectRefused"]
