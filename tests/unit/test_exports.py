"""shmq: its public names are a list, and the daemon does not load the client through it."""

import subprocess
import sys

import pytest

import shmq
from shmq import errors

CLIENT = {"AsyncConnection", "Connection", "connect", "connect_async", "local"}
TYPES = {"AsyncMessage", "Headers", "Message", "Properties", "Sender"}


def test_the_public_names_are_the_client_the_types_and_all_errors() -> None:
    names = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == "shmq.errors"
    }

    assert set(shmq.__all__) == names | CLIENT | TYPES | {"__version__"}
    assert dir(shmq) == sorted(shmq.__all__)


@pytest.mark.parametrize("name", shmq.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(shmq, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'subscribe'"):
        shmq.subscribe  # type: ignore[attr-defined] # noqa: B018 - as an application might


def test_importing_the_package_and_the_wire_loads_neither_the_client_nor_the_daemon() -> None:
    program = (
        "import sys, shmq, shmq.wire.connection;"
        "print(*[name for name in sys.modules if name.startswith(('shmq_clients', 'shmq_daemon', 'shmq.core'))])"
    )

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout == "\n"
