"""What strangers send to the daemon: an error for their session, soon, and nothing for anybody else.

Invariant of every test here: as in test_bad_input.py; and a frame that can be read never meets an internal error.
"""

import contextlib
import functools
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shmq.definitions import QueueDefinition
from shmq.errors import InternalError, ShmqError
from shmq.limits import CHANNELS_MAX
from shmq.message import encode_envelope, make_properties
from shmq.names import REPLY_TO
from shmq.wire import frames as wire
from shmq.wire.codes import BY_CODE, GOODBYE
from shmq.wire.connection import Signal, client_connection
from support.bystander import unharmed
from support.deadline import scaled, wait_until
from support.frame_samples import SAMPLES
from support.shmqd import Shmqd, instance

IN_TIME = 1.0  # seconds for an error
CLIENT_FRAMES = {name: frame for name, frame in SAMPLES.items() if isinstance(frame, wire.ClientFrame)}
encode = msgspec.msgpack.Encoder().encode


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shmqd]:
    with instance(tmp_path_factory.mktemp("shmqd")) as running:
        yield running


@pytest.fixture(autouse=True)
def bystander(daemon: Shmqd) -> Iterator[None]:
    with unharmed(daemon):
        yield


class Stranger:
    """A peer that sends bytes, and hears frames."""

    def __init__(self, daemon: Shmqd, *, hello: bool) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(scaled(5))
        self.socket.connect(str(daemon.socket))
        self.wire = client_connection()
        if hello:
            self.socket.sendall(self.wire.send(wire.Hello(mode="socket")))
            assert isinstance(self.hear(), wire.Welcome)
        else:
            self.wire.send(wire.Hello())

    def hear(self) -> Any:  # a frame, or Signal.END
        while (event := self.wire.next_event()) is Signal.NEED_DATA:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 16, 8)
            except ConnectionResetError:  # it left more of ours unread than it had to say
                return Signal.END
            self.wire.receive_data(data, descriptors)
        return event

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def close(self) -> None:
        self.socket.close()
        self.wire.close()


@contextlib.contextmanager
def stranger(daemon: Shmqd, *, hello: bool) -> Iterator[Stranger]:
    peer = Stranger(daemon, hello=hello)
    try:
        yield peer
    finally:
        peer.close()


def packed(*items: bytes) -> bytes:
    """A frame whose array has these elements."""
    body = bytes([0x90 | len(items)]) + b"".join(items)
    return struct.pack(">I", len(body)) + body


