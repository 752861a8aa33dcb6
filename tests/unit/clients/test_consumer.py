"""shmq_clients.consumer: what a direct consumer does when it is stopped, whenever that is."""

from typing import Any

from shmq.wire.frames import Consume
from shmq_clients.consumer import DirectConsumer
from support.segments import Segment, segment


class Attached:
    """An attachment; `on_use` is called when its queue is asked for."""

    name = "jobs"

    def __init__(self, made: Segment, owner: int) -> None:
        self._queue = made.attach(owner)
        self.on_use: Any = None

    @property
    def queue(self) -> Any:
        if self.on_use is not None:
            self.on_use()
        return self._queue


class Attachments:
    """Attached anew, as after a broker's death, whenever somebody waits."""

    def __init__(self, link: Any, new: Attached) -> None:
        self.link = link
        self._new = new

    def wait(self, *_arguments: Any) -> None: ...

    def refreshed(self, _attachment: Any) -> Attached:
        return self._new


class Link:
    def check(self) -> None: ...


def test_a_consumer_stopped_while_its_queue_is_attached_anew_takes_nothing_more() -> None:
    with segment() as made:
        old, new = Attached(made, 32), Attached(made, 33)
        attachments: Any = Attachments(Link(), new)
        consumer = DirectConsumer(Consume(0, "jobs", "tag"), attachments, old, keep=None)  # type: ignore[arg-type] # what it needs of one
        new.on_use = consumer.stop
        consumer._wait_for_messages()
        made.attach(34).publish(b"too late")
        consumer._cancelled = True

        assert list(consumer) == []
