"""Settings are checked when they are read, and errors say where and what would be right."""

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


def test_an_unknown_key_names_its_line_and_the_nearest_known_one() -> None:
    error = error_of("# first\nqueue_capacty = 5\n")

    assert (error.line, error.key, error.hint) == (2, "queue_capacty", "unknown key; did you mean `queue_capacity`?")


def test_an_unknown_key_without_a_likeness_lists_what_is_known() -> None:
    assert "known are socket, data" in error_of("zzz = 1").hint


@pytest.mark.parametrize(
    ("text", "key"), [("queue_capacity = 0", "queue_capacity"), ("log_level = 'loud'", "log_level")]
)
def test_a_bad_value_names_its_key_and_the_default(text: str, key: str) -> None:
    error = error_of(text)

    assert (error.line, error.key) == (1, key)
    assert f"the default is {getattr(Config(), key)}" in error.hint


def test_text_that_is_no_toml_names_the_place() -> None:
    assert "line 1" in error_of("= 5").hint


def test_a_missing_file_is_an_error_of_configuration() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(pytest.importorskip("pathlib").Path("/nonexistent/shmqd.toml"))
