"""shmq.wire.framing.

Invariant: bytes are frames or one FrameError; memory is taken for what came, not for what was announced.
"""

import os
import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.errors import FrameError, FrameTooLarge, LocalFrameError, RemoteFrameError
from shmq.limits import BODY_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, PENDING_DESCRIPTORS_MAX
from shmq.wire.fields import Frame
from shmq.wire.frames import BODY_FRAMES, BrokerFrame, ClientFrame, Hello, Ok, Ping, Publish
from shmq.wire.framing import FrameReader, encode_into
from support.frame_samples import SAMPLES

CLIENT = [frame for frame in SAMPLES.values() if isinstance(frame, ClientFrame)]
LENGTH = struct.Struct(">I")


def reader(union: object = ClientFrame) -> FrameReader[Frame]:
    return FrameReader(union, BODY_FRAMES, frozenset({Hello}))


def encoded(*frames: Frame) -> bytes:
    buffer = bytearray()
    for frame in frames:
        encode_into(frame, buffer, BODY_FRAME_BYTES_MAX)
    return bytes(buffer)


def framed(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload


def drained(one: FrameReader[Frame]) -> list[Frame]:
    found: list[Frame] = []
    while frames := one.frames():
        found += frames
    return found


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.fixture
def descriptor() -> Callable[[], int]:
    return lambda: os.open("/dev/null", os.O_RDONLY)


def test_frames_come_out_as_they_went_in_however_they_are_cut() -> None:
    stream = encoded(*CLIENT)
    for step in (1, 2, 3, 7, 100, len(stream)):
        one, found = reader(), []
        for start in range(0, len(stream), step):
            one.feed(stream[start : start + step])
            found += drained(one)

        assert found == CLIENT
        assert one.bytes_pending == 0


@given(st.lists(st.sampled_from(CLIENT), max_size=20), st.lists(st.integers(0, 2000), max_size=20))
def test_any_frames_cut_anywhere_come_out_the_same(frames: list[Frame], cuts: list[int]) -> None:
    stream, one, found = encoded(*frames), reader(), []
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in pairwise(edges):
        one.feed(stream[start:end])
        found += drained(one)

    assert found == frames


@given(st.binary(max_size=300), st.integers(1, 50))
def test_garbage_is_frames_or_one_frame_error_and_the_same_error_for_ever(data: bytes, step: int) -> None:
    one, errors = reader(), list[FrameError]()
    for start in range(0, len(data), step):
        one.feed(data[start : start + step])
        try:
            drained(one)
        except FrameError as error:
            errors.append(error)

    assert all(error is errors[0] for error in errors)


@given(st.sampled_from(CLIENT), st.data())
def test_a_frame_with_flipped_bytes_is_a_frame_or_a_frame_error(frame: Frame, data: st.DataObject) -> None:
    payload = bytearray(encoded(frame)[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    one = reader()
    one.feed(framed(bytes(payload)))
    try:
        found = drained(one)
    except FrameError:
        return

    assert len(found) == 1


def test_frames_before_a_bad_one_are_handed_out_first() -> None:
    one = reader()
    one.feed(encoded(Ping(1), Ping(2)) + framed(b"\xc1"))

    assert one.frames() == [Ping(1), Ping(2)]
    with pytest.raises(RemoteFrameError, match="can't be read"):
        one.frames()


def test_a_giant_length_fails_at_its_four_bytes() -> None:
    one = reader()
    one.feed(b"\xff\xff\xff\xff")

    with pytest.raises(FrameTooLarge) as error:
        one.frames()
    assert (error.value.size, error.value.limit) == (2**32 - 1, BODY_FRAME_BYTES_MAX)


def test_a_control_frame_over_its_limit_fails_at_its_tag() -> None:
    one = reader()
    one.feed(LENGTH.pack(CONTROL_FRAME_BYTES_MAX + 1))
    assert one.frames() == []

    one.feed(b"\x92\x03")
    with pytest.raises(FrameTooLarge) as error:
        one.frames()
    assert error.value.limit == CONTROL_FRAME_BYTES_MAX


def test_a_reader_with_a_lowered_limit_takes_no_large_frame_of_any_kind() -> None:
    one = reader()
    one.limit = 4096
    one.feed(LENGTH.pack(4097))

    with pytest.raises(FrameTooLarge):
        one.frames()


def test_a_body_larger_than_a_control_frame_comes_through() -> None:
    large = Publish(1, "", "jobs", b"", bytes(CONTROL_FRAME_BYTES_MAX + 1))
    stream, one = encoded(large), reader()
    found: list[Frame] = []
    for start in range(0, len(stream), 65_536):
        one.feed(stream[start : start + 65_536])
        found += drained(one)

    assert found == [large]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x03",
        b"\x90",
        b"\x91\x03",
        b"\x92\x7f\x01",
        b"\x92\x40\x01",
        b"\x92\x03\xff",
        b"\x92\x03\xcf" + b"\xff" * 8,
        b"\x92\x03\xca\x3f\x80\x00\x00",
        b"\x92\x03\x01\x01",
        b"\x93\x0a\x01\xa2\xff\xfe",
        b"\x93\x0a\x01\xdb\xff\xff\xff\xff",
        b"\x93\x0a\x01\xda\x01\x00" + b"a" * 256,
        b"\xdd\xff\xff\xff\xff\x03\x01",
        b"\x93\x30\x00\xdd\xff\xff\xff\xff\x01",
        b"\x93\x30\x00\x91\x00",
        b"\x96\x21\x01\xa0\xa0\xc4\x00\xdd\xff\xff\xff\xff",
        b"\x96\x20\x01\xa0\xa0\xc4\x00\xc6\xff\xff\xff\xff",
        b"\x96\x20\x01\xa0\xa0\xc5\xff\xff" + bytes(65_535),
        b"\x93\x08\x01\x81\xa5other\xdf\xff\xff\xff\xff",
        b"\x93\x08\x01\x81\xa5other\x81\xa1a" + b"\x91" * 10_000,
        b"\x93\x08\x01\x81\xa5other\x81\x91\x01\x01",
        b"\x93\x08\x01" + b"\x81\xa5other" * 10_000,
        b"\x93\x08\x01\x81\xa4name\xd4\x05\xff",
        b"\x92" + b"\x91" * 100_000,
    ],
    ids=lambda payload: payload[:12].hex() or "empty",
)
def test_a_bomb_is_a_frame_error_and_takes_no_memory(payload: bytes) -> None:
    one = reader()
    one.feed(framed(payload))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteFrameError):
            drained(one)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2 * len(payload) + 200_000


