"""Connecting to what is there and what is not: each wrong end is a typed error in under a second."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shmq
from support.deadline import wait_until

Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answer one client on a socket of the test's own."""
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)
    over = threading.Event()

    def start(answer: Callable[[socket.socket], None]) -> str:
        listener.bind(str(tmp_path / "peer.sock"))
        listener.listen()

        def run() -> None:
            peer, _ = listener.accept()
            with peer:
                answer(peer)
                over.wait(10)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"shmq://{tmp_path}/peer.sock"

    yield start
    over.set()
    for thread in threads:
        thread.join()
    listener.close()


def refused(url: str | None, error: type[shmq.ShmqError]) -> str:
    start = time.monotonic()
    with pytest.raises(error) as caught:
        shmq.connect(url)
    assert time.monotonic() - start < 1
    return str(caught.value)


def test_nothing_there_names_the_paths_and_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SHMQ_URL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    text = refused(None, shmq.DaemonNotRunning)

    assert str(tmp_path / "shmq/shmq.sock") in text
    assert "/run/shmq/shmq.sock" in text
    assert "systemctl start shmqd" in text


def test_a_stale_socket_is_nobody(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "s.sock"))
    stale.close()

    assert str(tmp_path) in refused(f"shmq://{tmp_path}/s.sock", shmq.DaemonNotRunning)


def test_a_file_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    refused(f"shmq://{tmp_path}/file", shmq.DaemonNotRunning)


def test_a_datagram_socket_is_not_shmqd(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "d.sock"))

        refused(f"shmq://{tmp_path}/d.sock", shmq.NotShmqd)


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x02\xc1\xc1", b"\0\0\0\x01\x90", b"\xff" * 64]
)
def test_who_talks_otherwise_is_not_shmqd(serve: Serve, garbage: bytes) -> None:
    url = serve(lambda peer: peer.sendall(garbage))

    assert "peer.sock" in refused(url, shmq.NotShmqd)


def test_a_giant_frame_is_not_waited_for(serve: Serve) -> None:
    url = serve(lambda peer: peer.sendall(b"\x7f\xff\xff\xff" + b"\x9f\x40"))

    refused(url, shmq.NotShmqd)


def test_who_hangs_up_is_not_shmqd(serve: Serve) -> None:
    url = serve(lambda peer: peer.shutdown(socket.SHUT_RDWR))

    refused(url, shmq.NotShmqd)


def test_a_silent_peer_times_out(serve: Serve) -> None:
    url = serve(lambda _peer: None)

    assert "peer.sock" in refused(url, shmq.OperationTimeout)


def test_a_bad_mode_is_refused() -> None:
    with pytest.raises(shmq.InvalidArgument):
        shmq.connect(mode="quick")  # type: ignore[arg-type] # that is the point


def test_the_environment_names_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    with shmq.local() as url:
        monkeypatch.setenv("SHMQ_URL", url)
        with shmq.connect() as conn:
            assert conn.status().durability == "memory"


def test_a_forgotten_connection_warns_and_says_goodbye() -> None:
    with shmq.local() as url, shmq.connect(url) as conn:
        conn.declare_queue("q")
        conn.publish(b"x", routing_key="q")
        other = shmq.connect(url)
        assert other.get("q") is not None

        with pytest.warns(ResourceWarning, match="never closed"):
            del other

        again = conn.get("q", timeout=1)
        assert again is not None
        assert again.headers == {}


def test_a_connection_says_where_it_leads() -> None:
    with shmq.local() as url:
        with shmq.connect(url, mode="socket") as connection:
            assert repr(connection) == f"<Connection to {url}, mode socket>"
        assert repr(connection) == f"<Connection to {url}, mode socket, closed>"


def test_a_queue_that_was_refused_and_made_anew_is_worked_in_directly() -> None:
    with shmq.local() as url, shmq.connect(url, mode="direct") as conn, shmq.connect(url) as other:
        other.declare_queue("q", single_active_consumer=True)
        with pytest.raises(shmq.DirectRefused, match="one consumer is active"):
            conn.get("q")
        other.delete_queue("q")
        other.declare_queue("q")

        def is_served() -> bool:
            with contextlib.suppress(shmq.DirectRefused):
                return conn.get("q") is None
            return False

        wait_until(is_served, "it is asked for again")
