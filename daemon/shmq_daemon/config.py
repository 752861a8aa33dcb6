"""What an operator may set: one frozen struct, one loader.

Owns: names, types, bounds and defaults of the settings, and errors that name the line and what would be right. Does
not own: the defaults of the two places (places.py knows who runs us), command line flags (main.py lays them over
this).
A setting is checked when it is read, never later.
"""

import difflib
import grp
import pwd
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from shmq.definitions import CAPACITY_BYTES_MAX
from shmq.errors import ConfigError
from shmq.limits import COUNT_MAX, SLOTS_MAX

PLACE: Final = re.compile(r"at `\$\.(?P<path>(?P<key>[A-Za-z0-9_]+)[^`]*)`$")
UNKNOWN: Final = re.compile(r"unknown field `(?P<key>[^`]+)`")
SYNTAX: Final = re.compile(r" \(at line (?P<line>\d+), column (?P<column>\d+)\)$")
INLINE_BYTES_MAX: Final = 65_536
NUMBER_MAX: Final = (1 << 32) - 2  # of users and groups: the last number means none, chown(2)
GLOB_LENGTH_MAX: Final = 1024
TABLE: Final = re.compile(r"^\s*\[\[?\s*permissions\b")

SomePath = Annotated[str, msgspec.Meta(pattern="^/", description="an absolute path")]
Capacity = Annotated[int, msgspec.Meta(ge=1, le=SLOTS_MAX, description=f"a whole number from 1 to {SLOTS_MAX}")]
CapacityBytes = Annotated[
    int, msgspec.Meta(ge=0, le=CAPACITY_BYTES_MAX, description=f"a whole number from 0 to {CAPACITY_BYTES_MAX}")
]
InlineBytes = Annotated[
    int, msgspec.Meta(ge=0, le=INLINE_BYTES_MAX, description=f"a whole number from 0 to {INLINE_BYTES_MAX}")
]
Share = Annotated[float, msgspec.Meta(gt=0, le=1, description="a number above 0, up to 1")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX, description=f"a whole number from 0 to {COUNT_MAX}")]
Format = Annotated[Literal["text", "json"], msgspec.Meta(description='"text" or "json"')]
Level = Annotated[
    Literal["debug", "info", "warning", "error"], msgspec.Meta(description='"debug", "info", "warning" or "error"')
]
Principal = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)] | Annotated[str, msgspec.Meta(min_length=1)]
Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=GLOB_LENGTH_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0)]
SocketGroup = Annotated[Principal, msgspec.Meta(description="the name or the number of a group of this host")]
SocketMode = Annotated[
    int, msgspec.Meta(ge=0o600, le=0o666, description="a mode from 0o600 to 0o666, such as 0o660 or 0o666")
]


class Patterns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of names of queues and exchanges, by what may be done to them."""

    configure: tuple[Glob, ...] = ()
    write: tuple[Glob, ...] = ()
    read: tuple[Glob, ...] = ()
    direct: tuple[Glob, ...] = ()


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of each uid that a permission is for."""

    connections: Count | None = None
    queues: Count | None = None
    bytes: Count | None = None


class Permission(Patterns, frozen=True, forbid_unknown_fields=True):
    """What one principal may do: a user, the members of a group, or anybody."""

    uid: Principal | None = None
    gid: Principal | None = None
    any: bool = False
    deny: Patterns = Patterns()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if (self.uid is not None) + (self.gid is not None) + self.any != 1:
            raise ValueError("says not for whom it is; right is one of uid, gid and any = true")
        if self.uid is not None:
            user_id(self.uid)
        if self.gid is not None:
            group_id(self.gid)


Permissions = Annotated[tuple[Permission, ...], msgspec.Meta(description="tables [[permissions]]")]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    socket: SomePath | None = None  # of the clients' socket
    data: SomePath | None = None  # directory of the instance's lock and state
    log_format: Format = "text"
    log_level: Level = "info"
    queue_capacity: Capacity = 1_000_000  # messages, of a queue that asks for none
    queue_capacity_bytes: CapacityBytes = 0  # of large bodies; 0: a quarter of /dev/shm
    queue_inline_bytes: InlineBytes = 320  # bodies with envelope up to this live in their slot
    memory_watermark: Share = 0.8  # of what queues have of /dev/shm and what is free there; 1: none
    memory_watermark_bytes: Bytes = 0  # nor more than this; 0: no such mark
    memory_watermark_clear: Share = 0.9  # of the mark: publishers go on when queues have no more than that
    socket_group: SocketGroup | None = None  # of the clients' socket; the group shmq, where root or that group serves
    socket_mode: SocketMode | None = None  # 0o660 where it has a group of its own, else 0o600
    permissions: Permissions | None = None  # None: members of the groups shmq and shmq-direct (principals.py)


