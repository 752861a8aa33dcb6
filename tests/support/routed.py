"""Publishing through exchanges and looking what came, for tests of where messages go."""

from typing import Any

import shmq


def bodies(conn: shmq.Connection, queue: str) -> list[bytes]:
    """Take all that is ready in a queue."""
    return [message.body for message in conn.get_batch(queue, no_ack=True)]


def publish(conn: shmq.Connection, exchange: str, key: str = "", body: bytes = b"x", **keywords: Any) -> None:
    """Publish and wait until every queue has it."""
    conn.publish(body, exchange=exchange, routing_key=key, confirm="memory", **keywords)
