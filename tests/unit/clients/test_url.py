"""shmq_clients.url: what a URL names, and what it may not say."""

import os
from pathlib import Path

import pytest

from shmq.errors import InvalidArgument
from shmq_clients.url import SYSTEM_SOCKET, socket_paths, start_command, url_of


def test_a_url_names_one_socket() -> None:
    assert socket_paths("shmq:///run/a/b.sock", {"SHMQ_URL": "shmq:///other"}) == (Path("/run/a/b.sock"),)


@pytest.mark.parametrize("url", [None, "", "shmq://"])
def test_without_a_path_in_the_url_the_environment_names_it(url: str | None) -> None:
    assert socket_paths(url, {"SHMQ_URL": "shmq:///there.sock", "XDG_RUNTIME_DIR": "/x"}) == (Path("/there.sock"),)


@pytest.mark.parametrize("named", [{}, {"SHMQ_URL": ""}, {"SHMQ_URL": "shmq://"}])
@pytest.mark.parametrize("url", [None, "", "shmq://"])
def test_without_any_url_the_users_socket_comes_before_the_systems(url: str | None, named: dict[str, str]) -> None:
    assert socket_paths(url, named | {"XDG_RUNTIME_DIR": "/run/user/7"}) == (
        Path("/run/user/7/shmq/shmq.sock"),
        SYSTEM_SOCKET,
    )


def test_a_users_daemon_is_found_where_no_login_set_the_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert socket_paths(None, {}) == (Path("/run/user/1000/shmq/shmq.sock"), SYSTEM_SOCKET)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert socket_paths(None, {}) == (SYSTEM_SOCKET,)


def test_the_root_virtual_host_is_the_only_one() -> None:
    assert socket_paths("shmq:///a.sock?virtual_host=%2F", {}) == (Path("/a.sock"),)


@pytest.mark.parametrize(
    "path", ["/plain.sock", "/with space.sock", "/per%cent.sock", "/question?.sock", "/hash#.sock"]
)
def test_the_url_of_a_path_names_that_path(path: str) -> None:
    assert socket_paths(url_of(Path(path)), {}) == (Path(path),)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://localhost",
        "/run/shmq.sock",
        "shmq://host/run/shmq.sock",
        "shmq://user@/run/shmq.sock",
        "shmq:relative.sock",
        "shmq:///a.sock?virtual_host=other",
        "shmq:///a.sock?heartbeat=3",
        "shmq:///a.sock#part",
        "shmq:///a%00b.sock",
        "shmq:///directory/",
        "shmq:///" + "a" * 120,
        "shmq://[/a.sock",
    ],
)
def test_what_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        socket_paths(url, {})

    assert url in str(caught.value)


@pytest.mark.parametrize(
    ("url", "command"),
    [
        (None, "systemctl start shmqd, or one of your own: shmqd"),
        ("shmq:///run/shmq/shmq.sock", "systemctl start shmqd, or as root: shmqd"),
        ("shmq:///run/user/7/shmq/shmq.sock", "shmqd"),
        ("shmq:///my%20own/s.sock", "shmqd --socket '/my own/s.sock'"),
    ],
)
def test_a_daemon_that_does_not_run_can_be_started(url: str | None, command: str) -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/7"}

    assert start_command(socket_paths(url, environ), environ) == command
