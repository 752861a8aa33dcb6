"""What people see of a run: a line each second, and a table at the end.

Owns: words and columns. Does not own: the figures (result.py).
"""

from typing import IO, Final

from rich.console import Console
from rich.table import Table

from shmq_clients.perf.plan import Mix, Plan
from shmq_clients.perf.result import Interval, Result

LIVE_PERCENTILES: Final = ("p50", "p95", "p99", "max")


def settings_line(plan: Plan) -> str:
    """Return what the run is, in a line."""
    parts = [
        f"{_counted(plan.producers, 'producer')}, {_counted(plan.consumers, 'consumer')}",
        f"bodies {_mix(plan.sizes)} bytes",
        f"mode {plan.mode}",
        "no acks" if plan.auto_ack else f"acks by {max(plan.ack_every, plan.batch)}",
        f"prefetch {plan.prefetch or 'any'}",
    ]
    if plan.highest_priority:
        parts.append(f"priorities {_mix(plan.priorities)}")
    if plan.batch > 1:
        parts.append(f"batches of {plan.batch}")
    if plan.rate is not None:
        parts.append(f"{plan.rate:g} messages a second each")
    elif plan.measure_latency:
        parts.append("as fast as it goes: latencies are those of the backlog (-r for a steady rate)")
    if plan.zero_copy:
        parts.append("loan and view")
    return "; ".join(parts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _mix(mix: Mix) -> str:
    return ", ".join(f"{value}:{weight}" if len(mix) > 1 else f"{value}" for value, weight in mix)


def interval_line(line: Interval) -> str:
    """Return one second as a line."""
    text = f"{line.time:8.3f} s  published {line.published_per_s:>11,.0f}/s  consumed {line.consumed_per_s:>11,.0f}/s"
    if not line.latency_us:
        return text
    latencies = " ".join(f"{name} {line.latency_us[name]:,.1f}" for name in LIVE_PERCENTILES)
    return f"{text}  latency us: {latencies}"


def show_result(result: Result, file: IO[str]) -> None:
    """Print the table at the end."""
    console = Console(file=file, highlight=False)
    table = Table("", "messages", "per second", title=f"{result.seconds:,.3f} s", title_justify="left")
    table.add_row("published", f"{result.published:,}", f"{result.published_per_s:,.0f}")
    table.add_row("consumed", f"{result.consumed:,}", f"{result.consumed_per_s:,.0f}")
    table.add_row("", "", f"{result.consumed_mib_per_s:,.1f} MiB/s")
    console.print(table)
    if result.latency_us:
        latencies = Table("latency, us", "", title_justify="left")
        for name, value in result.latency_us.items():
            latencies.add_row(name.replace("_", "."), f"{value:,.1f}")
        console.print(latencies)