GARBAGE: dict[str, bytes] = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "AMQP": b"AMQP\0\0\x09\x01",
    "ones": b"\xff" * 4096,
    "zeros": bytes(4096),
    "no array": b"\0\0\0\x01\xc0",
    "an empty array": b"\0\0\0\x01\x90",
    "an unknown tag": packed(b"\x7f"),
    "a tag of the broker": packed(b"\x40", b"\x01"),
    "something behind the array": b"\0\0\0\x03\x91\x03\x00",
    "a bin without its bytes": b"\0\0\0\x07\x91\xc6\xff\xff\xff\xff\x00",
    "a map of four billion": b"\0\0\0\x07\x92\x08\xdf\xff\xff\xff\xff",
    "nesting": struct.pack(">I", 4000) + b"\x92\x03" + b"\x91" * 3998,
    "a tag that is a map": packed(b"\x80"),
    "a tag that is nil": packed(b"\xc0"),
    "a negative tag": packed(b"\xff", b"\x01"),
    "no array but a map": b"\0\0\0\x03\x81\x03\x01",
    "an array of four billion": b"\0\0\0\x07\xdd\xff\xff\xff\xff\x03\x01",
    "a field too few": packed(b"\x0a", b"\x01"),
    "a number that is true": packed(b"\x03", b"\xc3"),
    "a number that is negative": packed(b"\x03", b"\xff"),
    "a number that is a fraction": packed(b"\x03", b"\xca\x3f\x80\0\0"),
    "a number of 64 bits": packed(b"\x03", b"\xcf" + b"\xff" * 8),
    "a byte that is no MessagePack": packed(b"\x03", b"\xc1"),
    "an extension": packed(b"\x0b", b"\x01", b"\xd4\x05\xff"),
    "a timestamp for a name": packed(b"\x0b", b"\x01", b"\xd6\xff\0\0\0\x01"),
    "binary for a name": packed(b"\x0b", b"\x01", b"\xc4\x01q"),
    "a name of 256 bytes": packed(b"\x0b", b"\x01", b"\xda\x01\0" + b"a" * 256),
    "a name of four billion": packed(b"\x0b", b"\x01", b"\xdb\xff\xff\xff\xff"),
    "a body that is text": packed(b"\x20", b"\x01", b"\xa0", b"\xa1q", b"\xc4\0", b"\xa1x"),
    "a body of four billion": packed(b"\x20", b"\x01", b"\xa0", b"\xa1q", b"\xc4\0", b"\xc6\xff\xff\xff\xff"),
    "an envelope of 64 KiB": packed(b"\x20", b"\x01", b"\xa0", b"\xa1q", b"\xc6\0\x01\0\0" + bytes(65_536), b"\xc4\0"),
    "four billion bodies": packed(b"\x21", b"\x01", b"\xa0", b"\xa1q", b"\xc4\0", b"\xdd\xff\xff\xff\xff"),
    "four billion delivery tags": packed(b"\x30", b"\0", b"\xdd\xff\xff\xff\xff"),
    "the delivery tag 0": packed(b"\x30", b"\0", b"\x91\0"),
    "a definition that is an array": packed(b"\x08", b"\x01", b"\x90"),
    "a definition whose keys are numbers": packed(b"\x08", b"\x01", b"\x81\x01\x01"),
    "a definition whose name is a number": packed(b"\x08", b"\x01", b"\x81\xa4name\x05"),
    "arguments of four billion": packed(b"\x08", b"\x01", b"\x81\xa5other\xdf\xff\xff\xff\xff"),
    "an argument that is a map": packed(b"\x08", b"\x01", b"\x81\xa5other\x81\xa1a\x80"),
    "an argument whose name is an array": packed(b"\x08", b"\x01", b"\x81\xa5other\x81\x91\x01\x01"),
    "an argument that nests": packed(b"\x08", b"\x01", b"\x81\xa5other\x81\xa1a" + b"\x91" * 1_000),
    "two frames in one": b"\0\0\0\x06" + b"\x92\x03\x01" * 2,
    "a frame of no bytes": bytes(4),
    "a name that is no UTF-8": packed(b"\x0b", b"\x01", b"\xa2\xff\xfe"),
}
GIANTS: dict[str, bytes] = {
    "the largest length": b"\xff\xff\xff\xff\x92\x20",
    "a control frame of 2 MiB": struct.pack(">I", 2 << 20) + b"\x92\x03" + bytes(2 << 20),
    "a publish of 2 GiB": struct.pack(">I", 2 << 30) + b"\x97\x20" + bytes(1 << 20),
}


@pytest.mark.parametrize("hello", [False, True], ids=["stranger", "client"])
@pytest.mark.parametrize("garbage", [*GARBAGE, *GIANTS])
def test_garbage_and_giants_end_their_session_with_a_reason(daemon: Shmqd, garbage: str, *, hello: bool) -> None:
    with stranger(daemon, hello=hello) as peer:
        started = time.monotonic()
        peer.send((GARBAGE | GIANTS)[garbage])
        closing = peer.hear()

        assert isinstance(closing, wire.Closing)
        assert closing.code in {501, 601, 603}
        assert closing.text
        assert peer.hear() is Signal.END
        assert time.monotonic() - started <= IN_TIME


def test_there_are_as_many_named_bombs_as_were_promised() -> None:
    assert len(GARBAGE | GIANTS) >= 40


ODD: dict[str, Any] = {
    "nil": None,
    "true": True,
    "negative": -1,
    "zero": 0,
    "large": (1 << 63) - 1,
    "larger": (1 << 64) - 1,
    "fraction": 1.5,
    "empty text": "",
    "text": "a\0b",
    "long text": "x" * 300,
    "binary": b"\xff" * 10,
    "array": [],
    "nested array": [[[]], {}],
    "map": {},
    "odd map": {"name": 5, "": None, "x": {}},
    "extension": msgspec.msgpack.Ext(5, b"x"),
}


