"""What is remembered of ack timeouts of consumers: bounded, and told once a look."""

from types import SimpleNamespace
from typing import Any

import pytest

from shmq_daemon import consuming
from shmq_daemon.consuming import Consuming


class Log:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def info(self, _event: str, **fields: Any) -> None:
        self.told.append(fields)


class Client:
    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.overdue: dict[int, None] = {}


class Message:
    requeued = False

    def reject(self, *, requeue: bool) -> None:
        self.requeued = requeue


def test_what_a_client_never_settles_is_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "OVERDUE_MAX", 3)  # a bound that is soon reached
    log, timers = Log(), SimpleNamespace(after=lambda _ns, _then: None)
    made = Consuming(SimpleNamespace(open={}), None, timers, log)  # type: ignore[arg-type] # what it needs of them
    opened = SimpleNamespace(name="jobs")
    client: Any = Client()
    monkeypatch.setattr(made, "_release", lambda client, tag: client.held.pop(tag))  # no queues here
    held = [SimpleNamespace(deadline_ns=1, message=Message(), opened=opened, consumer_tag="tag") for _ in range(10)]
    client.held = dict(enumerate(held))
    made._timed.add(client)
    made._look_for_overdue(2)

    assert list(client.overdue) == [7, 8, 9]
    assert all(one.message.requeued for one in held)
    assert [fields["requeued"] for fields in log.told] == [10]
