"""What the daemon says of itself fits in the frames that say it."""

from types import SimpleNamespace
from typing import Any

from shmq.limits import ALARMS_TOLD_MAX
from shmq.wire import frames as wire
from shmq.wire.connection import broker_connection, client_connection
from shmq_daemon.permissions import Access, Principal, Rule, Subject
from shmq_daemon.reporting import Reporting
from shmq_daemon.supervision import Alarm

ROOT = Access(Subject(0, frozenset()), full=True)


def test_a_status_with_more_alarms_than_are_told_is_understood() -> None:
    alarms = {number: Alarm("queue-cant-grow", str(number), "no room " * 64, 1) for number in range(3000)}
    supervision: Any = SimpleNamespace(alarms=alarms, counts={}, supervisor=None)
    topology = SimpleNamespace(exchanges={})
    catalog: Any = SimpleNamespace(open={}, state=SimpleNamespace(instance="instance"), topology=topology)
    said: list[Any] = []
    client: Any = SimpleNamespace(session=SimpleNamespace(send=said.append), access=ROOT)
    clients: Any = []
    Reporting(catalog, clients, supervision, master_ns=0, started_ns=0, restarts=0).on_status(client, wire.Status(1))

    ours, theirs = broker_connection(), client_connection()
    ours.receive_data(theirs.send(wire.Hello()))
    ours.next_events()
    theirs.receive_data(ours.send(wire.Welcome(1, 1, "0", "instance", "id", b"s" * 16, 40)))
    theirs.next_events()
    theirs.receive_data(ours.send(said[0]))
    (report,) = theirs.next_events()
    assert isinstance(report, wire.StatusReport)
    assert len(report.alarms) == ALARMS_TOLD_MAX


def test_an_alarm_is_told_to_those_who_may_see_its_queue() -> None:
    shown = [("shm-full", "/dev/shm"), ("queue-cant-grow", "mine")]
    alarms = {key: Alarm(*key, "text", 1) for key in [*shown, ("queue-cant-grow", "theirs")]}
    supervision: Any = SimpleNamespace(alarms=alarms)
    nothing: Any = None
    reporting = Reporting(nothing, nothing, supervision, master_ns=0, started_ns=0, restarts=0)
    access = Access(Subject(1, frozenset()), [Rule(Principal("any"), {"read": ["mine"]})])

    assert [(alarm.kind, alarm.subject) for alarm in reporting._alarms(access)] == shown
