"""shmq.errors: the tree at the top of the file is the truth, and every text says what was wrong and what to do."""

import builtins
import copy
import pickle
import re

import pytest

from shmq import errors
from shmq.errors import ShmqError

TEXTS = {
    errors.DaemonNotRunning(
        paths=["/run/shmq/shmq.sock"]
    ): "nothing answers on /run/shmq/shmq.sock. Start it: systemctl",
    errors.DaemonNotRunning(paths=["/run/x"], lost="shmqd stops", after=60.2): (
        "shmqd is gone: the session ended (shmqd stops), and for 60 s nothing answers on /run/x. Start it"
    ),
    errors.NotShmqd(path="/tmp/x"): "what answers on /tmp/x is not shmqd. Check the URL",
    errors.ProtocolMismatch(ours=1, theirs=2): "we speak protocol 1, the peer 2. Install the same version",
    errors.LayoutMismatch(ours=1, theirs=2): "we read segment layout 1, found 2. Use the version",
    errors.AlreadyRunning(path="/var/lib/shmq", pid=7): "another shmqd (pid 7) already uses /var/lib/shmq. Stop it",
    errors.ConnectionLost(path="/run/x", reason="end of file"): "lost the connection to shmqd on /run/x: end of file.",
    errors.ConnectionLost(path="/run/x", reason="its owner has let it go", gone=True): (
        "shmqd on /run/x has ended for good, with its queues: its owner has let it go. Start another one"
    ),
    errors.StaleDelivery(): "This delivery is no longer ours: its message went back to the queue",
    errors.OperationTimeout(
        operation="declare_queue", timeout=5.0
    ): "no answer to declare_queue within 5 s: shmqd is stopped, or has too much to do. See its log",
    errors.OperationTimeout(
        timeout=1e-320
    ): "no answer to the request within 9.99989e-321 s, which is shorter than one",
    errors.FrameTooLarge(size=10, limit=5): "a frame of 10 bytes, allowed are 5",
    errors.AccessRefused(what="queue 'a'", reason="uid 7"): "access to queue 'a' refused: uid 7. Run as",
    errors.NotFound(name="a\nb"): "no queue 'a\\nb'. Declare it first (declare_queue)",
    errors.NotFound(kind="exchange", name="a"): "no exchange 'a'. Declare it first (declare_exchange)",
    errors.ResourceLocked(queue="a"): "queue 'a' is exclusive to another connection. Use another name",
    errors.PreconditionFailed(name="a", argument="durable", declared=True, asked=False): (
        "queue 'a' has durable = True, asked for False. Ask for the same, or delete the queue first"
    ),
    errors.InvalidArgument(argument="priority", value=300, allowed="0 to 255"): (
        "priority = 300 can't be used; allowed: 0 to 255"
    ),
    errors.BodyTooLarge(size=9, limit=5, queue="a"): "a body of 9 bytes, the limit in queue 'a' is 5. Declare it with",
    errors.Unroutable(exchange="images", routing_key="a"): "exchange 'images' routes 'a' to no queue. Bind one",
    errors.Unroutable(routing_key="a"): "the default exchange routes 'a' to no queue",
    errors.QueueFull(
        queue="a", depth=5, limit=5, timeout=1.5
    ): "queue 'a' is full after 1.5 s: 5 of 5 messages. Consume",
    errors.QueueStopped(queue="a", depth=12 << 20, limit=8 << 20, timeout=1.5, unit="bytes", mark=1 << 30): (
        "queue 'a' may not grow after 1.5 s: it has 12.0 MiB of shared memory, its fair share is 8.0 MiB while"
        " all queues are above their mark of 1024.0 MiB (memory_watermark). Consume"
    ),
    errors.ShmFull(): "no shared memory left (/dev/shm has ",
    errors.QueueFull(depth=5, limit=5): "a queue that it was routed to is full: 5 of 5 messages. Consume",
    errors.ShmFull(queue="a"): "queue 'a' can't grow: no shared memory left (/dev/shm has ",
    errors.ShmFull("while declaring 'a'"): "while declaring 'a' (/dev/shm has ",
    errors.PublishRejected(queues=["a", "b"], reason="policy"): "refused by 'a', 'b' (policy). Other queues",
    errors.NotDurable(): 'confirm="disk" can\'t be kept: this shmqd has durability "memory"',
    errors.DirectRefused(reason="no direct pattern"): "direct mode refused: no direct pattern. Connect with",
    errors.DirectRefused(queue="a", reason="not mapped"): "direct mode refused for 'a': not mapped. Connect with",
    errors.ConfigError(file="a.toml", line=3, key="socket", hint="a path"): "a.toml:3: socket: a path",
}
RAISED_BY_THE_CORE = (
    "AlreadySettled BodyReleased DetachedQueue ForkedHandle LayoutMismatch ShmFull StaleDelivery ViewsInUse"
)


def tree(root: type[ShmqError] = ShmqError) -> list[type[ShmqError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in tree(child))]


@pytest.mark.parametrize("error", TEXTS, ids=lambda error: type(error).__name__)
def test_a_text_says_what_was_wrong_and_what_to_do(error: ShmqError) -> None:
    assert TEXTS[error] in str(error)


def test_a_full_dev_shm_names_its_size_and_dockers_option() -> None:
    assert re.search(r"/dev/shm has \d+ MiB, \d+ MiB free\).*--shm-size", str(errors.ShmFull("x")))


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_every_error_can_be_made_from_one_text_or_from_nothing(cls: type[ShmqError]) -> None:
    assert str(cls("a text with /dev/shm in it")) == "a text with /dev/shm in it"
    assert str(cls())


@pytest.mark.parametrize("name", RAISED_BY_THE_CORE.split())
def test_what_the_core_raises_exists(name: str) -> None:
    assert issubclass(getattr(errors, name), ShmqError)


def test_no_name_is_a_builtins_and_all_have_one_root() -> None:
    assert [cls.__name__ for cls in tree() if hasattr(builtins, cls.__name__)] == []


def test_the_tree_at_the_top_of_the_file_is_complete_and_has_the_codes() -> None:
    page = (errors.__doc__ or "").partition("The number")[0]
    shown = dict(re.findall(r"(\w+)(?: +(\d{3}))?", page))
    codes = {cls.__name__: str(cls.code) for cls in tree() if "code" in vars(cls) and cls.code}

    assert {cls.__name__ for cls in tree()} - shown.keys() == set()
    assert {name: shown[name] for name in codes} == codes


def test_no_two_classes_have_one_code_and_what_ends_a_session_is_marked() -> None:
    own = [cls for cls in tree() if "code" in vars(cls) and cls.code]
    marked = set(re.findall(r"(\w+) +\d{3} x", errors.__doc__ or ""))

    assert len({cls.code for cls in own}) == len(own)
    assert {cls.__name__ for cls in own if cls.ends_session} == marked


def test_an_error_survives_pickling_and_copying() -> None:
    error = errors.QueueFull(queue="jobs", depth=5, limit=5)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), twin.data(), str(twin)) == (errors.QueueFull, error.data(), str(error))


def test_data_are_what_was_given_without_the_text() -> None:
    assert errors.QueueFull("full", queue="jobs", depth=5).data() == {"queue": "jobs", "depth": 5}


def test_errors_can_be_raised_with_a_cause_and_caught_by_their_family() -> None:
    with pytest.raises(errors.PreconditionFailed) as caught:
        raise errors.StaleDelivery from ValueError("cause")

    assert isinstance(caught.value.__cause__, ValueError)
