"""Who published a message: signed by the handle, or named for one publish."""

from typing import Any

import pytest

from shmq import core
from shmq.errors import DetachedQueue

WHO = (1000, 100, 4242)


def senders(queue: core.Queue) -> list[tuple[int, int, int] | None]:
    found = []
    while (message := queue.take()) is not None:
        found.append(message.sender)
        message.ack()
    return found


def test_nobody_is_known_who_has_not_signed(queue: core.Queue) -> None:
    queue.publish(b"body")

    assert senders(queue) == [None]


def test_the_handle_signs_all_that_it_publishes(queue: core.Queue) -> None:
    queue.sign(WHO)
    queue.publish(b"one")
    queue.publish_many([b"two", b"three"])
    loan = queue.loan(5)
    assert isinstance(loan, core.Loan)
    with loan as body:
        body[:] = b"lent!"

    assert senders(queue) == [WHO] * 4


def test_one_publish_may_be_anothers(queue: core.Queue) -> None:
    queue.sign((0, 0, 1))
    queue.publish(b"one", sender=WHO)
    queue.publish_many([b"two"], sender=WHO)
    queue.publish(b"three")
    queue.sign(None)
    queue.publish(b"four")

    assert senders(queue) == [WHO, WHO, (0, 0, 1), None]


def test_it_can_be_seen_without_taking_and_when_all_is_closed(queue: core.Queue) -> None:
    queue.publish(b"body", 9, sender=WHO)
    ((slot, ctl),) = queue.scan(core.READY)
    snapshot = queue.peek(slot, ctl)
    message = queue.take()
    queue.close()

    assert snapshot is not None
    assert snapshot.sender == WHO
    assert message is not None
    assert (message.sender, message.priority) == (WHO, 9)


@pytest.mark.parametrize(
    ("sender", "error"),
    [
        (5, "TypeError"),
        ((1, 2), "TypeError"),
        ([1, 2, 3], "TypeError"),
        ((1, 2, "3"), "TypeError"),
        ((-1, 2, 3), "ValueError"),
        ((1, 1 << 32, 3), "ValueError"),
        ((1, 2, 1 << 31), "ValueError"),
    ],
)
def test_what_is_no_sender_is_refused_and_nothing_published(queue: core.Queue, sender: Any, error: str) -> None:
    for call in (
        lambda: queue.sign(sender),
        lambda: queue.publish(b"body", sender=sender),
        lambda: queue.publish_many([b"body"], sender=sender),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert caught.type.__name__ == error
    assert queue.take() is None


def test_a_closed_handle_signs_nothing(queue: core.Queue) -> None:
    queue.close()

    with pytest.raises(DetachedQueue):
        queue.sign(WHO)
