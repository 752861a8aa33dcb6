"""Settings are checked when they are read, and errors say where and what would be right."""

from pathlib import Path

import pytest

from shmq.errors import ConfigError
from shmq_daemon.config import Config, load, parse


def error_of(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        parse(text, "shmqd.toml")
    return raised.value


def test_no_settings_are_the_defaults() -> None:
    assert parse("", "shmqd.toml") == Config()


def test_settings_are_read() -> None:
    assert parse("queue_capacity = 10\nlog_format = 'json'", "shmqd.toml") == Config(
        queue_capacity=10, log_format="json"
    )


def test_a_whole_number_may_be_a_share() -> None:
    assert parse("memory_watermark = 1", "shmqd.toml").memory_watermark == 1.0


def test_an_unknown_key_names_its_line_and_the_nearest_known_one() -> None:
    error = error_of("# first\nqueue_capacty = 5\n")

    assert (error.line, error.key, error.hint) == (2, "queue_capacty", "unknown key; did you mean `queue_capacity`?")


def test_an_unknown_key_without_a_likeness_lists_what_is_known() -> None:
    assert "known are socket, data" in error_of("zzz = 1").hint


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("queue_capacity = 0", "0 can't be used; right is a whole number from 1 to 8388606, the default is 1000000"),
        ("queue_capacity = 1e3", "1000.0 can't be used; right is a whole number from 1"),
        ("queue_capacity = 99_999_999", "99999999 can't be used; right is a whole number from 1 to 8388606"),
        ("queue_inline_bytes = 70000", "70000 can't be used; right is a whole number from 0 to 65536"),
        ("queue_capacity_bytes = -1", "-1 can't be used; right is a whole number from 0 to"),
        ("memory_watermark = 0", "0 can't be used; right is a number above 0, up to 1, the default is 0.8"),
        ("memory_watermark = 1.5", "1.5 can't be used; right is a number above 0, up to 1"),
        ("memory_watermark_clear = 0.0", "0.0 can't be used; right is a number above 0, up to 1, the default is 0.9"),
        ("memory_watermark_bytes = -1", "-1 can't be used; right is a whole number from 0 to"),
        ("log_level = 'loud'", '"loud" can\'t be used; right is "debug", "info", "warning" or "error", the default'),
        ("log_format = ['text']", 'an array can\'t be used; right is "text" or "json", the default is "text"'),
        ("socket_mode = 0o777", "511 can't be used; right is a mode from 0o600 to 0o666, such as 0o660"),
        ("socket_group = ''", '"" can\'t be used; right is the name or the number of a group of this host'),
        ("permissions = 3", "3 can't be used; right is tables [[permissions]]"),
        ("socket = 'relative'", '"relative" can\'t be used; right is an absolute path'),
        ("[data]", "a table can't be used; right is an absolute path"),
    ],
)
def test_a_bad_value_names_its_line_and_what_would_be_right(text: str, shown: str) -> None:
    error = error_of("\n" + text)

    assert error.line == 2
    assert error.key in text
    assert shown in error.hint


@pytest.mark.parametrize(("text", "line"), [("\n= 5", 2), ("log_level = \n", 1), ("socket = '", 1), ("a", 1)])
def test_text_that_is_no_toml_names_the_place(text: str, line: int) -> None:
    error = error_of(text)

    assert error.line == line
    assert error.hint.startswith("no TOML: ")


def test_a_file_that_cannot_be_read_is_an_error_of_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("text", "key", "shown"),
    [
        ("uid = true", "permissions[1].uid", "Expected `int | str | null`, got `bool`"),
        ("uid = 0\nwrite = 'x'", "permissions[1].write", "Expected `array`, got `str`"),
        ("uid = 'no such user'", "permissions[1]", "there is no user 'no such user' on this host"),
        ("gid = 'no such group'", "permissions[1]", "there is no group 'no such group' on this host"),
        ("write = ['a']", "permissions[1]", "says not for whom it is; right is one of uid, gid and any = true"),
        ("uid = 0\nany = true", "permissions[1]", "says not for whom it is"),
        ("any = true\nwirte = ['a']", "permissions[1]", "unknown key `wirte`; did you mean `write`?"),
        ("any = true\ndeny.raed = ['a']", "permissions[1].deny", "unknown key `raed`; did you mean `read`?"),
        ("any = true\nlimits.gold = 1", "permissions[1].limits", "unknown key `gold`; known are connections, queues"),
        ("any = true\nlimits.queues = -1", "permissions[1].limits.queues", "Expected `int` >= 0"),
        ("any = true\nread = ['a', '']", "permissions[1].read[1]", "Expected `str` of length >= 1"),
    ],
)
def test_a_bad_permission_names_its_table_and_what_is_wrong(text: str, key: str, shown: str) -> None:
    error = error_of("# whose\n[[permissions]]\nany = true\n\n[[permissions]]\n" + text)

    assert (error.line, error.key) == (5, key)
    assert error.hint.startswith(shown)


def test_permissions_are_read() -> None:
    config = parse("[[permissions]]\nuid = 5\nread = ['a.*']\ndeny.read = ['a.b']\nlimits.queues = 3", "shmqd.toml")

    assert config.permissions is not None
    (permission,) = config.permissions
    assert (permission.uid, permission.gid, permission.any) == (5, None, False)
    assert (permission.read, permission.deny.read, permission.limits.queues) == (("a.*",), ("a.b",), 3)
