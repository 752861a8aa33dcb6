"""shmq.wire.frames: the bytes of every frame never change by accident."""

import os
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from shmq.wire.frames import BODY_FRAMES, BrokerFrame, ClientFrame
from support.frame_samples import SAMPLES

GOLDEN = Path(__file__).with_name("golden_frames.txt")
CLIENT_FRAMES, BROKER_FRAMES = get_args(ClientFrame), get_args(BrokerFrame)
encode = msgspec.msgpack.Encoder().encode


def tag(frame: type[Any]) -> int:
    value = frame.__struct_config__.tag
    assert isinstance(value, int)
    return value


def golden() -> dict[str, str]:
    """Rewritten only by SHMQ_WRITE_GOLDEN=1: a change is a new protocol number, or a field at the end."""
    if os.environ.get("SHMQ_WRITE_GOLDEN") == "1":
        GOLDEN.write_text("".join(f"{name} {encode(frame).hex()}\n" for name, frame in SAMPLES.items()))
    return dict(line.split(" ") for line in GOLDEN.read_text().splitlines())


def test_every_frame_has_a_sample_and_every_sample_its_golden_bytes() -> None:
    assert {type(frame) for frame in SAMPLES.values()} == {*CLIENT_FRAMES, *BROKER_FRAMES}
    assert golden().keys() == SAMPLES.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_frame_has_its_golden_bytes(name: str) -> None:
    assert encode(SAMPLES[name]).hex() == golden()[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_bytes_are_read_as_the_frame(name: str) -> None:
    union: Any = ClientFrame if type(SAMPLES[name]) in CLIENT_FRAMES else BrokerFrame

    assert msgspec.msgpack.decode(bytes.fromhex(golden()[name]), type=union) == SAMPLES[name]


def test_tags_are_one_byte_unique_and_tell_the_sender() -> None:
    tags = [tag(frame) for frame in (*CLIENT_FRAMES, *BROKER_FRAMES)]

    assert len(set(tags)) == len(tags)
    assert all(1 <= tag(frame) < 64 for frame in CLIENT_FRAMES)
    assert all(64 <= tag(frame) < 128 for frame in BROKER_FRAMES)


def test_every_frame_is_a_short_array_so_that_its_tag_is_the_second_byte() -> None:
    assert all(len(frame.__struct_fields__) < 15 for frame in (*CLIENT_FRAMES, *BROKER_FRAMES))
    assert all(encode(frame)[0] & 0xF0 == 0x90 and encode(frame)[1] == tag(type(frame)) for frame in SAMPLES.values())


def test_the_frames_that_carry_bodies_are_the_ones_with_a_larger_limit() -> None:
    with_bodies = [
        frame
        for frame in (*CLIENT_FRAMES, *BROKER_FRAMES)
        if {"body", "bodies", "deliveries"} & set(frame.__struct_fields__)
    ]

    assert with_bodies == list(BODY_FRAMES)


def test_a_field_added_at_the_end_by_a_newer_peer_is_ignored() -> None:
    newer = msgspec.msgpack.encode([3, 1, "something new"])

    assert msgspec.msgpack.decode(newer, type=ClientFrame) == SAMPLES["Ping"]


def test_a_field_missing_at_the_end_takes_its_default() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([1, "shmq", 1]), type=ClientFrame) == SAMPLES["Hello"]


def test_the_protocol_page_has_every_frame_with_its_tag() -> None:
    page = (Path(__file__).parents[3] / "docs/PROTOCOL.md").read_text()
    missing = [
        frame.__name__
        for frame in (*CLIENT_FRAMES, *BROKER_FRAMES)
        if not (f"{frame.__name__}, tag {tag(frame)}" in page or f"`{frame.__name__}`: `[{tag(frame)}," in page)
    ]

    assert missing == []
