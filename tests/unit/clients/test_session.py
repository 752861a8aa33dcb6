"""shmq_clients.session: what came with the welcome is one owner's, whoever ends the session meanwhile."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shmq.wire.frames import Welcome
from shmq_clients.session import Session


def welcomed(descriptors: tuple[int, ...]) -> Session:
    session = Session.__new__(Session)
    session._lock = threading.Lock()
    wire: Any = type("Wire", (), {"take_descriptors": lambda _self: descriptors})()
    session.stream = type("Stream", (), {"wire": wire})()  # all that a welcome looks at
    session._on_welcome(Welcome(1, 1, "1", "i", "c", bytes(16), 32, descriptors=len(descriptors)))
    return session


def test_the_descriptors_of_a_welcome_are_taken_once() -> None:
    pipe = os.pipe()
    for _ in range(50):
        session, start = welcomed(pipe), threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            taken = [pool.submit(lambda: (start.wait(), session.take_descriptors())[1]) for _ in range(4)]  # noqa: B023 - of this turn

        assert sorted(one.result() for one in taken) == [(), (), (), pipe]
    for descriptor in pipe:
        os.close(descriptor)
