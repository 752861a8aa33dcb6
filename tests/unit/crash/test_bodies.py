"""Bodies: each says which message it is, and no other bytes pass for it.

Invariant: what is not, to the last byte, the body of the message that it says it is, is not intact.
"""

from hypothesis import given
from hypothesis import strategies as st

from crash.bodies import BODY_BYTES_MAX, HEADER, MessageId, body_of, is_intact, message_of

RUN = 4711
IDS = st.builds(MessageId, st.integers(0, 99), st.integers(0, 9_999), st.integers(0, 999_999))


@given(IDS)
def test_a_body_says_which_message_it_is(message: MessageId) -> None:
    body = body_of(RUN, message)

    assert message_of(body) == message
    assert is_intact(RUN, body)
    assert HEADER.size <= len(body) <= BODY_BYTES_MAX


@given(IDS, st.data())
def test_a_body_with_another_byte_is_torn(message: MessageId, data: st.DataObject) -> None:
    body = bytearray(body_of(RUN, message))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))

    assert not is_intact(RUN, bytes(body))


@given(IDS)
def test_a_body_cut_short_or_padded_is_torn(message: MessageId) -> None:
    body = body_of(RUN, message)

    assert not is_intact(RUN, body[:-1])
    assert not is_intact(RUN, body + b"\0")


def test_a_body_of_another_run_is_torn() -> None:
    assert not is_intact(RUN, body_of(RUN + 1, MessageId(1, 1, 1)))


def test_what_is_no_body_of_ours_is_nobodys() -> None:
    assert message_of(b"") is None
    assert message_of(bytes(100)) is None
