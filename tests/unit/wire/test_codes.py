"""shmq.wire.codes: an error comes out as it went in, and what is not known hides nothing."""

from pathlib import Path

import msgspec
import pytest

from shmq import errors
from shmq.limits import TEXT_BYTES_MAX
from shmq.wire import codes
from shmq.wire.frames import BrokerFrame, Error

SAMPLES = [
    errors.QueueFull(queue="jobs", depth=5, limit=5, timeout=0.5),
    errors.QueueStopped(queue="jobs", depth=9, limit=5, timeout=0.5, unit="bytes", mark=8),
    errors.PreconditionFailed(name="jobs", argument="x-max-priority", declared=9, asked=None),
    errors.PublishRejected(queues=["a", "b"], reason="reject-publish"),
    errors.NotFound(kind="exchange", name="images"),
    errors.StaleDelivery(),
    errors.FrameTooLarge(size=2**32 - 1, limit=1 << 20),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_out_as_it_went_in(error: errors.ShmqError) -> None:
    code, text, data = codes.to_wire(error)
    frame = msgspec.msgpack.decode(msgspec.msgpack.encode(Error(1, code, text, data)), type=BrokerFrame)
    assert isinstance(frame, Error)
    told = codes.from_wire(frame.code, frame.text, frame.data)

    assert type(told) is type(error)
    assert told.data() == error.data()
    assert str(told) == str(error)


@pytest.mark.parametrize("code", sorted(codes.BY_CODE))
def test_every_code_belongs_to_one_class_that_can_be_told(code: int) -> None:
    told = codes.from_wire(code, "what happened to /dev/shm", {})

    assert type(told) is codes.BY_CODE[code]
    assert codes.to_wire(told) == (code, "what happened to /dev/shm", {})


def test_an_unknown_code_keeps_its_text_and_unknown_data_are_dropped() -> None:
    told = codes.from_wire(999, "from the future", {"shape": "round"})

    assert (type(told), str(told)) == (errors.ShmqError, "from the future")


def test_a_child_without_a_code_travels_as_its_parent() -> None:
    code, text, _ = codes.to_wire(errors.RemoteFrameError("bad bytes"))

    assert type(codes.from_wire(code, text, {})) is errors.FrameError


def test_what_has_no_code_is_an_internal_error() -> None:
    assert codes.to_wire(errors.ConfigError(file="a", hint="b"))[0] == 541


def test_data_that_cannot_travel_are_told_as_text() -> None:
    _, _, data = codes.to_wire(errors.InvalidArgument(argument="a", value={1: object}, allowed="x"))
    _, _, large = codes.to_wire(errors.InvalidArgument(argument="a", value=2**80, allowed="x"))

    assert data["value"] == "{1: <class 'object'>}"
    assert large["value"] == str(2**80)


def test_long_texts_are_cut_between_characters_and_half_pairs_are_replaced() -> None:
    cut = codes.shorten("é" * TEXT_BYTES_MAX)

    assert len(cut.encode()) <= TEXT_BYTES_MAX
    assert set(cut) == {"é"}
    assert codes.shorten("a\udc80") == "a?"


def test_the_protocol_page_lists_every_code_with_its_class_and_whether_it_ends_the_session() -> None:
    page = (Path(__file__).parents[3] / "docs/PROTOCOL.md").read_text()
    rows = [
        f"| {code} | {cls.__name__}{', ends the session' if cls.ends_session else ''} |"
        for code, cls in codes.BY_CODE.items()
    ]

    assert [row for row in rows if row not in page] == []
