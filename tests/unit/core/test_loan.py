"""Loans: bodies written in place, committed or given back."""

import gc

import numpy as np
import pytest

from shmq import core
from shmq.errors import AlreadySettled, DetachedQueue
from support.segments import Segment

SIZES = [1, 100, 5000, 1 << 20]


def lend(queue: core.Queue, size: int = 1 << 20) -> core.Loan:
    loan = queue.loan(size)
    assert isinstance(loan, core.Loan)
    return loan


def states(queue: core.Queue) -> list[int]:
    return [state for state, number in queue.count_states().items() if number and state != core.FREE]


@pytest.mark.parametrize("size", [0, *SIZES])
def test_a_loan_is_published_when_its_block_ends(queue: core.Queue, size: int) -> None:
    with lend(queue, size) as view:
        assert (view.nbytes, view.readonly) == (size, False)
        view[:] = b"\x07" * size
        assert queue.take() is None

    message = queue.take()
    assert message is not None
    assert message.body == b"\x07" * size


def test_metadata_of_a_loan(queue: core.Queue) -> None:
    loan = queue.loan(3, 0, b"envelope", flags=core.PERSISTENT)
    assert isinstance(loan, core.Loan)
    loan.view()[:] = b"abc"

    assert loan.commit() == core.OK

    message = queue.take()
    assert message is not None
    assert (message.body, message.envelope, message.flags) == (b"abc", b"envelope", core.PERSISTENT)
    assert loan.body_bytes == 3


def test_an_exception_in_the_block_publishes_nothing(queue: core.Queue) -> None:
    with pytest.raises(ZeroDivisionError), lend(queue):
        _ = 1 / 0

    assert (queue.take(), states(queue)) == (None, [])


def test_a_dropped_loan_is_given_back(queue: core.Queue) -> None:
    loan = lend(queue)
    assert states(queue) == [core.WRITING]

    del loan

    assert states(queue) == []
    assert queue.stats()["arena_used_bytes"] == 0


def test_an_entered_loan_that_is_dropped_is_collected(queue: core.Queue) -> None:
    lend(queue).__enter__()  # a block that is never left

    gc.collect()

    assert states(queue) == []


def test_the_view_of_the_block_is_taken_back(queue: core.Queue) -> None:
    with lend(queue) as view:
        pass

    with pytest.raises(ValueError, match="released"):
        view[0] = 1


def test_a_commit_does_not_wait_for_arrays_over_the_view(queue: core.Queue) -> None:
    with lend(queue) as view:
        array = np.frombuffer(view, dtype=np.uint8)
        array[:] = 9

    message = queue.take()
    assert message is not None
    assert message.body == b"\x09" * (1 << 20)
    assert array[0] == 9


def test_an_abort_waits_for_arrays_over_the_view(queue: core.Queue) -> None:
    loan = lend(queue)
    view = loan.view()
    loan.abort()
    loan.abort()

    assert states(queue) == [core.WRITING]
    view.release()
    assert states(queue) == []


def test_a_loan_ends_once(queue: core.Queue) -> None:
    committed, aborted = lend(queue), lend(queue)
    assert committed.commit() == core.OK
    aborted.abort()

    for call in (committed.commit, committed.abort, committed.view, aborted.commit, aborted.view):
        with pytest.raises(AlreadySettled):
            call()


def test_a_loan_settled_by_hand_in_its_block_is_left_alone(queue: core.Queue) -> None:
    with (loan := lend(queue)):
        loan.abort()

    assert (queue.take(), states(queue)) == (None, [])


def test_a_loan_of_a_closed_queue_can_only_be_given_back(small: Segment) -> None:
    queue = small.attach(32)
    loan, dropped = lend(queue), lend(queue)
    queue.close()

    with pytest.raises(DetachedQueue):
        loan.commit()
    loan.abort()
    del dropped

    assert states(small.attach(33)) == []
