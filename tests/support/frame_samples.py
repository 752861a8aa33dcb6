"""One or two samples of every frame: all fields set, and where it differs, all defaults."""

from typing import Final

from shmq.definitions import ExchangeDefinition, QueueDefinition
from shmq.wire import frames
from shmq.wire.fields import Alarm, BindingInfo, Delivery, Frame, Latency, ProcessInfo, QueueInfo, Resume

SECRET: Final = bytes(range(16))
QUEUE: Final = QueueDefinition("jobs", durable=True, max_priority=9, dead_letter_exchange="dead", other={"x-team": "a"})
EXCHANGE: Final = ExchangeDefinition("images", "topic", durable=True, alternate_exchange="rest")
BINDING: Final = BindingInfo("images", "jobs", arguments={"n": 1})
DELIVERY: Final = Delivery(7, 5, 1, 2, 1, 123_456_789_000, 0, b"\x94\xa0\xa4jobs\x80\x80", b"body", (1000, 100, 4711))
INFO: Final = QueueInfo(
    *(QUEUE, 3, 10, 2, 1, 1_000_000, 1 << 30, "direct", "", {"published": 12}),
    time_in_queue=Latency(12, 1_023, 9_215),
    time_to_ack=Latency(10, 511, 767),
)
WELCOME: Final = frames.Welcome(
    1,
    1,
    "0.1.0",
    "00ff",
    "c-1",
    SECRET,
    32,
    "memory",
    resumed=True,
    direct=True,
    words=4,
    descriptors=2,
    sender=(1000, 100, 4711),
)

SAMPLES: Final[dict[str, Frame]] = {
    "Hello": frames.Hello(),
    "Hello/resume": frames.Hello("shmq", 1, 1, "sync", "0.1.0", 4711, "direct", Resume("c-1", SECRET)),
    "Hello/presence": frames.Hello("shmq", 1, 1, "sync", "0.1.0", 4711, presence=14),
    "Goodbye": frames.Goodbye(clean=True),
    "Ping": frames.Ping(1),
    "Status": frames.Status(2),
    "DeclareQueue": frames.DeclareQueue(3, QUEUE),
    "DeclareQueue/passive": frames.DeclareQueue(3, QueueDefinition("jobs"), passive=True),
    "DeleteQueue": frames.DeleteQueue(4, "jobs", if_unused=True, if_empty=True),
    "PurgeQueue": frames.PurgeQueue(5, "jobs"),
    "InspectQueue": frames.InspectQueue(6, "jobs"),
    "ListQueues": frames.ListQueues(7, "jobs", 100),
    "ListExchanges": frames.ListExchanges(7, "images", 100),
    "ListBindings": frames.ListBindings(7),
    "ListBindings/after": frames.ListBindings(7, "images", "jobs", BINDING, 100),
    "DeclareExchange": frames.DeclareExchange(8, EXCHANGE),
    "DeleteExchange": frames.DeleteExchange(9, "images", if_unused=True),
    "BindQueue": frames.BindQueue(10, "jobs", "images", "a.*", {"x-match": "any", "n": 1}),
    "UnbindQueue": frames.UnbindQueue(11, "jobs", "images", "a.*"),
    "BindExchange": frames.BindExchange(10, "rest", "images", "a.#", {"n": 1}),
    "UnbindExchange": frames.UnbindExchange(11, "rest", "images", "a.#"),
    "Attach": frames.Attach(12, "jobs"),
    "RenewBells": frames.RenewBells(13, "jobs"),
    "Detach": frames.Detach(14, "jobs"),
    "Route": frames.Route(15, "images", "a.b"),
    "Route/more": frames.Route(15, "images", "a.b", ["c", "d"]),
    "Publish": frames.Publish(16, "", "jobs", b"", b"body"),
    "Publish/all": frames.Publish(
        0, "images", "a.b", b"\x94\xa6images\xa3a.b\x80\x80", b"body", 9, 1, 1, mandatory=True, ttl_ns=5, delay_ns=6
    ),
    "PublishMany": frames.PublishMany(17, "", "jobs", b"", [b"one", b"", b"three"], timeout_ns=1_000_000_000),
    "Get": frames.Get(18, "jobs", 32, 5_000_000, no_ack=True),
    "Get/channel": frames.Get(18, "jobs", channel=3),
    "Consume/channel": frames.Consume(19, "jobs", "ctag", 8, channel=3, shares="first"),
    "Consume": frames.Consume(19, "jobs", "ctag", 8, exclusive=True, priority=-1, ack_timeout_ns=1, direct=True),
    "Cancel": frames.Cancel(20, "ctag"),
    "CancelGet": frames.CancelGet(0, 18),
    "SetPrefetch": frames.SetPrefetch(21, 100, "ctag"),
    "SetPrefetch/channel": frames.SetPrefetch(21, 100, channel=3),
    "CloseChannel": frames.CloseChannel(21, 3),
    "Ack": frames.Ack(0, [1, 2, 300]),
    "Nack": frames.Nack(22, [1], multiple=True, requeue=False, delay_ns=7),
    "Reject": frames.Reject(23, [1], requeue=True),
    "Recover": frames.Recover(24),
    "Recover/channel": frames.Recover(24, 3),
    "Touch": frames.Touch(25, [1], 60_000_000_000),
    "Welcome": WELCOME,
    "Closing": frames.Closing(320, "stopping", {"reason": "stopping"}),
    "Error": frames.Error(16, 608, "full", {"queue": "jobs", "depth": 5, "timeout": 0.5}),
    "Blocked": frames.Blocked("memory"),
    "Unblocked": frames.Unblocked(),
    "Presence": frames.Presence(14),
    "Ok": frames.Ok(1),
    "Counted": frames.Counted(4, 12),
    "QueueDeclared": frames.QueueDeclared(3, "jobs", 10, 1),
    "QueueInspected": frames.QueueInspected(6, INFO),
    "QueuesListed": frames.QueuesListed(7, [INFO], more=True),
    "ExchangesListed": frames.ExchangesListed(7, [EXCHANGE], more=True),
    "BindingsListed": frames.BindingsListed(7, [BINDING], more=True),
    "StatusReport": frames.StatusReport(
        2,
        "0.1.0",
        1,
        1,
        "00ff",
        "memory",
        9,
        [ProcessInfo("broker", 10, 1, 2)],
        [Alarm("shm", "full", 3)],
        {"queues": 1},
    ),
    "Attached": frames.Attached(12, QUEUE, 3, (10, 1000, 256, 256, 1 << 20), 1, 20, -1),
    "Bells": frames.Bells(13, 3, 2),
    "Routed": frames.Routed(15, ["jobs", "logs"], [(3, 1)], delayed=["later"]),
    "Routed/graph": frames.Routed(15, [], [(3, 1)], exchanges=[EXCHANGE], bindings=[BINDING]),
    "Consuming": frames.Consuming(19, "ctag"),
    "Consuming/replies": frames.Consuming(19, "ctag", "amq.rabbitmq.reply-to.3.abc"),
    "Got": frames.Got(18, [DELIVERY]),
    "Deliver": frames.Deliver("ctag", [DELIVERY, DELIVERY]),
    "Cancelled": frames.Cancelled("ctag", "queue deleted"),
}
