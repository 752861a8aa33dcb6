"""Errors as they travel: code, text and data of an Error or Closing frame. What the codes mean is in `shmq.errors`.

Invariant: each code belongs to one class, and an unknown code or unknown data never hide the text.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from shmq.errors import InternalError, ShmqError
from shmq.limits import COUNT_MAX, TEXT_BYTES_MAX

LISTED_MAX: Final = 64  # names in the data of one error
GOODBYE: Final = 200  # AMQP's reply-success: the session ended because the client said goodbye


def _tree(root: type[ShmqError]) -> Iterator[type[ShmqError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE: Final[Mapping[int, type[ShmqError]]] = {
    cls.code: cls for cls in _tree(ShmqError) if "code" in vars(cls) and cls.code is not None
}
"""Wire code -> the one class it stands for. Whether the session survives is the class's `ends_session`."""


def to_wire(error: ShmqError) -> tuple[int, str, dict[str, Any]]:
    """(code, text, data) of an error. One that has no code, by itself or by a parent, is an internal error (541)."""
    code = error.code if error.code is not None else InternalError.code
    assert code is not None
    return code, shorten(str(error)), {name: _plain(value) for name, value in error.data().items()}


def from_wire(code: int, text: str, data: Mapping[str, Any]) -> ShmqError:
    """The error that a peer told. An unknown code is a ShmqError with its text; unknown data are dropped."""
    cls = BY_CODE.get(code, ShmqError)
    known = {field.name for field in fields(cls)} - {"text"}
    return cls(text=text, **{name: value for name, value in data.items() if name in known})


def shorten(text: str) -> str:
    """At most as many bytes of the text as a frame takes, cut between characters."""
    return text.encode("utf-8", "replace")[:TEXT_BYTES_MAX].decode("utf-8", "ignore")


def _plain(value: object) -> bool | int | float | str | list[str] | None:
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= COUNT_MAX):
        return value
    if isinstance(value, list | tuple):
        return [shorten(str(one)) for one in value[:LISTED_MAX]]
    return shorten(str(value))
