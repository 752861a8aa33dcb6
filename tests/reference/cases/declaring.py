"""What is declared, declared again, deleted: equivalence, flags, reply codes, the life of queues and exchanges."""

from typing import Any

from reference.cases.asking import bodies, must_come, pass_time
from reference.driver import Broker
from reference.record import Saw, case

DIFFERENT: dict[str, tuple[Any, Any]] = {
    "x-max-length": (5, 6),
    "x-max-length-bytes": (500, 600),
    "x-overflow": ("reject-publish", "drop-head"),
    "x-message-ttl": (5000, 6000),
    "x-expires": (50_000, 60_000),
    "x-dead-letter-exchange": ("one", "two"),
    "x-max-priority": (5, 6),
    "x-single-active-consumer": (True, False),
    "x-queue-type": ("classic", "quorum"),
    "x-unknown": (1, 2),
}


@case
def queues_declared_otherwise(broker: Broker, saw: Saw) -> None:
    for argument, (one, other) in DIFFERENT.items():
        broker.declare_queue("q", {argument: one})
        saw.answer(f"{argument} the same", broker.declare_queue, "q", {argument: one})
        saw.answer(f"{argument} another value", broker.declare_queue, "q", {argument: other})
        saw.answer(f"{argument} missing", broker.declare_queue, "q")
        broker.delete_queue("q")
        broker.declare_queue("q")
        saw.answer(f"{argument} more", broker.declare_queue, "q", {argument: one})
        broker.delete_queue("q")


@case
def dead_letter_keys_declared_otherwise(broker: Broker, saw: Saw) -> None:
    both = {"x-dead-letter-exchange": "e", "x-dead-letter-routing-key": "k"}
    broker.declare_queue("q", both)
    saw.answer("the same", broker.declare_queue, "q", both)
    saw.answer("another key", broker.declare_queue, "q", both | {"x-dead-letter-routing-key": "l"})
    saw.answer("no key", broker.declare_queue, "q", {"x-dead-letter-exchange": "e"})
    saw.answer("a key alone", broker.declare_queue, "other", {"x-dead-letter-routing-key": "k"})


@case
def flags_declared_otherwise(broker: Broker, saw: Saw) -> None:
    for flag in ("durable", "exclusive", "auto_delete"):
        flags = {"durable": True, "exclusive": False, "auto_delete": False}
        broker.declare_queue("q", **flags)  # type: ignore[arg-type] # flags all
        saw.answer(f"{flag} turned", broker.declare_queue, "q", **flags | {flag: not flags[flag]})
        saw.answer(f"{flag} the same", broker.declare_queue, "q", **flags)
        broker.delete_queue("q")


@case
def exchanges_declared_otherwise(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "topic")
    saw.answer("the same", broker.declare_exchange, "e", "topic")
    saw.answer("another type", broker.declare_exchange, "e", "direct")
    for flag in ("auto_delete", "internal"):
        saw.answer(f"{flag} turned", broker.declare_exchange, "e", "topic", **{flag: True})
    saw.answer("durable turned", broker.declare_exchange, "e", "topic", durable=False)
    saw.answer("an alternate more", broker.declare_exchange, "e", "topic", {"alternate-exchange": "a"})
    saw.answer("an unknown argument more", broker.declare_exchange, "e", "topic", {"x-unknown": 1})
    broker.declare_exchange("a", "topic", {"alternate-exchange": "one"})
    saw.answer("an alternate the same", broker.declare_exchange, "a", "topic", {"alternate-exchange": "one"})
    saw.answer("another alternate", broker.declare_exchange, "a", "topic", {"alternate-exchange": "two"})
    saw.answer("an alternate less", broker.declare_exchange, "a", "topic")
    saw.answer("no such type", broker.declare_exchange, "x", "x-what")


