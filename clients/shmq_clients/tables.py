"""What shmqctl shows: tables for people, JSON for programs, from the same facts.

Owns: which facts, in which order, in which words. Does not own: asking for them (cli.py).
Invariants: names and bodies come from others and are shown as text, never as markup or terminal codes.
"""

import base64
import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shmq.definitions import ExchangeDefinition, Scalar, exchange_arguments, queue_arguments
from shmq.message import Message
from shmq.wire.fields import BindingInfo, Latency, QueueInfo
from shmq.wire.frames import StatusReport
from shmq_clients.durations import shown

BODY_SHOWN: Final = 60  # bytes
HEADERS_SHOWN: Final = 100
DEATHS: Final = "x-death"  # long, and summed up by other headers; JSON has it
NUMBER: Final = re.compile(r"[-+.\d]+(e[-+\d]+)?", re.IGNORECASE)
WORDS: Final = ("true", "false", "null")
SET_APART: Final = "set apart"  # in a reason of the broker
RATES: Final = ("published", "delivered", "acked")  # of a queue's totals
PIPE_WIDTH: Final = 200  # columns where nobody sees where a line ends
EXCHANGE_FLAGS: Final = ("durable", "auto_delete", "internal")
LATENCIES: Final = ("in queue p50/p99", "to ack p50/p99")


def show_json(facts: Any) -> None:  # noqa: ANN401 - anything that is JSON
    """Write one JSON document."""
    sys.stdout.write(json.dumps(facts, indent=2, default=str) + "\n")


class Look(NamedTuple):
    """At all queues, at one time (time.monotonic)."""

    queues: list[QueueInfo]
    at: float

    def rates_until(self, later: "Look") -> list[tuple[int, ...]]:
        """Return how much a second each total of RATES grew, by queue; one that is new, or made anew, was at 0."""
        before = {info.definition.name: info.totals for info in self.queues}
        seconds = later.at - self.at

        def rates(info: QueueInfo) -> tuple[int, ...]:
            totals = before.get(info.definition.name, {})
            return tuple(round(max(info.totals[name] - totals.get(name, 0), 0) / seconds) for name in RATES)

        return [rates(info) for info in later.queues]


def show_queues(queues: list[QueueInfo], rates: list[tuple[int, ...]] | None = None) -> None:
    """Write one line a queue; with rates: in the place of what was written before."""
    console = _console()
    if rates is not None:
        console.clear()
    if not queues:
        console.print("no queues")
        return
    names = () if rates is None else (f"{total}/s" for total in RATES)
    table = _table("queue", "ready", "unacked", *names, "consumers", "capacity", *LATENCIES, "mode", "features")
    for info, grown in zip(queues, rates or [()] * len(queues), strict=True):
        table.add_row(
            Text(info.definition.name),
            str(info.messages),
            str(info.unacked),
            *(f"{rate:,}" for rate in grown),
            str(info.consumers),
            str(info.capacity_messages),
            _latency(info.time_in_queue),
            _latency(info.time_to_ack),
            info.mode,
            Text(features(info)),
        )
    console.print(table)


def show_queues_json(queues: list[QueueInfo], rates: list[tuple[int, ...]] | None = None) -> None:
    """Write one array."""
    facts = [queue_facts(info) for info in queues]
    for fact, grown in zip(facts, rates or [], strict=False):
        fact["rates"] = dict(zip(RATES, grown, strict=True))
    show_json(facts)
    sys.stdout.flush()


def features(info: QueueInfo) -> str:
    """What sets a queue apart: flags, then arguments."""
    definition = info.definition
    flags = [flag for flag in ("durable", "exclusive", "auto_delete") if getattr(definition, flag)]
    arguments = _arguments(queue_arguments(definition))
    apart = f"({info.reason})" if SET_APART in info.reason else ""
    return " ".join(filter(None, [*flags, arguments, apart]))


def _arguments(arguments: Mapping[str, Scalar]) -> str:
    return " ".join(f"{name}={_plain(value)}" for name, value in arguments.items())


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


def show_exchanges(exchanges: list[ExchangeDefinition]) -> None:
    """Write one line an exchange."""
    if not exchanges:
        _console().print("no exchanges")
        return
    table = _table("exchange", "type", "features")
    for exchange in exchanges:
        flags = [flag for flag in EXCHANGE_FLAGS if getattr(exchange, flag)]
        arguments = _arguments(exchange_arguments(exchange))
        table.add_row(Text(exchange.name), exchange.type, Text(" ".join(filter(None, [*flags, arguments]))))
    _console().print(table)


