"""When a task is due: the `eta` of Celery's message protocol 2, which stands in the headers.

Owns: how long the broker keeps such a message, so that no worker has to. Does not own: waiting for the last seconds,
which stays the worker's (it shows them in `inspect scheduled`, and starts on time). A time without a zone is UTC, as
Celery reads it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

LEAD: Final = 10.0  # seconds before it is due


def held_for(headers: Mapping[str, Any] | None, lead: float | None, now: float) -> float:
    """Return the seconds to hold a message back; 0 for one that is due soon, or says nothing that can be read,
    or where no lead is given.
    """
    eta = headers.get("eta") if headers else None
    if lead is None or not isinstance(eta, str):
        return 0.0
    try:
        due = datetime.fromisoformat(eta)
    except ValueError:
        return 0.0
    return max(0.0, (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp() - lead - now)
