"""shmq_daemon.places: where an instance lives, by who runs it, and what is refused."""

import os
from pathlib import Path

import pytest

from shmq.errors import ConfigError
from shmq_daemon.places import Places, choose, make_data_directory, make_socket_directory

USER = 4711


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user without any wishes."""
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr(os, "geteuid", lambda: USER)


def test_root_has_the_systems_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert choose(None, None) == Places(Path("/run/shmq/shmq.sock"), Path("/var/lib/shmq"))


def test_others_have_their_own() -> None:
    assert choose(None, None) == Places(Path(f"/run/user/{USER}/shmq/shmq.sock"), Path("/home/alice/.local/state/shmq"))


def test_the_environment_says_where_a_users_places_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/there")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")

    assert choose(None, None) == Places(Path("/run/there/shmq/shmq.sock"), Path("/state/shmq"))


def test_what_is_given_is_made_absolute() -> None:
    assert choose("s.sock", "data") == Places(Path.cwd() / "s.sock", Path.cwd() / "data")


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"belongs to uid {tmp_path.stat().st_uid}, we run as {USER}"):
        make_data_directory(tmp_path)


def test_a_directory_that_cannot_be_made_says_which_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/data: Not a directory; choose another with --data"):
        make_data_directory(tmp_path / "file" / "data")
    with pytest.raises(ConfigError, match=r"file: (File exists|Not a directory); choose one with --socket"):
        make_socket_directory(tmp_path / "file" / "s.sock")


def test_a_socket_path_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        make_socket_directory(Path("/" + "x" * 120))