def show_exchanges_json(exchanges: list[ExchangeDefinition]) -> None:
    """Write one array."""
    flags = ("name", "type", *EXCHANGE_FLAGS)
    show_json(
        [
            {name: getattr(exchange, name) for name in flags} | {"arguments": exchange_arguments(exchange)}
            for exchange in exchanges
        ]
    )


def show_bindings(bindings: list[BindingInfo]) -> None:
    """Write one line a binding."""
    if not bindings:
        _console().print("no bindings")
        return
    table = _table("source", "destination", "kind", "routing key", "arguments")
    for binding in bindings:
        table.add_row(
            Text(binding.source),
            Text(binding.destination),
            "exchange" if binding.to_exchange else "queue",
            Text(binding.routing_key),
            Text(_arguments(binding.arguments)),
        )
    _console().print(table)


def show_bindings_json(bindings: list[BindingInfo]) -> None:
    """Write one array."""
    show_json([_named(binding) for binding in bindings])


def show_status(report: StatusReport) -> None:
    """Write the state of the instance: first what is wrong."""
    console = _console()
    now_ns = _now_ns(report)
    for alarm in report.alarms:
        age = shown(now_ns - alarm.raised_ns)
        console.print(Text(f"ALARM {alarm.kind}, for {age}: {alarm.text}", style="bold red"))
    versions = f"protocol {report.protocol}, layout {report.layout}"
    console.print(Text(f"shmqd {report.version} ({versions}), instance {report.instance}"))
    console.print(Text(f"up {shown(report.uptime_ns)}, durability: {report.durability}, alarms: {len(report.alarms)}"))
    processes = _table("process", "pid", "up", "restarts", first_line=True)
    for process in report.processes:
        up = shown(now_ns - process.started_ns)
        processes.add_row(process.role, str(process.pid), up, str(process.restarts))
    console.print(processes)
    totals = _table("total", "number", first_line=True)
    for name, number in report.totals.items():
        totals.add_row(name, f"{number:,}")
    if report.totals:
        console.print(totals)


def status_facts(report: StatusReport) -> dict[str, Any]:
    """Return the state of the instance for JSON."""
    facts = {
        name: msgspec.to_builtins(getattr(report, name)) for name in StatusReport.__struct_fields__ if name != "seq"
    }
    now_ns = _now_ns(report)
    facts["processes"] = [
        {"role": process.role, "pid": process.pid, "restarts": process.restarts, "up_ns": now_ns - process.started_ns}
        for process in report.processes
    ]
    facts["alarms"] = [
        {"kind": alarm.kind, "text": alarm.text, "age_ns": now_ns - alarm.raised_ns} for alarm in report.alarms
    ]
    return facts


def _now_ns(report: StatusReport) -> int:
    """The broker's clock when it answered: the instance is as old as its master."""
    started_ns = next((process.started_ns for process in report.processes if process.role == "master"), 0)
    return report.uptime_ns + started_ns


def show_messages(messages: list[Message]) -> None:
    """Write one line a message, its body and headers shortened."""
    if not messages:
        _console().print("no messages")
        return
    table = _table("key", "priority", "deliveries", "bytes", "body", "headers")
    for message in messages:
        headers = " ".join(f"{name}={_plain(value)}" for name, value in message.headers.items() if name != DEATHS)
        table.add_row(
            Text(message.routing_key),
            str(message.priority),
            str(message.delivery_count),
            str(message.body_bytes),
            Text(_shortened(message.body, BODY_SHOWN)),
            Text(_shortened(headers.encode(), HEADERS_SHOWN)),
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
        "sender": message.sender and message.sender._asdict(),
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


def _shortened(content: bytes, most: int) -> str:
    text = content[:most].decode("utf-8", "backslashreplace")
    printable = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return printable + ("..." if len(content) > most else "")


def _plain(value: object) -> str:
    """An argument or a header as a word: no text looks like nothing, like a number, or like true."""
    is_word = isinstance(value, str) and value and not NUMBER.fullmatch(value) and value not in WORDS
    return str(value) if is_word else json.dumps(value, default=str)


def _named(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _table(*columns: str, first_line: bool = False) -> Table:
    """Columns without lines; `first_line`: what came before is no part of it."""
    table = Table(box=None, header_style="bold", pad_edge=False, title=" " if first_line else None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=PIPE_WIDTH)
