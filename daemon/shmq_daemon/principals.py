"""From the permissions of the configuration to the rules of the broker: users and groups by name or number.

Owns: looking up names on this host, what holds where nothing is configured. Does not own: the settings (config.py),
what rules mean (permissions.py).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shmq.errors import ConfigError
from shmq_daemon import config
from shmq_daemon.log import Logger
from shmq_daemon.permissions import VERBS, Limits, Patterns, Policy, Principal, Rule

GROUP: Final = "shmq"  # configures, writes and reads, over the socket
GROUP_DIRECT: Final = "shmq-direct"  # whose members may also work in the memory of queues
EVERYTHING: Final = ("*",)
DEFAULT: Final[tuple[tuple[str, Patterns], ...]] = (
    (GROUP, {"configure": EVERYTHING, "write": EVERYTHING, "read": EVERYTHING}),
    (GROUP_DIRECT, {"direct": EVERYTHING}),
)


def policy_of(permissions: Iterable[config.Permission] | None, own_uid: int) -> Policy:
    """The rules of the configuration; where it has none, those of the two groups, as far as they exist."""
    return Policy(_default_rules() if permissions is None else map(_rule, permissions), own_uid)


def read_again(file: Path | None, own_uid: int, log: Logger) -> Policy | None:
    """The rules as the file has them now; None, and a line in the log, where it can't be used: the old ones stay."""
    try:
        settings = config.load(file) if file is not None else config.Config()
        return policy_of(settings.permissions, own_uid)
    except (ConfigError, ValueError) as error:
        why = str(error)
    log.error("configuration not read again, permissions stay as they are", why=why)
    return None


def _default_rules() -> Iterable[Rule]:
    for name, patterns in DEFAULT:
        gid = group_id_or_none(name)
        if gid is not None:
            yield Rule(Principal("gid", gid), patterns)


def group_id_or_none(name: str) -> int | None:
    """Return the number of a group, None where this host has none of this name."""
    try:
        return config.group_id(name)
    except ValueError:
        return None


def _rule(permission: config.Permission) -> Rule:
    limits = permission.limits
    return Rule(
        _principal(permission),
        _patterns(permission),
        _patterns(permission.deny),
        Limits(limits.connections, limits.queues, limits.bytes),
    )


def _principal(permission: config.Permission) -> Principal:
    if permission.uid is not None:
        return Principal("uid", config.user_id(permission.uid))
    if permission.gid is not None:
        return Principal("gid", config.group_id(permission.gid))
    return Principal("any")


def _patterns(given: config.Patterns) -> Patterns:
    return {verb: getattr(given, verb) for verb in VERBS}