def test_a_key_that_occurs_twice_counts_once() -> None:
    one = reader()
    one.feed(framed(b"\x93\x08\x01\x82\xa4name\xa1a\xa4name\xa1b"))

    assert len(drained(one)) == 1


def test_what_cannot_be_encoded_leaves_the_buffer_as_it_was() -> None:
    buffer = bytearray(b"before")

    with pytest.raises(LocalFrameError, match="Ping can't be encoded"):
        encode_into(Ping(2**70), buffer, CONTROL_FRAME_BYTES_MAX)
    with pytest.raises(LocalFrameError, match="Publish can't be encoded"):
        encode_into(Publish(1, "", "q", b"", memoryview(bytes(8))[::2]), buffer, CONTROL_FRAME_BYTES_MAX)  # type: ignore[arg-type] # no body
    with pytest.raises(FrameTooLarge):
        encode_into(Ping(1), buffer, 2)
    assert buffer == b"before"


def test_a_frame_takes_the_descriptors_it_announces(descriptor: Callable[[], int]) -> None:
    one, passed = reader(BrokerFrame), [descriptor() for _ in range(5)]
    one.feed(encoded(Ok(1), SAMPLES["Attached"], SAMPLES["Bells"], Ok(2)), passed)

    assert one.frames() == [Ok(1), SAMPLES["Attached"]]
    assert one.take_descriptors() == tuple(passed[:3])
    assert one.frames() == [SAMPLES["Bells"]]
    assert one.take_descriptors() == tuple(passed[3:])
    assert drained(one) == [Ok(2)]
    for number in passed:
        os.close(number)


def test_descriptors_wait_for_the_rest_of_their_frame(descriptor: Callable[[], int]) -> None:
    one, passed, stream = reader(BrokerFrame), [descriptor(), descriptor()], encoded(SAMPLES["Bells"])
    one.feed(stream[:1], passed)
    assert one.frames() == []
    one.feed(stream[1:])

    assert one.frames() == [SAMPLES["Bells"]]
    assert one.take_descriptors() == tuple(passed)
    for number in passed:
        os.close(number)


def test_descriptors_that_nobody_takes_are_closed_by_the_next_read(descriptor: Callable[[], int]) -> None:
    one, passed = reader(BrokerFrame), [descriptor(), descriptor()]
    one.feed(encoded(SAMPLES["Bells"]), passed)
    one.frames()
    one.frames()

    assert not any(map(is_open, passed))


def test_missing_descriptors_are_an_error_and_the_ones_there_are_closed(descriptor: Callable[[], int]) -> None:
    one, passed = reader(BrokerFrame), [descriptor()]
    one.feed(encoded(SAMPLES["Bells"]), passed)

    with pytest.raises(RemoteFrameError, match="announces 2 descriptors, 1 came"):
        one.frames()
    assert not any(map(is_open, passed))


@pytest.mark.parametrize("stream", [encoded(Ping(1)), b""], ids=["with a frame", "alone"])
def test_descriptors_that_no_frame_announced_are_an_error_and_closed(
    stream: bytes, descriptor: Callable[[], int]
) -> None:
    one, passed = reader(), [descriptor()]
    one.feed(stream, passed)

    with pytest.raises(RemoteFrameError, match="no frame announced"):
        drained(one)
    assert not any(map(is_open, passed))


def test_too_many_descriptors_for_a_half_frame_are_an_error(descriptor: Callable[[], int]) -> None:
    one, passed = reader(BrokerFrame), [descriptor() for _ in range(PENDING_DESCRIPTORS_MAX + 1)]
    one.feed(b"\x00", passed)

    with pytest.raises(RemoteFrameError):
        one.frames()
    assert not any(map(is_open, passed))


def test_after_an_error_descriptors_are_closed_at_once(descriptor: Callable[[], int]) -> None:
    one, late = reader(), descriptor()
    one.feed(b"\xff" * 4)
    with pytest.raises(FrameTooLarge):
        one.frames()
    one.feed(b"", [late])

    assert not is_open(late)


def test_many_small_pieces_of_a_large_frame_cost_no_copies_of_the_whole() -> None:
    stream, one = encoded(Publish(1, "", "jobs", b"", bytes(1 << 20))), reader()
    tracemalloc.start()
    for start in range(0, len(stream), 64):
        one.feed(stream[start : start + 64])
        drained(one)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 3 * len(stream)


def test_a_field_of_a_frame_is_decoded_into_memory_of_its_own() -> None:
    one = reader()
    one.feed(encoded(Publish(1, "", "jobs", b"", b"body"), Ping(1)))
    publish = one.frames()[0]
    one.feed(encoded(Ping(2)))

    assert isinstance(publish, Publish)
    assert publish.body == b"body"
    assert msgspec.structs.asdict(publish)["routing_key"] == "jobs"
