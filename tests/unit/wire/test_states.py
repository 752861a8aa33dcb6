"""shmq.wire.states: the tables are complete and agree with each other."""

from itertools import product

from shmq.wire.frames import Closing, Hello, Welcome
from shmq.wire.states import BROKER_FRAMES, CLIENT_FRAMES, MAY_SEND, TRANSITIONS, TURNING_FRAMES, Role, State, peer_of


def test_every_state_is_in_every_table() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(set(MAY_SEND[role]) == set(State) for role in Role)


def test_nobody_may_send_a_frame_of_the_other_side() -> None:
    assert all(frames <= CLIENT_FRAMES for frames in MAY_SEND[Role.CLIENT].values())
    assert all(frames <= BROKER_FRAMES for frames in MAY_SEND[Role.BROKER].values())


def test_every_transition_is_by_a_frame_that_somebody_may_send_there() -> None:
    moves = [(state, frame) for state, frames in TRANSITIONS.items() for frame in frames]

    assert all(any(frame in MAY_SEND[role][state] for role in Role) for state, frame in moves)


def test_every_state_but_closed_can_be_left_by_the_brokers_last_word() -> None:
    for state in State:
        assert TRANSITIONS[state].get(Closing) is (None if state is State.CLOSED else State.CLOSED)


def test_hello_and_welcome_are_said_once() -> None:
    said = [(role, state, frame) for role, state, frame in product(Role, State, (Hello, Welcome))]

    assert [(state, frame) for role, state, frame in said if frame in MAY_SEND[role][state]] == [
        (State.HELLO, Hello),
        (State.WELCOME, Welcome),
    ]


def test_closed_is_the_end() -> None:
    assert TRANSITIONS[State.CLOSED] == {}
    assert all(MAY_SEND[role][State.CLOSED] == frozenset() for role in Role)


def test_the_turning_frames_are_those_of_the_transitions() -> None:
    assert {frame.__name__ for frame in TURNING_FRAMES} == {"Hello", "Welcome", "Goodbye", "Closing"}


def test_each_role_is_the_peer_of_the_other() -> None:
    assert [peer_of(peer_of(role)) for role in Role] == list(Role)
