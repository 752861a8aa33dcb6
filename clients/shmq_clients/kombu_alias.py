"""The name `shmq` for Kombu: with this module imported, `shmq://` finds the transport.

Owns: the alias, and the serializer whose entry point (group `kombu.serializers`) has Kombu import this module by itself
before its first connection. Does not own: the transport, which is loaded by whoever connects.
Invariants: opens nothing and loads nothing of ours, because every program that uses Kombu imports this.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from kombu.transport import TRANSPORT_ALIASES

Serializer: TypeAlias = tuple[Callable[[Any], bytes], Callable[[bytes], bytes], str, str]

TRANSPORT_ALIASES["shmq"] = "shmq_clients.kombu:Transport"


def _encode(body: Any) -> bytes:  # noqa: ANN401 - any buffer
    """Take a body that is bytes already. Raises TypeError for what is none."""
    return bytes(memoryview(body))


SERIALIZER: Final[Serializer] = (_encode, bytes, "application/x-shmq-raw", "binary")
"""Of bytes, as they are: no text, no base64. Its name is `shmq-raw`."""
