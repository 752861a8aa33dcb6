"""What an operator may set: one frozen struct, one loader.

Owns: names, types, bounds and defaults of the settings, and errors that name the line and what would be right. Does
not own: the defaults of the two places (places.py knows who runs us), command line flags (main.py lays them over
this).
A setting is checked when it is read, never later.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from shmq.errors import ConfigError

Positive = Annotated[int, msgspec.Meta(ge=1)]

UNKNOWN: Final = re.compile(r"unknown field `(?P<key>[^`]+)`")
PLACE: Final = re.compile(r"at `\$\.(?P<key>[A-Za-z0-9_]+)")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    socket: str | None = None  # path of the clients' socket
    data: str | None = None  # directory of the instance's lock and state
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    queue_capacity: Positive = 1_000_000  # messages, of a queue that asks for none
    queue_capacity_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0  # of large bodies; 0: a quarter of /dev/shm
    queue_inline_bytes: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = (
        320  # bodies with envelope up to this live in their slot
    )


def load(path: Path) -> Config:
    """Read a TOML file. Raises ConfigError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file=str(path), hint=str(error)) from error
    return parse(text, str(path))


def parse(text: str, origin: str) -> Config:
    """Check the text of a configuration. Raises ConfigError."""
    try:
        return msgspec.convert(tomllib.loads(text), Config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(file=origin, hint=str(error)) from error
    except msgspec.ValidationError as error:
        raise _explained(text, origin, str(error)) from error


def _explained(text: str, origin: str, problem: str) -> ConfigError:
    unknown = UNKNOWN.search(problem)
    if unknown:
        key, hint = unknown["key"], f"unknown key; {_suggestion(unknown['key'])}"
        return ConfigError(file=origin, line=_line_of(text, key), key=key, hint=hint)
    place = PLACE.search(problem)
    if place is None:
        return ConfigError(file=origin, hint=problem)
    key = place["key"]
    hint = f"{problem.partition(' - at ')[0]}; the default is {getattr(Config(), key)}"
    return ConfigError(file=origin, line=_line_of(text, key), key=key, hint=hint)


def _suggestion(key: str) -> str:
    close = difflib.get_close_matches(key, Config.__struct_fields__, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known are {', '.join(Config.__struct_fields__)}"


def _line_of(text: str, key: str) -> int:
    pattern = re.compile(rf"""^\s*(\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = enumerate(text.splitlines(), start=1)
    return next((number for number, line in lines if pattern.match(line)), 1)
