"""The stub and the extension say the same: names, members, parameters; nothing leaks."""

import ast
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shmq import core
from shmq.core import _core
from support.segments import Segment, segment

STUB = ast.parse(Path(core.__file__).with_name("_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
OF_OBJECT = set(dir(object)) | {"__class_getitem__"}
BY_BUFFER = {"__buffer__", "__release_buffer__"}  # from 3.12 on


def names_of(body: list[ast.stmt]) -> set[str]:
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return names | {
        node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_the_module_has_the_names_of_the_stub_and_no_others() -> None:
    assert names_of(STUB.body) == {name for name in vars(_core) if not name.startswith("__")}
    assert set(core.__all__) | {"GeometryTuple"} == names_of(STUB.body)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_class_has_the_members_of_the_stub_and_no_others(name: str) -> None:
    stubbed = names_of(CLASSES[name].body)
    real = set(dir(getattr(_core, name)))

    assert stubbed - OF_OBJECT - BY_BUFFER <= real
    assert real - OF_OBJECT - {"__iter__", "__weakref__"} <= stubbed | BY_BUFFER


def test_keywords_of_the_stub_are_taken(queue: core.Queue) -> None:
    queue.publish(body=b"", level=0, envelope=b"", ttl_ns=-1, delay_ns=0, flags=0)
    queue.publish_many(bodies=[], start=0, level=0, envelope=b"", ttl_ns=-1, delay_ns=0, flags=0)
    queue.loan(body_bytes=1, level=0, envelope=b"", ttl_ns=-1, delay_ns=0, flags=0)
    queue.take(no_ack=False)
    queue.take_many(max_messages=1, no_ack=True)
    queue.bell_ring(side=0, tokens=1)
    queue.set_limits(delivery_limit=3)
    queue.purge(before_ns=None)
    queue.reap(owner=1, count_failure=True, lost_session=True)
    queue.reap_except(live=bytes(8192), count_failure=True)
    queue.heal(full=True)
    queue.overdue(timeout_ns=1, now_ns=1)
    core.wait(queues=[queue], side=0, timeout_ns=0, other_fd=-1)


def settle_in_every_way(queue: core.Queue) -> None:
    """Go once through what allocates."""
    for size in (0, 10, 1000, 100_000):
        body = b"x" * size
        queue.publish(body, envelope=b"e")
        queue.publish(memoryview(body))
        queue.publish_many([body, bytearray(body)])
        loan = queue.loan(size)
        assert isinstance(loan, core.Loan)
        with loan as view:
            view[:] = body
        queue.loan(size)
        for message in core.Consumer([queue], 0, no_ack=False, on_empty=lambda: False):
            with message.view(), memoryview(message):
                message.ack()
    queue.publish(b"")
    for message in queue.take_many(2):
        message.nack()
    for message in queue.take_many(2, no_ack=True):
        message.ack()
    with pytest.raises(ValueError, match="flags"):
        queue.publish(b"", flags=-1)
    core.wait([queue], core.CONSUMERS, 0)
    queue.stats(), queue.histogram("ack"), queue.check(), queue.heal(full=True)


def forget_a_queue(small: Segment) -> None:
    """Attach, work and let go."""
    queue = small.attach(40, context=object())
    queue.publish(b"x" * 100_000)
    message = queue.take()
    assert message is not None
    with message.view():
        message.ack()
    small.forget()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_references_are_given_back(queue: core.Queue) -> None:
    context, envelope, body = object(), b"e" * 1000, b"b" * 100_000
    queue.context = context
    before = [sys.getrefcount(thing) for thing in (queue, context, envelope, body, None, core.Message)]

    for _ in range(100):
        queue.publish(body, envelope=envelope)
        for message in core.Consumer([queue], 0, no_ack=False, on_empty=lambda: False):
            message.ack()
        settle_in_every_way(queue)
    del message

    after = [sys.getrefcount(thing) for thing in (queue, context, envelope, body, None, core.Message)]
    assert all(now - then < 20 for then, now in zip(before, after, strict=True))


@pytest.mark.parametrize("work", [lambda small: settle_in_every_way(small._queues[0]), forget_a_queue])
def test_memory_and_descriptors_stay_flat(work: Callable[[Segment], None]) -> None:
    with segment() as small:
        for _ in range(300):
            work(small)
        gc.collect()
        before, descriptors = resident_bytes(), open_descriptors()
        for _ in range(1500):
            work(small)
        gc.collect()

        assert open_descriptors() == descriptors
        assert resident_bytes() - before < 1 << 20
