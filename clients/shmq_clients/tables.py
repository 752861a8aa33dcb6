"""What shmqctl shows: tables for people, JSON for programs, from the same facts.

Owns: which facts, in which order, in which words. Does not own: asking for them (cli.py).
Invariants: names and bodies come from others and are shown as text, never as markup or terminal codes.
"""

import base64
import json
import sys
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shmq.definitions import queue_arguments
from shmq.message import Message
from shmq.wire.fields import Latency, QueueInfo
from shmq.wire.frames import StatusReport
from shmq_clients.durations import SECOND_NS, shown

BODY_SHOWN: Final = 60
PIPE_WIDTH: Final = 200  # columns where nobody sees where a line ends
LATENCIES: Final = ("in queue p50/p99", "to ack p50/p99")


def show_json(facts: Any) -> None:  # noqa: ANN401 - anything that is JSON
    """Write one JSON document."""
    sys.stdout.write(json.dumps(facts, indent=2, default=str) + "\n")


def show_queues(queues: list[QueueInfo]) -> None:
    """Write one line a queue."""
    table = _table("queue", "ready", "unacked", "consumers", "capacity", *LATENCIES, "mode", "features")
    for info in queues:
        table.add_row(
            Text(info.definition.name),
            str(info.messages),
            str(info.unacked),
            str(info.consumers),
            str(info.capacity_messages),
            _latency(info.time_in_queue),
            _latency(info.time_to_ack),
            info.mode,
            Text(features(info)),
        )
    _console().print(table)


def features(info: QueueInfo) -> str:
    """What sets a queue apart: flags, then arguments."""
    definition = info.definition
    flags = [flag for flag in ("durable", "exclusive", "auto_delete") if getattr(definition, flag)]
    return " ".join([*flags, *(f"{name}={value}" for name, value in queue_arguments(definition).items())])


def queue_facts(info: QueueInfo) -> dict[str, Any]:
    """Return one queue for JSON."""
    definition = info.definition
    return {
        "name": definition.name,
        "durable": definition.durable,
        "exclusive": definition.exclusive,
        "auto_delete": definition.auto_delete,
        "arguments": queue_arguments(definition),
        "messages": info.messages,
        "unacked": info.unacked,
        "consumers": info.consumers,
        "capacity_messages": info.capacity_messages,
        "capacity_bytes": info.capacity_bytes,
        "mode": info.mode,
        "reason": info.reason,
        "time_in_queue": _named(info.time_in_queue),
        "time_to_ack": _named(info.time_to_ack),
        "totals": info.totals,
    }


def show_status(report: StatusReport) -> None:
    """Write the state of the instance: first what is wrong."""
    console = _console()
    for alarm in report.alarms:
        console.print(Text(f"ALARM {alarm.kind}: {alarm.text}", style="bold red"))
    uptime = report.uptime_ns / SECOND_NS
    console.print(Text(f"shmqd {report.version}, up {uptime:.0f} s, durability: {report.durability}"))
    console.print(Text(f"instance {report.instance}, protocol {report.protocol}, segment layout {report.layout}"))
    processes = _table("process", "pid", "restarts")
    for process in report.processes:
        processes.add_row(process.role, str(process.pid), str(process.restarts))
    console.print(processes)
    totals = _table("total", "number")
    for name, number in report.totals.items():
        totals.add_row(name, str(number))
    if report.totals:
        console.print(totals)


def status_facts(report: StatusReport) -> dict[str, Any]:
    """Return the state of the instance for JSON."""
    facts = {
        name: msgspec.to_builtins(getattr(report, name)) for name in StatusReport.__struct_fields__ if name != "seq"
    }
    facts["processes"] = [_named(process) for process in report.processes]
    facts["alarms"] = [_named(alarm) for alarm in report.alarms]
    return facts


def show_messages(messages: list[Message]) -> None:
    """Write one line a message, its body shortened."""
    table = _table("key", "priority", "deliveries", "bytes", "headers", "body")
    for message in messages:
        table.add_row(
            Text(message.routing_key),
            str(message.priority),
            str(message.delivery_count),
            str(message.body_bytes),
            Text(" ".join(f"{name}={value}" for name, value in message.headers.items())),
            Text(_shortened(message.body)),
        )
    _console().print(table)


def message_facts(message: Message) -> dict[str, Any]:
    """Return one message for JSON; a body that is no text is in base64."""
    facts = {
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "priority": message.priority,
        "persistent": message.persistent,
        "redelivered": message.redelivered,
        "delivery_count": message.delivery_count,
        "headers": message.headers,
        "properties": msgspec.to_builtins(message.properties),
        "body_bytes": message.body_bytes,
    }
    try:
        return facts | {"body": message.body.decode()}
    except UnicodeDecodeError:
        return facts | {"body_base64": base64.b64encode(message.body).decode()}


def _latency(latency: Latency) -> str:
    return f"{shown(latency.p50_ns)} / {shown(latency.p99_ns)}" if latency.count else ""


def _shortened(body: bytes) -> str:
    shown = body[:BODY_SHOWN].decode("utf-8", "backslashreplace")
    printable = "".join(char if char.isprintable() else repr(char)[1:-1] for char in shown)
    return printable + ("..." if len(body) > BODY_SHOWN else "")


def _named(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=PIPE_WIDTH)