@pytest.mark.parametrize("name", CLIENT_FRAMES)
def test_a_frame_with_an_odd_field_is_refused_or_done_and_never_an_internal_error(daemon: Shmqd, name: str) -> None:
    fields = msgspec.msgpack.decode(encode(CLIENT_FRAMES[name]))
    with daemon.connect() as conn:
        conn.declare_queue("jobs", max_priority=3)
        conn.declare_exchange("images", "topic", internal=False)
        conn.bind_queue("jobs", "images", "a.*")
        for position in range(1, len(fields)):
            for odd, value in ODD.items():
                with stranger(daemon, hello=True) as peer:
                    assert_answered(
                        peer, encode([*fields[:position], value, *fields[position + 1 :]]), f"{position} {odd}"
                    )
        for queue in [info.definition.name for info in conn.queues()]:
            if not queue.startswith("amq.gen-"):  # the bystander's
                conn.delete_queue(queue)
        conn.delete_exchange("images")


def assert_answered(peer: Stranger, frame: bytes, what: str) -> None:
    """Can it be read, the session goes on, and says so; else it ends, with a reason. `what` is for the reader."""
    is_frame = can_be_read(frame)
    started = time.monotonic()
    peer.send(struct.pack(">I", len(frame)) + frame + packed(b"\x03", b"\xcd\x7f\xff"))
    heard: list[Any] = []
    while not heard or not (heard[-1] == wire.Ok(0x7FFF) or isinstance(heard[-1], wire.Closing)):
        heard.append(peer.hear())
        assert heard[-1] is not Signal.END, f"{what}: no reason"
    codes = {one.code for one in heard if isinstance(one, wire.Error | wire.Closing)}
    last = heard[-1]

    assert InternalError.code not in codes, f"{what}: {heard}"
    assert codes <= {*BY_CODE, GOODBYE}
    if isinstance(last, wire.Closing):
        assert last.code == GOODBYE if is_frame else last.code in {501, 603}, f"{what}: {last}"
    else:
        assert is_frame, f"{what} was taken"
    assert time.monotonic() - started < scaled(IN_TIME)


def can_be_read(frame: bytes) -> bool:
    """Whether it is a frame of an open session."""
    try:
        return not isinstance(msgspec.msgpack.decode(frame, type=wire.ClientFrame), wire.Hello)
    except (msgspec.MsgspecError, ValueError):
        return False


def test_a_giant_length_takes_no_memory(daemon: Shmqd) -> None:
    before = resident_kib(daemon.child("broker"))
    with contextlib.ExitStack() as peers:
        for _ in range(20):
            peer = peers.enter_context(stranger(daemon, hello=True))
            peer.send(struct.pack(">I", 1 << 30) + b"\x97\x20" + bytes(1000))
        with daemon.connect() as conn:
            conn.status()

        assert resident_kib(daemon.child("broker")) - before < 20 << 10


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_noise_ends_one_session_after_the_other_and_no_other(daemon: Shmqd) -> None:
    dice = random.Random(2024)
    with daemon.connect("socket") as conn:
        name = conn.declare_queue("", exclusive=True).name
        for number in range(200):
            with stranger(daemon, hello=bool(number % 2)) as peer:
                noise = dice.randbytes(dice.choice([1, 5, 64, 5000]))
                peer.send(struct.pack(">I", len(noise)) * (number % 3) + noise)
            conn.publish(b"%d" % number, routing_key=name, confirm="memory")

        assert [message.body for message in conn.get_batch(name, max_messages=200)] == [b"%d" % n for n in range(200)]
    wait_until(lambda: connections(daemon) <= 3, "the strangers are gone")


