"""Every wrong argument of every public call of both clients, in both modes: an error that names it, at once, and a
session that goes on as if nobody had called.

The calls and their parameters come from the signatures: a new one without a line in `support.wrong_arguments` fails.
"""

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

import pytest

import shmq
from shmq_clients.channel import Channel
from support.adapted import LoopThread, connect_adapted
from support.deadline import scaled
from support.messages import wait_for
from support.wrong_arguments import CASES, Wrong, cases

IN_TIME = 1.0
BINDING = {"queue": "jobs", "exchange": "there"}
ENDS = {"destination": "there", "source": "there"}
RIGHT: dict[str, dict[str, Any]] = {  # what else a call must be given; the queue and the exchange are there
    "publish": {"body": b"wrong", "routing_key": "jobs"},
    "channel.publish": {"body": b"wrong", "routing_key": "jobs"},
    "publish_many": {"bodies": [b"wrong"], "routing_key": "jobs"},
    "loan": {"body_bytes": 10, "routing_key": "jobs"},
    "declare_queue": {"name": "new"},
    "declare_exchange": {"name": "new"},
    "delete_exchange": {"exchange": "there"},
    "bind_queue": BINDING,
    "unbind_queue": BINDING,
    "bind_exchange": ENDS,
    "unbind_exchange": ENDS,
    **{
        name: {"queue": "jobs"} for name in ("delete_queue", "purge_queue", "queue_info", "get", "get_batch", "consume")
    },
}
BY_PLACE = ("body", "bodies", "extend", "messages")  # which C takes no keyword for
OF_CONNECTIONS = sorted(name for name in CASES if hasattr(shmq.Connection, name))
OF_MESSAGES = ("nack", "reject", "touch")
OF_CHANNELS = [name for name in CASES if name.startswith("channel.")]
ONLY_OF_BLOCKING = {"drain"}  # for other loops than asyncio's


def parameters(call: Callable[..., Any]) -> set[str]:
    """The names of all parameters, keywords of a TypedDict too."""
    found: set[str] = set()
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            (keywords,) = get_args(get_type_hints(call)[name])
            found |= get_type_hints(keywords).keys()
        elif name != "self":
            found.add(name)
    return found


def public(cls: type) -> dict[str, Callable[..., Any]]:
    return {name: call for name, call in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


def test_every_parameter_of_every_public_call_has_its_wrong_arguments() -> None:
    calls: dict[str, Callable[..., Any]] = public(shmq.AsyncConnection) | public(shmq.Connection)
    calls |= {"connect": shmq.connect, "connect_async": shmq.connect_async, "local": shmq.local}
    calls |= {f"channel.{name}": call for name, call in public(Channel).items() if name in vars(Channel)}
    calls |= {name: call for name, call in public(shmq.Message).items() if name != "view"}
    taken = {name: parameters(call) for name, call in calls.items()}

    assert {name: names for name, names in taken.items() if names} == {name: set(of) for name, of in CASES.items()}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with shmq.local() as url:
        yield url


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="module", params=["blocking-direct", "blocking-socket", "asyncio-direct", "asyncio-socket"])
def conn(broker: str, loop: LoopThread, request: pytest.FixtureRequest) -> Iterator[Any]:
    """One connection for all calls of a client and a mode: none of them may harm it."""
    client, mode = request.param.split("-")
    made: Any = connect_adapted(loop, broker, mode=mode) if client == "asyncio" else shmq.connect(broker, mode=mode)
    with made as connection:
        yield connection


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing was done, and the session is the same."""
    if "conn" not in request.fixturenames:
        yield
        return
    conn = request.getfixturevalue("conn")
    conn.declare_queue("jobs")
    conn.declare_exchange("there")
    session, queues = conn._link.session, [info.definition.name for info in conn.queues()]
    yield
    conn.publish(b"right", routing_key="jobs", confirm="memory")
    message = wait_for(conn, "jobs")
    message.ack()
    assert message.body == b"right"
    conn.wait_for_confirms()
    assert conn._link.session is session
    assert [info.definition.name for info in conn.queues()] == queues
    assert "new" not in [exchange.name for exchange in conn.exchanges()]
    assert conn.bindings(source="there") == []
    assert conn.queue_info("jobs").consumers == 0


def met(call: Callable[..., Any], keywords: dict[str, Any]) -> str:
    """What was raised."""
    places = [keywords.pop(name) for name in BY_PLACE if name in keywords]
    started = time.monotonic()
    try:
        call(*places, **keywords)
    except shmq.InvalidArgument as error:
        text = f"InvalidArgument {error}"
        text.encode()  # so that it can be shown
    except (TypeError, BufferError) as error:
        text = f"TypeError {error}"  # Python's own: what is no buffer, no sequence
    except Exception as error:  # noqa: BLE001 - whatever it is
        text = f"{type(error).__name__} {error}"
    else:
        text = "nothing"
    return text if time.monotonic() - started < scaled(IN_TIME) else f"late: {text}"


def expect(call: Callable[..., Any], keywords: dict[str, Any], parameter: str, wrong: Wrong) -> None:
    """Each of the values is refused, by its name."""
    refused = {repr(value)[:60]: met(call, keywords | {parameter: value}) for value in wrong.values}
    says = wrong.says or parameter
    odd = {value: text for value, text in refused.items() if not text.startswith(wrong.raises) or says not in text}
    assert odd == {}


@pytest.mark.parametrize(("call", "parameter"), cases(*OF_CONNECTIONS))
def test_a_connection_refuses_what_it_can_not_use(conn: Any, call: str, parameter: str) -> None:
    if not hasattr(conn, call):
        assert call in ONLY_OF_BLOCKING
        return
    expect(getattr(conn, call), RIGHT.get(call, {}), parameter, CASES[call][parameter])


@pytest.mark.parametrize(("call", "parameter"), cases(*OF_MESSAGES))
def test_a_message_refuses_what_it_can_not_use_and_is_still_unacked(conn: Any, call: str, parameter: str) -> None:
    conn.publish(b"held", routing_key="jobs", confirm="memory")
    message: Any = wait_for(conn, "jobs")

    expect(getattr(message, call), RIGHT.get(call, {}), parameter, CASES[call][parameter])
    assert message.state == "unacked"
    message.ack()


@pytest.mark.parametrize(("call", "parameter"), cases(*OF_CHANNELS))
def test_a_channel_refuses_what_it_can_not_use_and_settles_nothing(conn: Any, call: str, parameter: str) -> None:
    conn.publish(b"held", routing_key="jobs", confirm="memory")
    with conn.channel() as channel:
        message: Any = channel.get("jobs", timeout=scaled(IN_TIME))
        right = {"delivery_tag": message.delivery_tag} if "delivery_tag" in CASES[call] else RIGHT.get(call, {})

        expect(getattr(channel, call.removeprefix("channel.")), right, parameter, CASES[call][parameter])
        assert channel.unacked == 1
        channel.ack(message.delivery_tag)


@pytest.mark.parametrize(("call", "parameter"), cases("connect", "connect_async", "local"))
def test_who_connects_is_told_at_once_what_can_not_be_used(call: str, parameter: str) -> None:
    def entered(**keywords: Any) -> None:
        made: Any = getattr(shmq, call)(**keywords)
        if call == "local":
            made.__enter__()

    expect(entered, {}, parameter, CASES[call][parameter])
