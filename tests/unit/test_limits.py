"""shmq.limits: the bounds that the C core has too are the same there."""

from shmq import limits
from shmq.core import _core


def test_the_bounds_of_the_core_are_ours() -> None:
    ours = (limits.LEVELS_MAX, limits.SLOTS_MAX, limits.BODY_BYTES_MAX, limits.ENVELOPE_BYTES_MAX, limits.OWNERS_MAX)

    assert ours == (
        _core.LEVELS_MAX,
        _core.SLOTS_MAX,
        _core.BODY_BYTES_MAX,
        _core.ENVELOPE_BYTES_MAX,
        _core.OWNERS_MAX,
    )