WRONG: dict[str, tuple[Any, ...]] = {
    "x-max-length": (-1, "5", 1.5, 0),
    "x-max-length-bytes": (-1, 0),
    "x-overflow": ("drop-tail", 5, "drop-head", "reject-publish-dlx"),
    "x-message-ttl": (-1, "5", 1.5, 0),
    "x-expires": (0, -1, "5", 1),
    "x-dead-letter-exchange": (5, "missing", ""),
    "x-max-priority": (-1, 256, "5", 255),
    "x-single-active-consumer": ("yes", 1),
    "x-queue-type": ("nothing", 5),
    "x-queue-mode": ("lazy", "default"),
}


@case
def arguments_that_cannot_be(broker: Broker, saw: Saw) -> None:
    for argument, values in WRONG.items():
        for value in values:
            saw.answer(f"{argument} = {value!r}", broker.declare_queue, "q", {argument: value})
            _forget(broker)


def _forget(broker: Broker) -> None:
    if _is_there(broker, "q"):
        broker.delete_queue("q")


def _is_there(broker: Broker, queue: str) -> bool:
    saw = Saw()
    saw.answer("there", broker.declare_queue, queue, passive=True)
    return saw.values["there"] == repr("done")


@case
def looking_passively(broker: Broker, saw: Saw) -> None:
    saw.answer("no queue", broker.declare_queue, "q", passive=True)
    saw.answer("no exchange", broker.declare_exchange, "e", passive=True)
    broker.declare_queue("q", {"x-max-length": 5}, durable=False)
    broker.declare_exchange("e", "topic", durable=False)
    saw("a queue", broker.declare_queue("q", passive=True))
    saw.answer("a queue, other arguments", broker.declare_queue, "q", {"x-max-length": 6}, passive=True)
    saw.answer("an exchange", broker.declare_exchange, "e", "topic", passive=True)
    saw.answer("an exchange, another type", broker.declare_exchange, "e", "direct", passive=True)


@case
def what_declaring_tells(broker: Broker, saw: Saw) -> None:
    saw("new", broker.declare_queue("q"))
    for body in ("1", "2", "3"):
        broker.publish(body, "q")
    held = must_come(broker, "q")
    saw("two ready, one unacked", broker.declare_queue("q"))
    consumer = broker.consume("q", prefetch=1)
    consumer.take(1)
    saw("a consumer that holds one", broker.declare_queue("q"))
    held.ack()
    saw("one acked", broker.declare_queue("q", passive=True))


@case
def names_by_the_broker(broker: Broker, saw: Saw) -> None:
    one, two = (broker.declare_queue("", exclusive=True).name for _ in range(2))
    saw("begin with", {name[: len("amq.gen-")] for name in (one, two)} == {"amq.gen-"})
    saw("differ", one != two)
    broker.publish("x", one)
    saw("is a queue", bodies(broker, one))


@case
def exclusive_queues(broker: Broker, saw: Saw) -> None:
    owner = broker.another()
    owner.declare_queue("mine", exclusive=True)
    owner.publish("1", "mine")
    broker.declare_exchange("e", "fanout")
    saw.answer("declare", broker.declare_queue, "mine", exclusive=True)
    saw.answer("declare as shared", broker.declare_queue, "mine")
    saw.answer("declare passively", broker.declare_queue, "mine", passive=True)
    saw.answer("get", broker.get, "mine")
    saw.answer("purge", broker.purge_queue, "mine")
    saw.answer("delete", broker.delete_queue, "mine")
    saw.answer("bind", broker.bind_queue, "mine", "e")
    saw.answer("consume", broker.another().consume, "mine")
    saw.answer("publish", broker.publish, "2", "mine", mandatory=True)
    saw.answer("the owner declares it again", owner.declare_queue, "mine", exclusive=True)
    saw("the owner gets", bodies(owner, "mine"))
    owner.close()
    saw.answer("after the owner's close", broker.declare_queue, "mine", passive=True)


