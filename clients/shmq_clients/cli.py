"""shmqctl: what an operator asks of a running shmqd, and the simplest of publishing and getting.

Owns: commands, options, exit codes. Does not own: how answers look (tables.py), the client.
Exit codes: 0 fine; 1 something is wrong (an alarm, a refused operation); 2 the command line is; 3 shmqd is down.
Every error is one line on standard error. --url and --json may stand before the command or after it.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Final, NamedTuple, NoReturn

import click
import msgspec

from shmq._version import __version__
from shmq.core._core import LAYOUT
from shmq.errors import InvalidArgument, SessionError, ShmqError, Unroutable
from shmq.limits import PROTOCOL
from shmq_clients import tables
from shmq_clients.connection import Connection, connect

ALARM: Final = 1
USAGE: Final = 2
DOWN: Final = 3
VERSION: Final = f"shmqctl {__version__} (protocol {PROTOCOL}, layout {LAYOUT})"


class Before(NamedTuple):
    """What stood before the command."""

    url: str | None
    as_json: bool


def _everywhere(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that stand before a command or after it."""
    url = click.option("--url", help="shmq:///path/of.sock; else $SHMQ_URL, else the user's, else the system's socket.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return url(as_json(command))


def _connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --url, --json and a connection, and turn errors into a line and an exit code."""

    @wraps(command)
    def run(*, url: str | None, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - whatever click found
        before: Before = click.get_current_context().obj
        try:
            with connect(url or before.url) as connection:
                command(connection, as_json=as_json or before.as_json, **options)
        except SessionError as error:
            _fail(error, DOWN)
        except ShmqError as error:
            about_url = isinstance(error, InvalidArgument) and error.argument == "url"
            _fail(error, USAGE if about_url else ALARM)

    return _everywhere(run)


def _fail(error: ShmqError, code: int) -> NoReturn:
    click.echo(f"shmqctl: {' '.join(str(error).split())}", err=True)
    sys.exit(code)


class Argument(click.ParamType[tuple[str, Any]]):
    """NAME=VALUE; the value is JSON where it can be read so, else text."""

    name = "NAME=VALUE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        try:
            return name, msgspec.json.decode(text)
        except msgspec.DecodeError:
            return name, text


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message=VERSION)
@_everywhere
@click.pass_context
def main(context: click.Context, *, url: str | None, as_json: bool) -> None:
    """Look at and work with a running shmqd.

    Exit code 0: fine; 1: an alarm, or refused; 2: the command line is wrong; 3: shmqd is down.
    """
    context.obj = Before(url, as_json)


@main.command()
@_connected
def status(connection: Connection, *, as_json: bool) -> None:
    """Show alarms, processes and totals."""
    report = connection.status()
    if as_json:
        tables.show_json(tables.status_facts(report))
    else:
        tables.show_status(report)
    if report.alarms:
        sys.exit(ALARM)


@main.command()
@click.option("--watch", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Again and again, with rates.")
@_connected
def queues(connection: Connection, *, as_json: bool, watch: float | None) -> None:
    """List all queues."""
    show = tables.show_queues_json if as_json else tables.show_queues
    before = tables.Look(connection.queues(), time.monotonic())
    show(before.queues)
    with suppress(KeyboardInterrupt):
        while watch is not None:
            time.sleep(watch)
            now = tables.Look(connection.queues(), time.monotonic())
            show(now.queues, before.rates_until(now))
            before = now


@main.command()
@_connected
def exchanges(connection: Connection, *, as_json: bool) -> None:
    """List all exchanges but the default one."""
    show = tables.show_exchanges_json if as_json else tables.show_exchanges
    show(connection.exchanges())


@main.command()
@click.option("--source", help="Only those that start at this exchange.")
@click.option("--destination", help="Only those that lead to this queue, or exchange.")
@_connected
def bindings(connection: Connection, *, as_json: bool, source: str | None, destination: str | None) -> None:
    """List all bindings but those of the default exchange."""
    show = tables.show_bindings_json if as_json else tables.show_bindings
    show(connection.bindings(source=source, destination=destination))


@main.command()
@click.argument("name")
@click.option("--durable/--transient", default=True, show_default=True)
@click.option("--auto-delete", is_flag=True)
@click.option("--max-priority", type=int)
@click.option("--capacity-messages", type=int)
@click.option("--capacity-bytes", type=int)
@click.option("--dead-letter-exchange", help='"" is the default exchange: the key names a queue.')
@click.option("--dead-letter-routing-key")
@click.option("--delivery-limit", type=int)
@click.option("--argument", "arguments", type=Argument(), multiple=True, help="An x- argument; may be repeated.")
@_connected
def declare(connection: Connection, name: str, *, as_json: bool, arguments: Any, **definition: Any) -> None:  # noqa: ANN401 - click's
    """Make a queue, or check that it is as asked for."""
    declared = connection.declare_queue(name, arguments=dict(arguments), **definition)
    if as_json:
        tables.show_json(declared._asdict())
    else:
        click.echo(f"queue {declared.name}: {declared.messages} ready, {declared.consumers} consumers")


@main.command()
@click.argument("name")
@click.option("--if-unused", is_flag=True)
@click.option("--if-empty", is_flag=True)
@_connected
def delete(connection: Connection, name: str, *, as_json: bool, if_unused: bool, if_empty: bool) -> None:
    """Delete a queue with its messages."""
    connection.declare_queue(name, passive=True)  # a person wants to hear of a name that there is not
    _show_count(
        connection.delete_queue(name, if_unused=if_unused, if_empty=if_empty), "messages deleted", as_json=as_json
    )


@main.command()
@click.argument("name")
@click.option(
    "--type",
    default="direct",
    show_default=True,
    help="direct, fanout, topic, headers; x-delayed-message with --delayed-type.",
)
@click.option("--durable/--transient", default=True, show_default=True)
@click.option("--auto-delete", is_flag=True)
@click.option("--internal", is_flag=True, help="Nobody publishes to it; other exchanges lead there.")
@click.option("--alternate-exchange", help="Gets what this one routes nowhere.")
@click.option("--delayed-type", help="How an exchange of type x-delayed-message routes.")
@click.option("--argument", "arguments", type=Argument(), multiple=True, help="An x- argument; may be repeated.")
@_connected
def declare_exchange(connection: Connection, name: str, *, as_json: bool, arguments: Any, **definition: Any) -> None:  # noqa: ANN401 - click's
    """Make an exchange, or check that it is as asked for."""
    connection.declare_exchange(name, arguments=dict(arguments), **definition)
    _say(f"exchange {name} of type {definition['type']}", {"exchange": name}, as_json=as_json)


@main.command()
@click.argument("name")
@click.option("--if-unused", is_flag=True)
@_connected
def delete_exchange(connection: Connection, name: str, *, as_json: bool, if_unused: bool) -> None:
    """Delete an exchange with its bindings."""
    connection.declare_exchange(name, passive=True)  # a person wants to hear of a name that there is not
    connection.delete_exchange(name, if_unused=if_unused)
    _say(f"exchange {name} deleted", {"exchange": name}, as_json=as_json)


class Binding(NamedTuple):
    """What names one on the command line."""

    destination: str
    exchange: str
    routing_key: str
    match: str | None
    arguments: tuple[tuple[str, Any], ...]

    def give_to(self, call: Callable[..., None]) -> None:
        """Call one of the four that bind and unbind."""
        arguments = dict(self.arguments) or None
        call(self.destination, self.exchange, self.routing_key, match=self.match, arguments=arguments)


def _binding(command: Callable[..., None]) -> Callable[..., None]:
    """Add what names a binding."""
    for option in (
        click.option("--match", help="At a headers exchange: all, any, all-with-x or any-with-x."),
        click.option("--argument", "arguments", type=Argument(), multiple=True, help="A header; may be repeated."),
        click.option("--to-exchange", is_flag=True, help="DESTINATION is an exchange."),
        click.argument("routing_key", default=""),
        click.argument("exchange"),
        click.argument("destination"),
    ):
        command = option(command)
    return command


@main.command()
@_binding
@_connected
def bind(connection: Connection, *, as_json: bool, to_exchange: bool, **named: Any) -> None:  # noqa: ANN401 - click's
    """Let EXCHANGE route ROUTING_KEY to the queue DESTINATION."""
    binding = Binding(**named)
    binding.give_to(connection.bind_exchange if to_exchange else connection.bind_queue)
    where = {"destination": binding.destination}
    _say(f"{binding.exchange} leads to {binding.destination} by {binding.routing_key!r}", where, as_json=as_json)


@main.command()
@_binding
@_connected
def unbind(connection: Connection, *, as_json: bool, to_exchange: bool, **named: Any) -> None:  # noqa: ANN401 - click's
    """Take a binding back, named as it was made."""
    binding = Binding(**named)
    ends = {"source": binding.exchange, "destination": binding.destination}
    before = len(connection.bindings(**ends))
    binding.give_to(connection.unbind_exchange if to_exchange else connection.unbind_queue)
    dropped = before - len(connection.bindings(**ends))
    _show_count(dropped, "bindings taken back", as_json=as_json)
    if not dropped:
        sys.exit(ALARM)


@main.command()
@click.argument("name")
@_connected
def purge(connection: Connection, name: str, *, as_json: bool) -> None:
    """Drop all ready messages of a queue."""
    _show_count(connection.purge_queue(name), "messages dropped", as_json=as_json)


@main.command()
@click.argument("routing_key")
@click.argument("body", required=False)
@click.option("--exchange", default="", help="Else the default exchange: the key names a queue.")
@click.option("--priority", type=int, default=0)
@click.option("--persistent", is_flag=True)
@click.option("--expiration", type=int, help="Milliseconds.")
@click.option("--delay", type=float, help="Seconds.")
@click.option("--timeout", type=float, default=5.0, show_default=True, help="Seconds to wait for room.")
@click.option("--header", "headers", type=Argument(), multiple=True, help="May be repeated.")
@_connected
def publish(
    connection: Connection,
    routing_key: str,
    body: str | None,
    *,
    as_json: bool,
    headers: Any,  # noqa: ANN401 - pairs
    **keywords: Any,  # noqa: ANN401 - as publish
) -> None:
    """Publish one message; without BODY, what comes on standard input. It is an error if no queue gets it."""
    content = sys.stdin.buffer.read() if body is None else os.fsencode(body)
    keywords |= {"headers": dict(headers) or None, "mandatory": True, "confirm": "memory"}
    try:
        connection.publish(content, routing_key=routing_key, **keywords)
    except Unroutable as error:  # its own advice is one for programs
        where = f"exchange {error.exchange!r}" if error.exchange else "the default exchange"
        raise Unroutable(
            f"{where} routes {routing_key!r} to no queue; shmqctl queues lists those that are there"
        ) from None
    if as_json:
        tables.show_json({"published": 1, "body_bytes": len(content)})


@main.command()
@click.argument("queue")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--timeout", type=float, default=0.0, show_default=True, help="Seconds to wait for the first.")
@click.option("--requeue", is_flag=True, help="Only look: put them back in their place. It counts as a delivery.")
@click.option("--raw", is_flag=True, help="Write the bodies alone, as they are.")
@_connected
def get(
    connection: Connection, queue: str, *, as_json: bool, count: int, timeout: float, requeue: bool, raw: bool
) -> None:
    """Take messages from a queue and show them."""
    messages = list(connection.get_batch(queue, max_messages=count, max_wait=timeout))
    if raw:
        for message in messages:
            sys.stdout.buffer.write(message.body)
    elif as_json:
        tables.show_json([tables.message_facts(message) for message in messages])
    else:
        tables.show_messages(messages)
    sys.stdout.flush()
    for message in messages:
        if requeue:
            message.nack(requeue=True)
        else:
            message.ack()


def _say(text: str, facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        tables.show_json(facts)
    else:
        click.echo(text)


def _show_count(count: int, what: str, *, as_json: bool) -> None:
    if as_json:
        tables.show_json({"count": count})
    else:
        click.echo(f"{count} {what}")


if __name__ == "__main__":
    main()
