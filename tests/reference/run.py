"""One case at one broker."""

from reference.driver import Broker
from reference.record import Case, Saw


def seen(case: Case, broker: Broker) -> dict[str, str]:
    """Run the case, close the broker's connections, and return what it saw."""
    saw = Saw()
    try:
        case(broker, saw)
    finally:
        broker.close()
    return saw.values
