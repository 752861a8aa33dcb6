"""What `broker_transport_options` may say to this transport.

Owns: the names, defaults and bounds. What else stands there is Kombu's and Celery's (retry policies, other transports')
and is not ours to refuse.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from shmq.errors import InvalidArgument
from shmq_clients.asked import check_mode
from shmq_clients.durations import SECOND_NS, nanoseconds
from shmq_clients.kombu.eta import LEAD
from shmq_clients.link import RECONNECT_TIMEOUT
from shmq_clients.outgoing import Confirm
from shmq_clients.session import Mode

PUBLISH_TIMEOUT: Final = 30.0


class Options(NamedTuple):
    """Checked. `confirm`: what a publish waits for."""

    mode: Mode
    confirm: Confirm | None
    eta_lead: float | None  # seconds; None: tasks with an ETA are not held
    reconnect_timeout: (
        float | None
    )  # seconds to wait for the daemon, when it is gone, before Kombu is told; None: for ever
    publish_timeout: float  # seconds to wait for room in a full queue
    strict_declare: bool  # a redeclare with other arguments is an error, as RabbitMQ has it


def options_of(given: Mapping[str, Any] | None) -> Options:
    """Read them. Raises InvalidArgument."""
    given = given or {}
    mode = given.get("mode", "auto")
    check_mode(mode)
    lead, patience = given.get("eta_lead", LEAD), given.get("reconnect_timeout", RECONNECT_TIMEOUT)
    return Options(
        mode=mode,
        confirm="memory" if _flag(given, "confirm_publish", default=True) else None,
        eta_lead=None if lead is None else _seconds(lead, "eta_lead"),
        reconnect_timeout=None if patience is None else _seconds(patience, "reconnect_timeout"),
        publish_timeout=_seconds(given.get("publish_timeout", PUBLISH_TIMEOUT), "publish_timeout"),
        strict_declare=_flag(given, "strict_declare", default=False),
    )


def _seconds(value: float, argument: str) -> float:
    return nanoseconds(value, argument) / SECOND_NS


def _flag(given: Mapping[str, Any], argument: str, *, default: bool) -> bool:
    value = given.get(argument, default)
    if not isinstance(value, bool):
        raise InvalidArgument(argument=argument, value=value, allowed="true or false")
    return value
