"""Permissions of the configuration become rules; without any, two groups have theirs."""

import grp
import pwd
from types import SimpleNamespace
from typing import Any

import pytest

from shmq_daemon.config import Permissions, parse
from shmq_daemon.permissions import Limits, Policy, Principal, Subject
from shmq_daemon.principals import policy_of

GROUPS = {"shmq": 60, "shmq-direct": 61}


def configured(text: str) -> Policy:
    permissions: Permissions | None = parse(text, "shmqd.toml").permissions
    return policy_of(permissions, own_uid=0)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(name: str) -> Any:
        return SimpleNamespace(gr_gid=GROUPS[name])

    monkeypatch.setattr(grp, "getgrnam", of)


def test_names_become_numbers() -> None:
    user, group = pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name
    policy = configured(
        f"[[permissions]]\nuid = '{user}'\n[[permissions]]\ngid = '{group}'\n[[permissions]]\nany = true\n"
        "[[permissions]]\nuid = 4711"
    )

    assert [rule.principal for rule in policy.rules] == [
        Principal("uid", 0),
        Principal("gid", 0),
        Principal("any"),
        Principal("uid", 4711),
    ]


def test_a_rule_has_what_its_table_says() -> None:
    policy = configured(
        "[[permissions]]\nany = true\nconfigure = ['c']\nwrite = ['w', 'v']\ndirect = ['d']\n"
        "deny.read = ['r']\nlimits = { connections = 1, queues = 2, bytes = 3 }"
    )

    (rule,) = policy.rules
    assert rule.allow == {"configure": ("c",), "write": ("w", "v"), "read": (), "direct": ("d",)}
    assert rule.deny == {"configure": (), "write": (), "read": ("r",), "direct": ()}
    assert rule.limits == Limits(1, 2, 3)


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    ("gids", "admitted", "direct"),
    [({60}, True, False), ({60, 61}, True, True), ({61}, False, True), ({62}, False, False)],
)
def test_without_permissions_two_groups_have_theirs(gids: set[int], *, admitted: bool, direct: bool) -> None:
    access = policy_of(None, own_uid=0).access_of(Subject(1001, frozenset(gids)))

    assert [access.may(verb, "jobs") for verb in ("configure", "write", "read")] == [admitted] * 3
    assert access.may_ever == admitted
    assert access.may("direct", "jobs") == access.may_ever_direct == direct


def test_a_host_without_these_groups_admits_root_and_the_daemon_alone() -> None:
    policy = policy_of(None, own_uid=0)
    missing = [name for name in GROUPS if name not in {group.gr_name for group in grp.getgrall()}]
    if len(missing) == len(GROUPS):
        assert policy.rules == ()


@pytest.mark.usefixtures("groups")
def test_permissions_of_ones_own_take_the_place_of_the_groups() -> None:
    assert configured("permissions = []").rules == ()
    assert len(configured("[[permissions]]\nuid = 1\nread = ['*']").rules) == 1
