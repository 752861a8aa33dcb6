"""Direct replies (RabbitMQ's direct reply-to): the queue beneath, one for each channel that consumes them.

Owns: making it and finding it again. Does not own: its consumer (consuming.py), which takes it along when it goes.
Invariants: it is exclusive, so it goes with its connection; its name can't be guessed, so who answers was asked; it is
in no listing.
"""

import secrets
from collections.abc import Callable

from shmq.definitions import QueueDefinition
from shmq.errors import PreconditionFailed
from shmq.names import REPLY_PREFIX, REPLY_TO
from shmq.wire.frames import Consume
from shmq_daemon.catalog import Catalog
from shmq_daemon.clients import Client
from shmq_daemon.opened import OpenQueue

Declare = Callable[[Client, QueueDefinition], OpenQueue]


def is_for_replies(queue: str) -> bool:
    """Whether this is one, by its name."""
    return queue.startswith(REPLY_PREFIX)


class Replies:
    """Of all clients. `declare` makes a queue, within the limits of its uid."""

    def __init__(self, catalog: Catalog, declare: Declare) -> None:
        self._catalog = catalog
        self._declare = declare

    def asked_for(self, client: Client, frame: Consume) -> OpenQueue | None:
        """Return the queue for a consumer of direct replies; None for another one. Raises PreconditionFailed."""
        if frame.queue != REPLY_TO:
            return None
        if not frame.no_ack:
            raise PreconditionFailed(f"replies on {REPLY_TO} need no ack: consume with no_ack")
        prefix = f"{REPLY_PREFIX}{frame.channel}."
        mine = (queue for queue in self._catalog.topology.exclusive_to(client.connection_id))
        known = next((queue.name for queue in mine if queue.name.startswith(prefix)), None)
        if known is None:
            definition = QueueDefinition(prefix + secrets.token_urlsafe(16), exclusive=True)
            return self._declare(client, definition)
        opened = self._catalog.opened(known, client.connection_id)
        if opened.consumers:
            raise PreconditionFailed(f"channel {frame.channel} has a consumer of {REPLY_TO} already")
        return opened