def load(path: Path) -> Config:
    """Read a TOML file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(file=str(path), hint=f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(file=str(path), hint="can't be read: it is not UTF-8 text") from error
    return parse(text, str(path))


def parse(text: str, origin: str) -> Config:
    """Check the text of a configuration. Raises ConfigError."""
    try:
        return msgspec.convert(tomllib.loads(text), Config)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(text, origin, str(error)) from error
    except msgspec.ValidationError as error:
        raise _explained(text, origin, str(error)) from error


def _syntax_error(text: str, origin: str, problem: str) -> ConfigError:
    place = SYNTAX.search(problem)
    line = int(place["line"]) if place else len(text.splitlines())
    what = problem[: place.start()] if place else problem
    column = f" in column {place['column']}" if place else ""
    return ConfigError(file=origin, line=line, hint=f"no TOML: {what}{column}; right is: key = value, texts in quotes")


def _explained(text: str, origin: str, problem: str) -> ConfigError:
    place = PLACE.search(problem)
    if place is not None and place["path"] != place["key"]:
        return _explained_within(text, origin, problem, place["path"])
    unknown = UNKNOWN.search(problem)
    if unknown:
        key, hint = unknown["key"], f"unknown key; {_suggestion(unknown['key'], Config)}"
        return ConfigError(file=origin, line=_line_of(text, key), key=key, hint=hint)
    if place is None:
        return ConfigError(file=origin, hint=problem)
    key = place["key"]
    given = tomllib.loads(text)[key]
    default = getattr(Config(), key)
    or_default = "" if default is None else f", the default is {_as_written(default)}"
    hint = f"{_as_written(given)} can't be used; right is {_right(key)}{or_default}"
    return ConfigError(file=origin, line=_line_of(text, key), key=key, hint=hint)


def _explained_within(text: str, origin: str, problem: str, path: str) -> ConfigError:
    """For what is wrong inside a table: `path` is as in permissions[0].deny.write[1]."""
    what = problem.partition(" - at ")[0]
    unknown = UNKNOWN.search(problem)
    if unknown:
        structs: dict[str, type[msgspec.Struct]] = {"deny": Patterns, "limits": Limits}
        struct = structs.get(path.rpartition(".")[2], Permission)
        what = f"unknown key `{unknown['key']}`; {_suggestion(unknown['key'], struct)}"
    number = int(path.partition("[")[2].partition("]")[0])
    starts = [line for line, words in enumerate(text.splitlines(), start=1) if TABLE.match(words)]
    return ConfigError(file=origin, line=starts[number] if number < len(starts) else 1, key=path, hint=what)


def user_id(principal: int | str) -> int:
    """Return the number of a user. Raises ValueError for a name that this host does not have."""
    try:
        return principal if isinstance(principal, int) else pwd.getpwnam(principal).pw_uid
    except KeyError as error:
        raise ValueError(f"there is no user {principal!r} on this host") from error


def group_id(principal: int | str) -> int:
    """Return the number of a group. Raises ValueError for a name that this host does not have."""
    try:
        return principal if isinstance(principal, int) else grp.getgrnam(principal).gr_gid
    except KeyError as error:
        raise ValueError(f"there is no group {principal!r} on this host") from error


def _as_written(value: object) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    return repr(value) if isinstance(value, float) else msgspec.json.encode(value).decode()


def _right(key: str) -> str:
    schema = msgspec.json.schema(Config)["$defs"]["Config"]["properties"][key]
    one_of = [schema, *schema.get("anyOf", ())]
    return next(str(part["description"]) for part in one_of if "description" in part)


def _suggestion(key: str, struct: type[msgspec.Struct]) -> str:
    close = difflib.get_close_matches(key, struct.__struct_fields__, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known are {', '.join(struct.__struct_fields__)}"


def _line_of(text: str, key: str) -> int:
    pattern = re.compile(rf"""^\s*(\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = enumerate(text.splitlines(), start=1)
    return next((number for number, line in lines if pattern.match(line)), 1)