def connections(daemon: Shmqd) -> int:
    with daemon.connect("socket") as conn:
        return conn.status().totals["connections"]


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "amq.mine"])
def test_a_client_that_checks_nothing_is_told_by_the_broker_and_goes_on(daemon: Shmqd, name: str) -> None:
    with stranger(daemon, hello=True) as peer:
        peer.send(peer.wire.send(wire.DeclareQueue(1, QueueDefinition(name))))
        error = peer.hear()
        peer.send(peer.wire.send(wire.Ping(2)))

        assert isinstance(error, wire.Error)
        assert error.code in {403, 605}
        assert peer.hear() == wire.Ok(2)


@pytest.mark.parametrize("many", [False, True])
def test_a_forged_user_id_is_refused_by_the_broker_too(daemon: Shmqd, *, many: bool) -> None:
    with stranger(daemon, hello=True) as peer, daemon.connect() as conn:
        queue = conn.declare_queue("").name
        forged = encode_envelope("", queue, make_properties(user_id=str(os.getuid() + 1)))
        mine = encode_envelope("", queue, make_properties(user_id=str(os.getuid())), {"user_id": "anything"})
        for seq, envelope in enumerate([forged, mine], 1):
            frame = (
                wire.PublishMany(seq, "", queue, envelope, [b""])
                if many
                else wire.Publish(seq, "", queue, envelope, b"")
            )
            peer.send(peer.wire.send(frame))

        error = peer.hear()
        assert (error.seq, error.code, error.data["argument"]) == (1, 406, "user_id")
        assert peer.hear().seq == 2
        assert conn.delete_queue(queue) == 1


def test_a_publish_that_names_what_is_not_there_is_answered(daemon: Shmqd) -> None:
    with stranger(daemon, hello=True) as peer:
        name = "x" * 255
        peer.send(peer.wire.send(wire.Publish(1, "", name, b"", b"body", mandatory=True)))
        peer.send(peer.wire.send(wire.Get(2, name)))
        peer.send(peer.wire.send(wire.Attach(3, name)))

        assert [peer.hear().code for _ in range(3)] == [312, 404, 404]


def test_acks_of_a_window_below_what_is_out_cost_others_no_time_however_many_consumers_wait(daemon: Shmqd) -> None:
    with daemon.connect("socket") as conn, daemon.connect("socket") as other:
        busy, idle = (conn.declare_queue("", exclusive=True).name for _ in range(2))
        channel = conn.channel()
        consumer = channel.consume(busy)
        waiting = [channel.consume(idle) for _ in range(1000)]
        conn.publish_many([b"x"] * 20_000, routing_key=busy, confirm="memory")
        held = [next(consumer) for _ in range(20_000)]
        channel.prefetch = 1
        conn.queue_info(busy)

        started = time.monotonic()
        channel.ack(held[-1].delivery_tag, multiple=True)
        other.status()

        assert time.monotonic() - started < scaled(IN_TIME)
        assert conn.queue_info(idle).consumers == len(waiting)


def test_a_consumer_of_replies_that_is_refused_leaves_no_queue(daemon: Shmqd) -> None:
    with daemon.connect("socket") as conn:
        mine = conn.consume(conn.declare_queue("", exclusive=True).name, consumer_tag="mine")
        before = daemon.segments()
        for channel, tag in ((CHANNELS_MAX + 1, "other"), (1, mine.consumer_tag), (2, "\n")):
            asked = functools.partial(wire.Consume, queue=REPLY_TO, consumer_tag=tag, no_ack=True, channel=channel)
            with pytest.raises(ShmqError):
                conn._link.ask(asked, wire.Consuming)

        assert daemon.segments() == before


def test_ends_of_other_channels_cost_no_time_however_much_is_out(daemon: Shmqd) -> None:
    with daemon.connect("socket") as conn, daemon.connect("socket") as other:
        queue = conn.declare_queue("", exclusive=True).name
        conn.publish_many([b"x"] * 50_000, routing_key=queue, confirm="memory")
        consumer = conn.consume(queue)
        held = [next(consumer) for _ in range(50_000)]

        session = conn._link.session
        assert session is not None
        started = time.monotonic()
        for _ in range(3_000):
            conn._link.say_in(session, wire.CloseChannel(1, 1))
        other.status()
        conn.queue_info(queue)

        assert time.monotonic() - started < scaled(IN_TIME)
        conn.ack_many(held)
