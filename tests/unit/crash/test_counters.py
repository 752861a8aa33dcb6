"""Conservation: counters that agree with a sound history pass, those that don't are named."""

from collections import Counter

import pytest

from crash.counters import Rest, check, is_at_rest
from crash.history import History, Settle
from support.sound_history import DEAD, SoundRun

NOTHING = dict.fromkeys(["ready", "unacked", "delayed", "dead_pending", "arena_used_bytes", "purged"], 0)


@pytest.fixture
def history() -> History:
    return SoundRun(1).history


def rests(history: History) -> list[Rest]:
    """What a daemon would have counted: what died in the plain queue is gone, in the other it is among the dead."""
    acked = Counter(one.queue for one in history.deliveries if one.settle is Settle.ACK)
    dropped = sum(one.settle is Settle.DROP for one in history.deliveries if one.queue == 0)
    dead = len({one.message for one in history.deliveries if one.queue == DEAD})
    settled = {0: dropped, 1: dead, DEAD: dead - acked[DEAD]}
    totals = [
        NOTHING | {"published": acked[queue] + gone, "acked": acked[queue], "settled": gone}
        for queue, gone in settled.items()
    ]
    return [Rest(queue, totals[queue], {0: 10}, []) for queue in settled]


def test_counters_that_agree_are_sound(history: History) -> None:
    assert list(check(history, rests(history))) == []


@pytest.mark.parametrize("name", ["ready", "unacked", "delayed", "dead_pending", "arena_used_bytes"])
def test_nothing_may_be_left(history: History, name: str) -> None:
    made = rests(history)
    made[0] = made[0]._replace(totals={**made[0].totals, name: 1})

    assert f"plain: 1 are {name}" in list(check(history, made))


def test_a_slot_that_is_not_free_is_a_leak(history: History) -> None:
    made = rests(history)
    made[1] = made[1]._replace(states={0: 10, 2: 1})

    assert "levels: 1 slots are in state 2" in list(check(history, made))


def test_what_the_segment_says_is_wrong_is_passed_on(history: History) -> None:
    made = rests(history)
    made[0] = made[0]._replace(faults=["a FREE slot has no bit"])

    assert "plain: a FREE slot has no bit" in list(check(history, made))


@pytest.mark.parametrize("name", ["published", "acked"])
@pytest.mark.parametrize("error", [-50, 50])
def test_a_wrong_count_is_named(history: History, name: str, error: int) -> None:
    made = rests(history)
    made[0] = made[0]._replace(totals={**made[0].totals, name: made[0].totals[name] + error})

    assert any(f"{name}, not" in text for text in check(history, made))


def test_dead_letters_that_did_not_arrive_are_missed(history: History) -> None:
    made = rests(history)
    made[1] = made[1]._replace(totals={**made[1].totals, "settled": made[1].totals["settled"] + 50})

    assert any("dead letters came" in text for text in check(history, made))


def test_a_queue_is_at_rest_when_nothing_is_in_it_and_nothing_on_its_way() -> None:
    assert is_at_rest(NOTHING, 0)
    assert not is_at_rest({**NOTHING, "dead_pending": 1}, 0)
    assert not is_at_rest(NOTHING, 1)
