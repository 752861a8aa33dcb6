"""shmq-perf: the command line.

Owns: options, exit codes, what goes to which stream. Does not own: what the settings mean together (plan.py).
Options are those of RabbitMQ's PerfTest where they mean the same. Exit codes: 0 fine; 1 a worker or the broker failed;
2 the command line is wrong; 3 shmqd is down. With --json standard output is one JSON object and all else goes to
standard error.
"""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO, Any, Final, NoReturn

import click

from shmq._version import __version__
from shmq.core import LAYOUT
from shmq.errors import InvalidArgument, SessionError, ShmqError
from shmq.limits import PROTOCOL
from shmq_clients.asked import MODES
from shmq_clients.local import local
from shmq_clients.outgoing import CONFIRMS
from shmq_clients.perf import report
from shmq_clients.perf.plan import Mix, Plan, parse_mix
from shmq_clients.perf.result import Result
from shmq_clients.perf.run import run
from shmq_clients.perf.workers import WorkerFailed

VERSION: Final = f"shmq-perf {__version__} (protocol {PROTOCOL}, layout {LAYOUT})"
FAILED: Final = 1
USAGE: Final = 2
DOWN: Final = 3
EXCHANGE_TYPES: Final = ("direct", "fanout", "topic", "headers")
MICROSECOND: Final = 1e-6
COUNT: Final = click.IntRange(0)
ONE_UP: Final = click.IntRange(1)
ABOVE_ZERO: Final = click.FloatRange(0, min_open=True)


class MixType(click.ParamType[Mix]):
    """VALUE[:WEIGHT],..."""

    name = "VALUE[:WEIGHT],..."

    def __init__(self, *, of_sizes: bool) -> None:
        self._of_sizes = of_sizes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Mix:  # noqa: ANN401 - click's
        if isinstance(value, tuple):
            return value
        try:
            return parse_mix(value, of_sizes=self._of_sizes)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Arguments(click.ParamType[dict[str, int | str]]):
    """NAME=VALUE,..., as PerfTest has it: a whole number where it is one, else text."""

    name = "NAME=VALUE,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int | str]:  # noqa: ANN401 - click's
        if isinstance(value, dict):
            return value
        arguments: dict[str, int | str] = {}
        for part in filter(None, value.split(",")):
            name, equals, text = part.partition("=")
            if not name or not equals:
                self.fail(f"{part!r} is not NAME=VALUE", param, ctx)
            arguments[name] = int(text) if text.lstrip("-").isdigit() else text
        return arguments


OPTIONS: Final[list[Callable[..., Any]]] = [
    click.option("-h", "--uri", "--url", "url", help="shmq:///path/of.sock. Without it: a private broker."),
    click.option("-x", "--producers", type=COUNT, default=1, show_default=True, help="Producer processes."),
    click.option("-y", "--consumers", type=COUNT, default=1, show_default=True, help="Consumer processes."),
    click.option("-s", "--size", "sizes", type=MixType(of_sizes=True), default="256", show_default=True,
                 help="Bytes of a body, or a mix: 64:9,4KiB:1."),
    click.option("--priorities", type=MixType(of_sizes=False), default="0", show_default=True,
                 help="Priority of a message, or a mix: 0:9,5:1."),
    click.option("-z", "--time", "seconds", type=ABOVE_ZERO, help="Seconds to run."),
    click.option("-C", "--pmessages", "producer_messages", type=ONE_UP, help="Messages of each producer."),
    click.option("-D", "--cmessages", "consumer_messages", type=ONE_UP, help="Messages of each consumer."),
    click.option("-r", "--rate", type=ABOVE_ZERO, help="Messages a second of each producer; else as fast as it can."),
    click.option("-R", "--consumer-rate", type=ABOVE_ZERO, help="Messages a second of each consumer, at most."),
    click.option("-L", "--consumer-latency", type=COUNT, default=0, help="Microseconds of work for each message."),
    click.option("-q", "--qos", "prefetch", type=COUNT, default=0, show_default=True, help="Prefetch; 0: any number."),
    click.option("-a", "--autoack", "auto_ack", is_flag=True, help="No acks."),
    click.option("-A", "--multi-ack-every", "ack_every", type=ONE_UP, default=1, show_default=True,
                 help="Ack so many at a time."),
    click.option("--batch", type=ONE_UP, default=1, show_default=True,
                 help="Publish, get and ack so many in one call."),
    click.option("--mode", type=click.Choice(MODES), default="auto", show_default=True),
    click.option("--confirm-level", "confirm", type=click.Choice([c for c in CONFIRMS if c]),
                 help="How far a message has come when publish returns; else what the mode does by itself."),
    click.option("-c", "--confirm", "unconfirmed", type=COUNT, default=0,
                 help="Wait for the broker after so many publishes."),
    click.option("-f", "--flag", "flags", type=click.Choice(["persistent", "mandatory"]), multiple=True,
                 help="Of the messages; may be repeated."),
    click.option("--zero-copy", is_flag=True, help="Loan and view, not publish and body: bodies are not filled."),
    click.option("--no-latency", is_flag=True, help="Do not stamp messages: throughput alone."),
    click.option("-u", "--queue", default="shmq-perf", show_default=True, help="Made if missing, then also deleted."),
    click.option("-qa", "--queue-args", "queue_arguments", type=Arguments(), default="",
                 help="x- arguments of the queue."),
    click.option("-e", "--exchange", default="", help="Else the default exchange."),
    click.option("-t", "--type", "exchange_type", type=click.Choice(EXCHANGE_TYPES), default="direct",
                 show_default=True, help="Of the exchange."),
    click.option("-k", "--routing-key", default="", help="Else the queue's name."),
    click.option("-p", "--predeclared", is_flag=True, help="Declare and delete nothing."),
    click.option("-i", "--interval", type=ABOVE_ZERO, default=1.0, show_default=True, help="Seconds between lines."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end."),
]  # fmt: skip


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command(context_settings={"help_option_names": ["-?", "--help"], "show_default": False})
@_with_options
@click.version_option(__version__, "-v", "--version", message=VERSION)
def main(url: str | None, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - whatever click found
    """Put a load on a queue and measure it. Counts are for each process; without -z, -C and -D it runs until Ctrl-C.

    Latency is taken from the time at which a message was due to be published (-r), so that stalls are not hidden;
    without a rate, from the time at which it was published.
    """
    plan = plan_of(options)
    out = sys.stderr if as_json else sys.stdout
    click.echo(report.settings_line(plan), file=out)
    result = _run(plan, url, out)
    if as_json:
        click.echo(json.dumps(result.facts()))
    else:
        report.show_result(result, out)


def plan_of(options: dict[str, Any]) -> Plan:
    """Return the plan that options ask for. Raises click.UsageError."""
    flags = options.pop("flags")
    options["persistent"], options["mandatory"] = "persistent" in flags, "mandatory" in flags
    options["measure_latency"] = not options.pop("no_latency")
    options["consumer_latency"] *= MICROSECOND
    try:
        return Plan(**options)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from error


def _run(plan: Plan, url: str | None, out: IO[str]) -> Result:
    try:
        with nullcontext(url) if url else local() as broker:
            return run(plan, broker, lambda line: click.echo(report.interval_line(line), file=out))
    except SessionError as error:
        _fail(error, DOWN)
    except InvalidArgument as error:
        _fail(error, USAGE if error.argument == "url" else FAILED)
    except (ShmqError, WorkerFailed) as error:
        _fail(error, FAILED)


def _fail(error: Exception, code: int) -> NoReturn:
    click.echo(f"shmq-perf: {' '.join(str(error).split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
