"""Kombu's own integration tests, for the transport that the environment names: a pytest run of its own.

SDIST: the unpacked source distribution. URL, DEAD_URL: a broker, and where none is.
"""

import os
import sys
from typing import Any

import kombu
import pytest

import shmq_clients.kombu  # noqa: F401 - sets the alias

sys.path.insert(0, os.environ["SDIST"])
from t.integration import common, test_py_amqp  # type: ignore[import-not-found] # unpacked for this run


@pytest.fixture
def connection() -> Any:
    return kombu.Connection(os.environ["URL"])


@pytest.fixture
def failover_connection() -> Any:
    return kombu.Connection(f"{os.environ['DEAD_URL']};{os.environ['URL']}")


@pytest.fixture
def invalid_connection() -> Any:
    return kombu.Connection(os.environ["DEAD_URL"])


@pytest.fixture
def confirm_publish_connection() -> Any:
    return kombu.Connection(os.environ["URL"], transport_options={"confirm_publish": True})


for name in ("ConnectionPool", "ConsumerRevive"):  # of the file for py-amqp; the second breaks the socket in use
    if hasattr(test_py_amqp, f"test_PyAMQP{name}"):
        globals()[f"Test{name}"] = type(f"Test{name}", (getattr(test_py_amqp, f"test_PyAMQP{name}"),), {})

for name, mixin in list(vars(common).items()):
    if isinstance(mixin, type) and mixin.__module__ == common.__name__:
        globals()[f"Test{name}"] = type(f"Test{name}", (mixin,), {})
