"""What no rule allows is refused, what one denies is refused, and a refusal says who, what, and what is missing."""

import pytest

from shmq.errors import AccessRefused, NotAllowed
from shmq_daemon.permissions import Access, Limits, Patterns, Policy, Principal, Rule, Subject

ALICE = Subject(1001, frozenset({1001, 50}))
ANY = Principal("any")


def access(*rules: Rule, subject: Subject = ALICE) -> Access:
    return Access(subject, rules)


def reader(*patterns: str, deny: tuple[str, ...] = ()) -> Access:
    return access(Rule(ANY, {"read": patterns}, {"read": deny}))


def refusal(access: Access, verb: str, name: str) -> str:
    with pytest.raises(AccessRefused) as raised:
        access.check(verb, "queue", name)  # type: ignore[arg-type] # one of the verbs
    return str(raised.value)


@pytest.mark.parametrize(
    ("principal", "included"),
    [
        (Principal("uid", 1001), True),
        (Principal("uid", 50), False),
        (Principal("gid", 1001), True),
        (Principal("gid", 50), True),  # a supplementary one
        (Principal("gid", 51), False),
        (ANY, True),
    ],
)
def test_a_rule_is_for_a_user_a_group_or_anybody(principal: Principal, *, included: bool) -> None:
    assert access(Rule(principal, {"read": ["*"]})).may("read", "jobs") == included


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("jobs", "jobs", True),
        ("jobs", "jobs2", False),
        ("jobs", "myjobs", False),
        ("jobs", "jobs\n", False),
        ("Jobs", "jobs", False),
        ("images.*", "images.cam1.new", True),
        ("images.*", "images.", True),
        ("images.*", "images", False),
        ("cam?", "cam1", True),
        ("cam?", "cam", False),
        ("cam[12]", "cam2", True),
        ("cam[!12]", "cam2", False),
        ("a[[]b", "a[b", True),
        ("bücher.*", "bücher.neu", True),
        ("*", "two\u2028lines", True),
        ("*", "", True),
    ],
)
def test_a_pattern_matches_the_whole_name(pattern: str, name: str, *, matches: bool) -> None:
    assert reader(pattern).may("read", name) == matches


def test_permissions_of_all_rules_add_up_and_one_is_not_another() -> None:
    both = access(Rule(Principal("uid", 1001), {"read": ["a"]}), Rule(Principal("gid", 50), {"read": ["b"]}))

    assert both.may("read", "a")
    assert both.may("read", "b")
    assert not both.may("write", "a")


def test_a_denial_wins_wherever_it_stands() -> None:
    rules = [Rule(Principal("uid", 1001), {"write": ["*"]}), Rule(ANY, deny={"write": ["audit.*"]})]

    for order in (rules, rules[::-1]):
        assert access(*order).may("write", "jobs")
        assert refusal(access(*order), "write", "audit.log") == (
            "access to queue 'audit.log' refused: uid 1001 is denied to write what matches 'audit.*'."
            " Run as the user of shmqd, or ask its operator"
        )


def test_a_refusal_says_who_what_and_which_pattern_is_missing() -> None:
    assert refusal(reader("mine"), "read", "theirs") == (
        "access to queue 'theirs' refused: uid 1001 has no read pattern that matches it."
        " Run as the user of shmqd, or ask its operator"
    )


def test_to_see_a_thing_any_permission_but_direct_is_enough() -> None:
    patterns: Patterns = {"configure": ["c"], "write": ["w"], "read": ["r"], "direct": ["d"]}
    seeing = access(Rule(ANY, patterns))

    assert [name for name in "cwrd" if seeing.sees(name)] == ["c", "w", "r"]
    with pytest.raises(AccessRefused, match="no configure, write or read pattern"):
        seeing.check_sees("queue", "d")


@pytest.mark.parametrize(
    ("patterns", "lacks"),
    [
        ({"direct": ["*"], "write": ["*"], "read": ["*"]}, ""),
        ({"write": ["*"], "read": ["*"]}, "uid 1001 has no direct pattern that matches it"),
        ({"direct": ["*"], "read": ["*"]}, "uid 1001 has no write pattern that matches it"),
        ({"direct": ["*"], "write": ["*"]}, "uid 1001 has no read pattern that matches it"),
    ],
)
def test_direct_mode_needs_three_permissions(patterns: Patterns, lacks: str) -> None:
    assert access(Rule(ANY, patterns)).why_not_direct("jobs") == lacks


