"""What the worker processes do: take, compute, hand on, ack; in this order, so that a death at any point loses nothing.

A worker that dies between handing on and ack causes a duplicate; whoever collects the results drops it by its id.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

import shmq

from . import vision
from .topology import RESULT, RESULTS, array_of, array_to

BATCH = 8  # tiles whose features are computed together


def decode(conn: shmq.Connection) -> None:
    """Image files to pixels. A corrupt file is rejected, comes again, and after the delivery limit is a dead letter."""
    for message in conn.consume("decode", prefetch=4):
        taken_ns = time.monotonic_ns()
        try:
            pixels = vision.decode(message.body)
        except OSError:
            message.reject(requeue=True)
            continue
        with array_to(conn, "resize", message, taken_ns, shape=pixels.shape, dtype=pixels.dtype) as out:
            out[:] = pixels
        message.ack()


def resize(conn: shmq.Connection) -> None:
    """Pixels to pixels of one size, read from shared memory and written to shared memory."""
    for message in conn.consume("resize", prefetch=4):
        taken_ns = time.monotonic_ns()
        resized = vision.resize(array_of(message))
        with array_to(conn, "features", message, taken_ns, shape=resized.shape, dtype=np.uint8) as out:
            np.rint(resized, out=out, casting="unsafe")
        message.ack()


def features(conn: shmq.Connection) -> None:
    """Pixels to features and a thumbnail, in batches."""
    while True:
        batch = conn.get_batch("features", max_messages=BATCH, max_wait=0.1)
        if not batch:
            continue
        taken_ns = time.monotonic_ns()
        tiles = np.stack([array_of(message) for message in batch])
        for message, tile, values in zip(batch, tiles, vision.extract_features(tiles), strict=True):
            with array_to(conn, RESULTS, message, taken_ns, shape=(), dtype=RESULT) as result:
                result["features"] = values
                result["thumbnail"] = vision.thumbnail(tile)
        conn.ack_many(batch)


WORK: dict[str, Callable[[shmq.Connection], None]] = {"decode": decode, "resize": resize, "features": features}


def work(url: str, stage: str) -> None:
    """Be a worker of `stage` until told to end: the body of a worker process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends us
    threading.Thread(target=end_with_parent, daemon=True).start()
    with shmq.connect(url) as conn:
        WORK[stage](conn)


def end_with_parent() -> None:
    """End this process at once when the main process is gone, however it went; what is unacked is redelivered."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
