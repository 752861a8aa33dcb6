"""What a name may be: queues, exchanges, consumer tags; routing keys.

Rules: 1 to 255 bytes of UTF-8 without control characters (AMQP 0-9-1's shortstr, made printable); a routing key may be
empty and may hold any character. Who may use which name is not decided here.
"""

import re
from typing import Final

from shmq.errors import AccessRefused, InvalidName
from shmq.limits import NAME_BYTES_MAX

GENERATED_PREFIX: Final = "amq.gen-"  # names the broker makes when asked for none
RESERVED_PREFIX: Final = "amq."
REPLY_TO: Final = "amq.rabbitmq.reply-to"  # everybody's own; who was told the rest of the name may answer there
REPLY_PREFIX: Final = REPLY_TO + "."

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_NAME_ALLOWED: Final = f"1 to {NAME_BYTES_MAX} bytes of UTF-8 without control characters"
_KEY_ALLOWED: Final = f"at most {NAME_BYTES_MAX} bytes of UTF-8"


def check_name(name: str, argument: str = "name") -> str:
    """Return the name, or raise InvalidName that names the argument."""
    if not _is_utf8_up_to_limit(name) or not name or _CONTROL.search(name):
        raise InvalidName(argument=argument, value=name, allowed=_NAME_ALLOWED)
    return name


def check_exchange_name(name: str, argument: str = "exchange") -> str:
    """Return the name of an exchange to declare, delete or bind, or raise InvalidName; AccessRefused for the default
    exchange (AMQP 0-9-1, exchange.declare and queue.bind as RabbitMQ refuses them).
    """
    if name == "":
        reason = "every queue is bound to it by its name; it can't be declared, deleted or bound"
        raise AccessRefused(f"the default exchange: {reason}", what="the default exchange", reason=reason)
    return check_name(name, argument)


def check_routing_key(routing_key: str, argument: str = "routing_key") -> str:
    """Return the routing key, or raise InvalidName."""
    if not _is_utf8_up_to_limit(routing_key):
        raise InvalidName(argument=argument, value=routing_key, allowed=_KEY_ALLOWED)
    return routing_key


def _is_utf8_up_to_limit(name: object) -> bool:
    if not isinstance(name, str) or len(name) > NAME_BYTES_MAX:
        return False
    if name.isascii():
        return True
    try:
        return len(name.encode()) <= NAME_BYTES_MAX
    except UnicodeEncodeError:  # half a surrogate pair
        return False
