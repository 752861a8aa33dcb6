"""shmq.wire.connection: two ends talk; after each step both are in the state that the tables say."""

import os
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.errors import (
    ConnectionClosed,
    FrameTooLarge,
    LocalFrameError,
    NotShmqd,
    ProtocolMismatch,
    RemoteFrameError,
)
from shmq.limits import HELLO_FRAME_BYTES_MAX, PROTOCOL
from shmq.wire.connection import Signal, broker_connection, client_connection
from shmq.wire.frames import BrokerFrame, ClientFrame, Closing, Goodbye, Hello, Ok, Ping, Publish, Welcome
from shmq.wire.states import State
from support.frame_samples import SAMPLES, SECRET

WELCOME = Welcome(PROTOCOL, 1, "0.1.0", "i", "c", SECRET, 32)


class ConnectionPair:
    """Two ends; what one sends the other reads at once, and their states are compared."""

    def __init__(self) -> None:
        self.client = client_connection()
        self.broker = broker_connection()

    def from_client(self, *frames: ClientFrame) -> list[ClientFrame]:
        self.broker.receive_data(b"".join(self.client.send(frame) for frame in frames))
        received = [frame for batch in iter(self.broker.next_events, []) for frame in batch]
        self.check(self.client.state)
        return received

    def from_broker(self, *frames: BrokerFrame, descriptors: Sequence[int] = ()) -> list[BrokerFrame]:
        stream = b"".join(
            self.broker.send(frame, descriptors if hasattr(frame, "descriptors") else ()) for frame in frames
        )
        self.client.receive_data(stream, descriptors)
        received = [frame for batch in iter(self.client.next_events, []) for frame in batch]
        self.check(self.broker.state)
        return received

    def opened(self) -> "ConnectionPair":
        self.from_client(Hello())
        self.from_broker(WELCOME)
        return self

    def check(self, state: State) -> None:
        assert (self.client.state, self.broker.state) == (state, state)


def test_a_session_from_hello_to_its_last_word() -> None:
    pair = ConnectionPair()
    pair.check(State.HELLO)
    assert pair.from_client(Hello(client="test")) == [Hello(client="test")]
    pair.check(State.WELCOME)
    assert pair.from_broker(WELCOME) == [WELCOME]
    pair.check(State.OPEN)
    assert pair.from_client(Ping(1), Ping(2)) == [Ping(1), Ping(2)]
    assert pair.from_broker(Ok(1), Ok(2)) == [Ok(1), Ok(2)]
    assert pair.from_client(Goodbye(clean=True)) == [Goodbye(clean=True)]
    pair.check(State.LEAVING)
    assert pair.from_broker(Ok(3), Closing(200)) == [Ok(3), Closing(200)]
    pair.check(State.CLOSED)


def test_the_broker_may_refuse_at_hello_and_even_before() -> None:
    refused, early = ConnectionPair(), ConnectionPair()
    refused.from_client(Hello())
    refused.from_broker(Closing(403, "not you"))
    refused.check(State.CLOSED)
    early.client.send(Hello())
    early.client.receive_data(early.broker.send(Closing(320, "too many connections")))

    assert early.client.next_event() == Closing(320, "too many connections")
    early.check(State.CLOSED)


@pytest.mark.parametrize("name", [name for name, frame in SAMPLES.items() if isinstance(frame, ClientFrame)])
def test_a_client_may_say_anything_but_hello_again_in_an_open_session(name: str) -> None:
    pair, frame = ConnectionPair().opened(), SAMPLES[name]
    assert isinstance(frame, ClientFrame)
    if isinstance(frame, Hello):
        with pytest.raises(LocalFrameError):
            pair.from_client(frame)
    else:
        assert pair.from_client(frame) == [frame]