def test_a_publish_to_the_default_exchange_is_one_to_each_queue_that_it_names() -> None:
    writer = access(Rule(ANY, {"write": ["jobs", "images"]}))

    writer.check_publish("", ["jobs"])
    writer.check_publish("images", ["whatever"])
    with pytest.raises(AccessRefused, match="queue 'other'"):
        writer.check_publish("", ["jobs", "other"])
    with pytest.raises(AccessRefused, match="exchange 'events'"):
        writer.check_publish("events", ["jobs"])


def test_passing_on_needs_read_on_the_owner_and_write_on_the_target() -> None:
    owner = access(Rule(ANY, {"read": ["jobs"], "write": ["dead"]}))

    owner.check_forward("queue", "jobs", "dead")
    owner.check_forward("queue", "jobs", "", "dead")
    with pytest.raises(AccessRefused, match="queue 'mine' refused"):
        owner.check_forward("queue", "mine", "dead")
    with pytest.raises(AccessRefused, match=r"queue 'jobs' refused: .* no write"):
        owner.check_forward("queue", "jobs", "", "jobs")


def test_passing_on_to_any_queue_needs_write_on_the_default_exchange() -> None:
    owner = access(Rule(ANY, {"read": ["jobs"], "write": ["jobs"]}))
    with pytest.raises(AccessRefused, match=r"exchange 'amq.default'"):
        owner.check_forward("queue", "jobs", "")

    access(Rule(ANY, {"read": ["jobs"], "write": ["amq.default"]})).check_forward("queue", "jobs", "")


def test_root_and_the_daemons_uid_may_do_everything_whatever_is_denied() -> None:
    policy = Policy([Rule(ANY, deny={"read": ["*"]}, limits=Limits(connections=0))], own_uid=77)

    for uid in (0, 77):
        full = policy.access_of(Subject(uid, frozenset()))
        full.check("read", "queue", "jobs")
        full.check_connections(10**6)
        assert full.why_not_direct("jobs") == ""


def test_who_has_no_permission_is_not_admitted_and_a_denial_is_none() -> None:
    policy = Policy([Rule(Principal("uid", 1001), {"direct": ["*"]}, {"read": ["*"]})], own_uid=0)

    with pytest.raises(AccessRefused, match="this broker refused: uid 1001 has no permissions, nor has any of its"):
        policy.access_of(ALICE).check_admitted()


def test_equal_subjects_share_an_answer_and_others_do_not() -> None:
    policy = Policy([Rule(Principal("gid", 50), {"read": ["*"]})], own_uid=0)

    assert policy.access_of(Subject(1, frozenset({50}))) is policy.access_of(Subject(1, frozenset({50})))
    assert not policy.access_of(Subject(1, frozenset({51}))).may("read", "jobs")


def test_what_is_remembered_stays_bounded() -> None:
    policy = Policy([Rule(ANY, {"read": ["*"]})], own_uid=0)
    for uid in range(1, 3000):
        policy.access_of(Subject(uid, frozenset()))
    one = policy.access_of(ALICE)
    for number in range(10_000):
        assert one.may("read", str(number))

    assert len(policy._known) <= 1024
    assert len(one._answers) <= 1024


@pytest.mark.parametrize(
    ("limits", "effective"),
    [
        ([("any", 1), ("gid", 2), ("gid", 3), ("uid", 1)], 1),
        ([("any", 1), ("gid", 2), ("gid", 3)], 3),
        ([("any", 1), ("gid", None)], 1),
        ([("any", None)], None),
    ],
)
def test_a_limit_of_the_uid_comes_before_those_of_groups_and_of_everybody(
    limits: list[tuple[str, int | None]], effective: int | None
) -> None:
    numbers = {"any": 0, "gid": 50, "uid": 1001}
    rules = [Rule(Principal(kind, numbers[kind]), limits=Limits(queues=limit)) for kind, limit in limits]  # type: ignore[arg-type] # one of its words

    assert access(*rules).limits.queues == effective


def test_a_limit_refuses_what_is_beyond_it() -> None:
    limited = access(Rule(ANY, limits=Limits(connections=2, queues=1, bytes=100)))

    limited.check_connections(1)
    limited.check_queues(0)
    limited.check_bytes(40, 60)
    with pytest.raises(NotAllowed, match="has 2 connections, and may have 2"):
        limited.check_connections(2)
    with pytest.raises(NotAllowed, match="has declared 1 queues, and may have 1"):
        limited.check_queues(1)
    with pytest.raises(NotAllowed, match="smaller capacity_messages"):
        limited.check_bytes(41, 60)
