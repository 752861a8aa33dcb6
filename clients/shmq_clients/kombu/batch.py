"""Several publishes of one producer that go together (`kombu.Producer.batch`, Kombu 5.7).

Owns: what is buffered, and which of it can go in one call: what differs in its bodies alone. Does not own: publishing.
Invariants: in order; a batch that failed, or was discarded, takes nothing more.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any, Final, NamedTuple, Protocol

from kombu import exceptions

from shmq_clients.kombu.message import Prepared

FAILURE: Final[type[Exception]] = getattr(exceptions, "BatchPublishError", exceptions.OperationalError)


class Publishes(Protocol):
    """The channel."""

    basic_publish: Callable[..., None]

    def publish_together(self, messages: list[Prepared], how: dict[str, Any]) -> None:
        """Publish messages that differ in their bodies alone."""


class Waiting(NamedTuple):
    """A publish that was put off."""

    message: Prepared
    how: dict[str, Any]

    @property
    def kind(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What must be equal for two of them to go together."""
        return self.message.keywords, self.how


class PublishBatch:
    """Of one channel, `max_size` messages at most at a time."""

    def __init__(self, channel: Publishes, max_size: int) -> None:
        self.channel = channel
        self.max_size = max_size
        self._waiting: list[Waiting] = []
        self._over = ""  # why nothing more is taken

    def publish(self, message: Prepared, **how: Any) -> None:  # noqa: ANN401 - of `basic_publish`
        """Put it to the others; all go when there are enough."""
        self._check()
        self._waiting.append(Waiting(message, how))
        if len(self._waiting) >= self.max_size:
            self.flush()

    def flush(self) -> None:
        """Publish all. Raises BatchPublishError: those before the one that failed are published."""
        self._check()
        waiting, self._waiting = self._waiting, []
        try:
            for _, group in groupby(waiting, key=lambda one: one.kind):
                together = list(group)
                self.channel.publish_together([one.message for one in together], together[0].how)
        except Exception as error:  # of whatever kind: Kombu knows it by one class
            self._over = "failed"
            raise FAILURE(f"the batch was not published, or not all of it: {error}") from error
        except BaseException:  # interrupted, or a greenlet's timeout
            self._over = "failed"
            raise

    def discard(self) -> None:
        """Forget what was not published."""
        self._waiting.clear()
        self._over = "was discarded"

    def close(self) -> None:
        """The end; what was not flushed is not published."""
        self._waiting.clear()
        self._over = self._over or "is closed"

    def _check(self) -> None:
        if self._over == "failed":
            raise FAILURE("this batch failed before and can't be used again")
        if self._over:
            raise RuntimeError(f"this batch {self._over}")
