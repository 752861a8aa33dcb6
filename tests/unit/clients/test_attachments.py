"""shmq_clients.attachments: a segment is worked in with the client index of the session that gave it, or not at all."""

import os
from types import SimpleNamespace
from typing import Any

from shmq.core import LAYOUT
from shmq.definitions import QueueDefinition
from shmq.wire.frames import Attached, Welcome
from shmq_clients.attachments import Attachments
from shmq_clients.link import Reply
from support.segments import QUEUE_ID, Segment, segment


def new_session(client_index: int) -> Any:
    welcome = Welcome(1, LAYOUT, "1", "instance", f"{client_index:016x}", b"s" * 16, client_index, direct=True)
    return SimpleNamespace(welcome=welcome, take_descriptors=tuple)


class Link:
    """Answers in `session`; then `behind` happens, and only after that does who asked go on."""

    closed = False

    def __init__(self, made: Segment) -> None:
        self.made = made
        self.session = new_session(32)
        self.behind: list[Any] = []
        self.marked: list[int] = []  # the broker's: who was given the segment

    def check(self) -> None: ...

    def request(self, _make: object, **_how: object) -> Reply:
        session, made = self.session, self.made
        self.marked.append(session.welcome.client_index)
        attached = Attached(1, QueueDefinition("q"), QUEUE_ID, made.geometry, 0, -1, -1)
        reply = Reply(attached, tuple(map(os.dup, (made.fd, *made.bells[:2]))), session)
        for happen in self.behind:
            happen()
        self.behind.clear()
        return reply


def test_a_segment_that_came_before_another_index_is_asked_for_again() -> None:
    def begin_anew() -> None:
        link.session = new_session(33)
        attachments.on_welcome(link.session, link.session.welcome)

    with segment() as made:
        link: Any = Link(made)
        attachments = Attachments(link)
        attachments.on_welcome(link.session, link.session.welcome)
        link.behind.append(begin_anew)
        attachment = attachments.attach("q")

        assert attachment.queue.owner == link.marked[-1] == 33
        assert attachments.is_current(attachment)
        attachments.close()
