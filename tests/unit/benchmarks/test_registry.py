import pytest

from benchmarks.side_by_side import registry


def test_a_peer_whose_server_or_client_is_missing_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_program", lambda _name: None)

    found = registry.find(["Redis", "beanstalkd"])

    assert found.peers == []
    assert found.skipped
    assert all("not installed" in reason for reason in found.skipped.values())


def test_only_those_asked_for_run() -> None:
    assert {peer.name for peer in registry.find(["loan", "socket mode, batches"]).peers} == {
        "shmq, loan and view",
        "shmq, socket mode, batches of 100",
    }