@case
def auto_delete_queues(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", auto_delete=True)
    broker.publish("x", "q")
    saw("got without a consumer", broker.get("q", no_ack=True) is not None)
    saw("never consumed: there", _is_there(broker, "q"))
    one, two = broker.consume("q"), broker.consume("q")
    one.cancel()
    saw("one of two left: there", _is_there(broker, "q"))
    two.cancel()
    saw("the last left: there", _is_there(broker, "q"))
    other = broker.another()
    other.declare_queue("r", auto_delete=True)
    other.consume("r")
    other.close()
    saw("the consumer's connection closed: there", _is_there(broker, "r"))


@case
def auto_delete_exchanges(broker: Broker, saw: Saw) -> None:
    def is_there(exchange: str) -> str:
        here = Saw()
        here.answer("there", broker.declare_exchange, exchange, "fanout", auto_delete=True, passive=True)
        return here.values["there"]

    broker.declare_exchange("e", "fanout", auto_delete=True)
    broker.declare_exchange("to", "fanout", auto_delete=True)
    broker.declare_queue("q")
    saw("never bound", is_there("e"))
    broker.bind_queue("q", "e")
    broker.bind_exchange("to", "e")
    broker.unbind_queue("q", "e")
    saw("one binding left", is_there("e"))
    broker.unbind_exchange("to", "e")
    saw("no binding left", is_there("e"))
    saw("was only a destination", is_there("to"))
    broker.bind_queue("q", "to")
    broker.delete_queue("q")
    saw("its queue deleted", is_there("to"))


@case
def deleting_queues(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    for body in ("1", "2", "3"):
        broker.publish(body, "q")
    held = must_come(broker, "q")
    saw.answer("if_empty, not empty", broker.delete_queue, "q", if_empty=True)
    saw("purged", broker.purge_queue("q"))
    saw.answer("if_empty, one unacked", broker.delete_queue, "q", if_empty=True)
    broker.declare_queue("q")
    broker.publish("4", "q")
    consumer = broker.consume("q", prefetch=1)
    saw.answer("if_unused, used", broker.delete_queue, "q", if_unused=True)
    consumer.cancel()
    broker.declare_queue("r")
    for body in ("1", "2"):
        broker.publish(body, "r")
    saw("deleted with", broker.delete_queue("r"))
    saw.answer("deleted again", broker.delete_queue, "r")
    saw.answer("deleted if_empty, missing", broker.delete_queue, "r", if_empty=True)
    saw.answer("purge a missing one", broker.purge_queue, "r")
    broker.delete_queue("q")
    saw.answer("ack what was held of a deleted queue", held.ack)
    saw.answer("get from a missing one", broker.get, "r")


@case
def deleting_exchanges(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "fanout")
    broker.declare_exchange("to", "fanout")
    broker.bind_exchange("to", "e")
    saw.answer("if_unused, a source", broker.delete_exchange, "e", if_unused=True)
    saw.answer("if_unused, only a destination", broker.delete_exchange, "to", if_unused=True)
    saw.answer("if_unused, its destination went", broker.delete_exchange, "e", if_unused=True)
    saw.answer("deleted again", broker.delete_exchange, "e")
    saw.answer("if_unused, missing", broker.delete_exchange, "e", if_unused=True)


@case
def purging(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    saw("empty", broker.purge_queue("q"))
    for body in ("1", "2", "3"):
        broker.publish(body, "q")
    held = must_come(broker, "q")
    saw("ready ones", broker.purge_queue("q"))
    held.nack()
    saw("the unacked one is back", bodies(broker, "q"))


@case
def queues_that_expire(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("idle", {"x-expires": 900})
    broker.declare_queue("got", {"x-expires": 900})
    broker.declare_queue("declared", {"x-expires": 900})
    broker.declare_queue("published", {"x-expires": 900})
    broker.declare_queue("consumed", {"x-expires": 900})
    consumer = broker.consume("consumed")
    for _ in range(5):
        broker.get("got")
        broker.declare_queue("declared", {"x-expires": 900})
        broker.publish("x", "published")
        pass_time(0.3)
    for queue in ("idle", "got", "declared", "published", "consumed"):
        saw(f"{queue}: there", _is_there(broker, queue))
    consumer.cancel()
    pass_time(1.5)
    for queue in ("got", "declared", "consumed"):
        saw(f"{queue}, later: there", _is_there(broker, queue))
