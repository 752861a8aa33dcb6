"""shmq.shm: what is said of the file system of shared memory."""

import os
import re

import pytest

from shmq import shm


def test_its_size_and_what_is_free_are_told() -> None:
    assert re.fullmatch(r" \(/dev/shm has \d+ MiB, \d+ MiB free\)", shm.figures())


def test_one_that_is_not_there_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> os.statvfs_result:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "statvfs", missing)  # as in a container without it

    assert shm.figures() == " (/dev/shm can't be read)"