@pytest.mark.parametrize("name", [name for name, frame in SAMPLES.items() if isinstance(frame, BrokerFrame)])
def test_a_broker_may_say_anything_but_welcome_again_in_an_open_session(name: str) -> None:
    pair, frame = ConnectionPair().opened(), SAMPLES[name]
    assert isinstance(frame, BrokerFrame)
    if isinstance(frame, Welcome):
        with pytest.raises(LocalFrameError):
            pair.broker.send(frame, [0, 0])
    else:
        descriptors = [os.dup(2) for _ in range(getattr(frame, "descriptors", 0))]

        assert pair.from_broker(frame, descriptors=descriptors) == [frame]


def test_a_whole_session_byte_by_byte() -> None:
    client, broker = client_connection(), broker_connection()
    events: list[object] = []
    for frame in (Hello(), Ping(1), Publish(0, "", "q", b"", b"body", confirm=1), Goodbye()):
        for byte in client.send(frame):
            broker.receive_data(bytes([byte]))
            if (event := broker.next_event()) is not Signal.NEED_DATA:
                events.append(event)
        if isinstance(frame, Hello):
            client.receive_data(broker.send(WELCOME))
            assert client.next_event() == WELCOME

    assert events == [Hello(), Ping(1), Publish(0, "", "q", b"", b"body", confirm=1), Goodbye()]
    assert broker.next_event() is Signal.NEED_DATA


def test_requests_behind_hello_wait_for_the_welcome() -> None:
    pair = ConnectionPair()
    hello = pair.client.send(Hello())
    other = ConnectionPair().opened().client.send(Ping(1))
    pair.broker.receive_data(hello + other)

    assert pair.broker.next_events() == [Hello()]
    with pytest.raises(RemoteFrameError, match="Ping while the session was in state 'welcome'"):
        pair.broker.next_events()


def test_what_was_legal_before_an_illegal_frame_is_handed_out() -> None:
    pair, again = ConnectionPair().opened(), client_connection()
    pair.broker.receive_data(pair.client.send(Ping(1)) + again.send(Hello()))

    assert pair.broker.next_events() == [Ping(1)]
    with pytest.raises(RemoteFrameError, match="Hello"):
        pair.broker.next_events()


def test_a_broker_tells_a_peer_that_broke_the_protocol_why_and_then_no_more() -> None:
    broker = broker_connection()
    broker.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(FrameTooLarge):
        broker.next_event()
    assert broker.send(Closing(603, "too large"))

    with pytest.raises(ConnectionClosed):
        broker.send(Ok(1))


def test_the_first_frame_is_small() -> None:
    broker = broker_connection()
    broker.receive_data((HELLO_FRAME_BYTES_MAX + 1).to_bytes(4))

    with pytest.raises(FrameTooLarge) as error:
        broker.next_event()
    assert error.value.limit == HELLO_FRAME_BYTES_MAX


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"-ERR unknown\r\n", b"\x00\x00\x00\x01\xc1"])
def test_a_client_that_reaches_something_else_says_so(answer: bytes) -> None:
    client = client_connection()
    client.send(Hello())
    client.receive_data(answer)

    with pytest.raises(NotShmqd, match="is not shmqd"):
        client.next_event()


def test_garbage_after_the_welcome_is_the_brokers_fault_not_another_server() -> None:
    client = ConnectionPair().opened().client
    client.receive_data(b"\x00\x00\x00\x01\xc1")

    with pytest.raises(RemoteFrameError):
        client.next_event()


def test_another_protocol_is_told_by_both_sides() -> None:
    pair = ConnectionPair()
    pair.broker.receive_data(pair.client.send(Hello(protocol=PROTOCOL + 1)))
    with pytest.raises(ProtocolMismatch) as broker_says:
        pair.broker.next_event()
    pair.client.receive_data(pair.broker.send(Closing(601)))
    assert pair.client.next_event() == Closing(601)
    other = client_connection()
    other.send(Hello())
    newer = broker_connection()
    newer.receive_data(client_connection().send(Hello()))
    newer.next_event()
    other.receive_data(newer.send(Welcome(PROTOCOL + 1, 1, "", "", "", SECRET, 0)))
    with pytest.raises(ProtocolMismatch) as client_says:
        other.next_event()

    for error in (broker_says.value, client_says.value):
        assert (error.ours, error.theirs) == (PROTOCOL, PROTOCOL + 1)


