"""The queues of the pipeline and how arrays travel on them.

decode -> resize -> features -> results; what fails too often in any of them goes to the dead letters. An array is the
body of a message; its shape and dtype are headers, so that the receiver can look at it where it lies.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

import shmq

from .vision import FEATURES, SIDE

STAGES = ("decode", "resize", "features")
RESULTS = "results"
DEAD_EXCHANGE = DEAD_LETTERS = "dead-letters"
URGENT_PRIORITY = 9
DELIVERY_LIMIT = 3  # failures after which a message is given up
# Small between the stages: a fast stage waits for a slow one, so tiles wait where priority reorders them.
CAPACITY = {"decode": 10_000, "resize": 32, "features": 32, "results": 10_000}

RESULT = np.dtype([("features", np.float32, FEATURES), ("thumbnail", np.uint8, (SIDE // 2, SIDE // 2, 3))])


@contextmanager
def declared(conn: shmq.Connection) -> Iterator[None]:
    """Have the exchange and the queues while the context lasts; what an earlier run left is removed first."""
    remove(conn)
    conn.declare_exchange(DEAD_EXCHANGE, "direct")
    conn.declare_queue(DEAD_LETTERS)
    for queue in (*STAGES, RESULTS):
        conn.declare_queue(
            queue,
            max_priority=URGENT_PRIORITY,
            capacity_messages=CAPACITY[queue],
            delivery_limit=DELIVERY_LIMIT,
            dead_letter_exchange=DEAD_EXCHANGE,
        )
        conn.bind_queue(DEAD_LETTERS, DEAD_EXCHANGE, routing_key=queue)
    try:
        yield
    finally:
        remove(conn)


def remove(conn: shmq.Connection) -> None:
    """Delete the queues and the exchange, with what is left in them."""
    for queue in (*STAGES, RESULTS, DEAD_LETTERS):
        with suppress(shmq.NotFound):
            conn.delete_queue(queue)
    with suppress(shmq.NotFound):
        conn.delete_exchange(DEAD_EXCHANGE)


def array_of(message: shmq.Message) -> npt.NDArray[Any]:
    """Return the array in a message, in place and read-only; it stays valid after the ack, as long as it is used."""
    headers = message.headers
    return np.ndarray(headers["shape"], headers["dtype"], buffer=message.view())


@contextmanager
def array_to(
    conn: shmq.Connection,
    queue: str,
    source: shmq.Message,
    taken_ns: int,
    *,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
) -> Iterator[npt.NDArray[Any]]:
    """Yield an array in shared memory to be filled; on exit it is published, with the identity of `source`.

    `taken_ns` is when `source` was taken, by the monotonic clock. On an exception nothing is published.
    """
    array_type = np.dtype(dtype)
    headers = carried_on(source, taken_ns) | {"shape": shape, "dtype": array_type.str}
    body_bytes = array_type.itemsize * math.prod(shape)
    with conn.loan(body_bytes, routing_key=queue, headers=headers, priority=source.priority) as buffer:
        yield np.ndarray(shape, array_type, buffer=buffer)


def first_headers(tile_id: str) -> dict[str, Any]:
    """Return the headers with which a tile enters the pipeline."""
    return {"tile_id": tile_id, "redelivered": False, "sent_ns": time.monotonic_ns(), "trail": {}}


def carried_on(source: shmq.Message, taken_ns: int) -> dict[str, Any]:
    """Return the headers that a tile has behind the stage that took it as `source`.

    `trail` has (waited, worked) in nanoseconds for each stage, `redelivered` says whether any stage got the tile again.
    """
    before, now_ns = source.headers, time.monotonic_ns()
    durations = [taken_ns - before["sent_ns"], now_ns - taken_ns]
    return {
        "tile_id": before["tile_id"],
        "redelivered": before["redelivered"] or source.redelivered,
        "sent_ns": now_ns,
        "trail": before["trail"] | {source.routing_key: durations},
    }
