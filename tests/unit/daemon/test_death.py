"""Headers of dead messages, as RabbitMQ writes them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from shmq.limits import ENVELOPE_BYTES_MAX
from shmq.message import Properties, decode_envelope, encode_envelope
from shmq_daemon.death import DeadLetter, dead_letter, is_cycle


def die(
    envelope: bytes, queue: str = "jobs", reason: str = "rejected", key: str | None = None, now_s: int = 100
) -> DeadLetter:
    return dead_letter(envelope, queue, reason, "dlx", key, now_s)


def headers(letter: DeadLetter) -> dict[str, Any]:
    return decode_envelope(letter.envelope, "dead").headers


def published(headers: dict[str, Any] | None = None, **properties: Any) -> bytes:
    return encode_envelope("images", "image.new", Properties(**properties), headers)


def test_the_first_death_says_where_why_and_when() -> None:
    assert headers(die(published()))["x-death"] == [
        {
            "count": 1,
            "reason": "rejected",
            "queue": "jobs",
            "time": datetime.fromtimestamp(100, UTC),
            "exchange": "images",
            "routing-keys": ["image.new"],
        }
    ]


def test_first_and_last_are_written() -> None:
    found = headers(die(published()))

    assert [found[f"x-first-death-{field}"] for field in ("queue", "reason", "exchange")] == [
        "jobs",
        "rejected",
        "images",
    ]
    assert [found[f"x-last-death-{field}"] for field in ("queue", "reason", "exchange")] == [
        "jobs",
        "rejected",
        "images",
    ]


def test_a_repeat_counts_one_more_moves_to_the_front_and_keeps_its_first_time() -> None:
    once = die(published(), now_s=100)
    twice = die(once.envelope, queue="dead", reason="expired", now_s=200)
    thrice = die(twice.envelope, now_s=300)
    deaths = headers(thrice)["x-death"]

    assert [(d["queue"], d["reason"], d["count"]) for d in deaths] == [("jobs", "rejected", 2), ("dead", "expired", 1)]
    assert deaths[0]["time"] == datetime.fromtimestamp(100, UTC)


def test_the_first_death_stays_and_the_last_changes() -> None:
    twice = headers(die(die(published()).envelope, queue="dead", reason="expired"))

    assert (twice["x-first-death-queue"], twice["x-last-death-queue"]) == ("jobs", "dead")


def test_expiration_goes_and_is_remembered_as_text() -> None:
    letter = die(published(expiration=5000), reason="expired")

    assert decode_envelope(letter.envelope, "dead").properties.expiration is None
    assert headers(letter)["x-death"][0]["original-expiration"] == "5000"


def test_other_properties_and_headers_stay() -> None:
    letter = die(published({"team": "vision"}, message_id="m1"))

    assert decode_envelope(letter.envelope, "dead").properties.message_id == "m1"
    assert headers(letter)["team"] == "vision"


def test_without_a_key_of_its_own_all_original_keys_are_used_and_cc_stays() -> None:
    letter = die(published({"CC": ["image.copy"]}))

    assert letter.routing_keys == ("image.new", "image.copy")
    assert headers(letter)["CC"] == ["image.copy"]
    assert headers(letter)["x-death"][0]["routing-keys"] == ["image.new", "image.copy"]


def test_with_a_key_of_its_own_cc_goes() -> None:
    letter = die(published({"CC": ["image.copy"]}), key="dead")
    envelope = decode_envelope(letter.envelope, "dead")

    assert letter.routing_keys == ("dead",)
    assert (envelope.exchange, envelope.routing_key) == ("dlx", "dead")
    assert "CC" not in envelope.headers


def test_deaths_that_a_client_wrote_itself_are_not_interpreted() -> None:
    forged = published(
        {"x-death": [{"queue": "jobs", "reason": "rejected", "count": 99}], "x-first-death-queue": "liar"}
    )
    found = headers(die(forged))

    assert found["x-death"][0]["count"] == 1
    assert found["x-first-death-queue"] == "jobs"


@pytest.mark.parametrize("envelope", [b"", b"\xff\xff", b"\x94\xa0"])
def test_an_envelope_that_says_nothing_or_cannot_be_read_is_the_default_exchanges(envelope: bytes) -> None:
    death = headers(die(envelope))["x-death"][0]

    assert (death["exchange"], death["routing-keys"]) == ("", ["jobs"])


def test_headers_that_leave_no_room_go_but_the_deaths_stay() -> None:
    letter = die(published({"blob": "x" * (ENVELOPE_BYTES_MAX - 200)}))

    assert letter.headers_dropped
    assert len(letter.envelope) <= ENVELOPE_BYTES_MAX
    assert headers(letter)["x-death"][0]["queue"] == "jobs"


def deaths(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"queue": queue, "reason": reason} for queue, reason in pairs]


def test_a_way_back_without_a_rejection_is_a_cycle() -> None:
    assert is_cycle(deaths(("b", "expired"), ("a", "expired")), "a")


def test_a_rejection_on_the_way_breaks_the_cycle() -> None:
    assert not is_cycle(deaths(("b", "rejected"), ("a", "expired")), "a")


def test_a_rejection_before_the_occurrence_does_not() -> None:
    assert is_cycle(deaths(("b", "expired"), ("a", "expired"), ("c", "rejected")), "a")


def test_a_queue_that_was_never_there_closes_nothing() -> None:
    assert not is_cycle(deaths(("b", "expired")), "a")