def test_nothing_can_be_sent_out_of_turn_and_nothing_changes_then() -> None:
    client, broker = client_connection(), broker_connection()
    with pytest.raises(LocalFrameError, match="Ping can't be sent while the session is in state 'hello'"):
        client.send(Ping(1))
    with pytest.raises(LocalFrameError):
        broker.send(WELCOME)

    assert (client.state, broker.state) == (State.HELLO, State.HELLO)


def test_a_client_that_said_goodbye_is_silent_and_still_reads() -> None:
    pair = ConnectionPair().opened()
    pair.from_client(Goodbye())

    with pytest.raises(LocalFrameError):
        pair.client.send(Ping(1))
    assert pair.from_broker(Ok(9)) == [Ok(9)]


def test_what_crosses_with_the_last_word_is_dropped() -> None:
    pair = ConnectionPair().opened()
    crossing = pair.client.send(Ping(1))
    pair.from_broker(Closing(320, "stopping"))
    pair.broker.receive_data(crossing)

    assert pair.broker.next_event() is Signal.NEED_DATA
    assert pair.broker.bytes_pending == 0


def test_the_end_of_the_peer_is_told_after_its_last_frame() -> None:
    pair = ConnectionPair().opened()
    pair.client.receive_data(pair.broker.send(Ok(1)))
    pair.client.receive_data(b"")

    assert pair.client.next_event() == Ok(1)
    assert pair.client.next_event() is Signal.END
    assert pair.client.state is State.OPEN


def test_a_half_frame_shows_as_pending_bytes() -> None:
    pair = ConnectionPair().opened()
    pair.broker.receive_data(pair.client.send(Ping(1))[:-1])

    assert pair.broker.next_event() is Signal.NEED_DATA
    assert pair.broker.bytes_pending == 6


def test_descriptors_must_be_as_many_as_the_frame_announces() -> None:
    pair = ConnectionPair().opened()
    for descriptors in ([], [0], [0, 0, 0]):
        with pytest.raises(LocalFrameError, match="announces 2 descriptors"):
            pair.broker.send(SAMPLES["Bells"], descriptors)  # type: ignore[arg-type] # a sample of the broker's
    with pytest.raises(LocalFrameError, match="announces 0 descriptors"):
        pair.broker.send(Ok(1), [0])


def test_many_frames_go_into_one_write() -> None:
    pair, buffer = ConnectionPair().opened(), bytearray()
    for seq in range(1, 1001):
        pair.client.send_into(Ping(seq), buffer)
    pair.broker.receive_data(buffer)

    assert pair.broker.next_events() == [Ping(seq) for seq in range(1, 1001)]


def test_a_closed_end_forgets_everything_and_closes_what_it_was_passed() -> None:
    pair, passed = ConnectionPair().opened(), os.dup(2)
    pair.client.receive_data(b"\x00", [passed])
    pair.client.close()
    pair.client.close()

    assert pair.client.bytes_pending == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(passed)


@pytest.mark.parametrize("opened", [True, False])
@given(chunks=st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_ends_a_session_by_a_named_error_or_is_frames(*, opened: bool, chunks: list[bytes]) -> None:
    broker = ConnectionPair().opened().broker if opened else broker_connection()
    failed = False
    try:
        for chunk in chunks:
            broker.receive_data(chunk)
            while broker.next_events():
                pass
    except (RemoteFrameError, FrameTooLarge, ProtocolMismatch):
        failed = True

    assert failed == (broker.state is State.FAILED)
