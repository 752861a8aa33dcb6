"""Deliveries and what becomes of them: order, redelivered, requeue, prefetch, cancel, closing."""

from reference.cases.asking import bodies, both, must_come, ready, wait_until_ready
from reference.driver import Arrived, Broker
from reference.record import Saw, case

FIVE = ("1", "2", "3", "4", "5")


def publish_all(broker: Broker, queue: str = "q", bodies_: tuple[str, ...] = FIVE) -> None:
    for body in bodies_:
        broker.publish(body, queue)


def get_all(broker: Broker, count: int, queue: str = "q") -> list[Arrived]:
    return [must_come(broker, queue) for _ in range(count)]


@case
def order_of_publishing(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    messages = get_all(broker, 5)
    saw("got", [(message.body, message.redelivered) for message in messages])
    saw("ready meanwhile", ready(broker, "q"))
    for message in messages:
        message.ack()
    saw("afterwards", bodies(broker, "q"))
    saw("empty", broker.get("q") is None)


@case
def requeued_to_its_place(broker: Broker, saw: Saw) -> None:
    orders = {"in order": (0, 1, 2), "backwards": (2, 1, 0), "mixed": (1, 2, 0), "the middle one": (1,)}
    for label, order in orders.items():
        broker.declare_queue("q")
        publish_all(broker)
        messages = get_all(broker, 3)
        for number in order:
            messages[number].nack()
        again = [must_come(broker, "q") for _ in range(len(order) + 2)]
        saw(label, [(message.body, message.redelivered) for message in again])
        broker.delete_queue("q")


@case
def rejected_with_requeue(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker, bodies_=("1", "2"))
    for turn in range(3):
        message = must_come(broker, "q")
        saw(f"turn {turn}", (message.body, message.redelivered, message.headers))
        message.reject(requeue=True)
    must_come(broker, "q").reject()
    saw("rejected for good", bodies(broker, "q"))


@case
def requeued_by_closing(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    other = broker.another()
    held = get_all(other, 2)
    consumer = other.consume("q", prefetch=2)
    pushed = consumer.take(2)
    saw("held", [message.body for message in (*held, *pushed)])
    other.close()
    saw("ready", wait_until_ready(broker, "q", 5))
    saw("again", [(message.body, message.redelivered) for message in get_all(broker, 5)])


@case
def requeued_with_priorities(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-priority": 5})
    for body, priority in (("low 1", 1), ("high 1", 5), ("low 2", 1), ("high 2", 5)):
        broker.publish(body, "q", priority=priority)
    messages = get_all(broker, 4)
    for message in reversed(messages):
        message.nack()
    broker.publish("high 3", "q", priority=5)
    saw("again", bodies(broker, "q"))


@case
def settled_twice(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    for how in ("ack", "nack", "reject"):
        other = broker.another()
        message = must_come(other, "q")
        message.ack()
        saw.answer(f"{how} what is acked", getattr(message, how))
        other.close()
    saw("left", bodies(broker, "q"))


@case
def without_acks(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    other = broker.another()
    other.get("q", no_ack=True)
    consumer = other.consume("q", no_ack=True, prefetch=1)
    saw("prefetch means nothing", [message.body for message in consumer.take(4)])
    other.close()
    saw("left", bodies(broker, "q"))


@case
def prefetch(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    consumer = broker.consume("q", prefetch=2)
    first = consumer.take(2)
    saw("two", [message.body for message in first])
    saw("no third", [message.body for message in consumer.rest()])
    saw("get has none of it", must_come(broker, "q").body)
    first[0].ack()
    saw("one more", [message.body for message in consumer.rest(1)])
    first[1].nack()
    saw("and again", [(message.body, message.redelivered) for message in consumer.rest(1)])


@case
def prefetch_of_each_consumer(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    one, two = broker.consume("q", prefetch=1), broker.consume("q", prefetch=2)
    publish_all(broker)
    came = one.rest(1), two.rest(2)
    saw("counts", [len(messages) for messages in came])
    saw("all", sorted(message.body for messages in came for message in messages))
    saw("ready", ready(broker, "q"))


@case
def unlimited_prefetch(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    consumer = broker.consume("q", prefetch=0)
    saw("all", [message.body for message in consumer.take(5)])
    saw("ready", ready(broker, "q"))


@case
def cancelled(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    consumer = broker.consume("q", prefetch=2)
    held = consumer.take(2)
    consumer.cancel()
    saw("consumers", broker.declare_queue("q", passive=True).consumers)
    saw("what was handed out is not ready", ready(broker, "q"))
    saw.answer("and may be acked", held[0].ack)
    held[1].nack()
    saw("left", bodies(broker, "q"))


@case
def getting(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    saw("nothing", broker.get("q"))
    saw.answer("no queue", broker.get, "nobody")
    broker.publish("x", "q", priority=3, expiration=60_000, headers={"a": [1, {"b": "c"}], "d": None})
    message = must_come(broker, "q")
    saw("expiration", message.expiration)
    saw("headers", message.headers)
    saw("is not there twice", broker.get("q"))


# -- several at once, recover, the window of a channel ----------------------------------------------------------------


@case
def several_acked(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    other = broker.another()
    messages = get_all(other, 5)
    messages[1].ack()
    messages[2].ack(multiple=True)
    other.close()
    saw("left", [(message.body, message.redelivered) for message in get_all(broker, 2)])


@case
def several_given_back(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    publish_all(broker)
    messages = get_all(broker, 5)
    messages[2].nack(multiple=True)
    saw("again", [(message.body, message.redelivered) for message in get_all(broker, 3)])
    messages[4].nack(multiple=True, requeue=False)
    saw("dead", wait_until_ready(broker, "dead", 2))
    saw("which", sorted(bodies(broker, "dead")))


@case
def several_settled_twice(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    for how in ("ack", "nack"):
        other = broker.another()
        _, second = get_all(other, 2)
        second.ack(multiple=True)
        saw.answer(f"{how} of several that are acked", getattr(second, how), multiple=True)
        other.close()
        saw(f"ready after {how}", ready(broker, "q"))


@case
def recovering(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    consumer = broker.consume("q", prefetch=2)
    pushed, got = consumer.take(2), must_come(broker, "q")
    saw("out", [message.body for message in (*pushed, got)])
    broker.recover()
    saw("again", [(message.body, message.redelivered) for message in consumer.rest(2)])
    saw("ready", ready(broker, "q"))
    saw.answer("without requeue", broker.another().recover, requeue=False)


@case
def a_window_over_consumers(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    one, two = broker.consume("q", prefetch=2), broker.consume("q", prefetch=2)
    broker.qos(3)
    publish_all(broker, bodies_=("1", "2", "3", "4", "5", "6", "7", "8"))
    came = [*one.take(1), *two.take(1)]
    saw("three", len(came) + both(one, two, 1))
    saw("get goes on", must_come(broker, "q").body)
    saw("get leaves the window", both(one, two))
    broker.qos(4)
    saw("one more, live", both(one, two, 1))
    broker.qos(2)
    came[0].ack()
    came[1].ack()
    saw("below what is out", both(one, two))
    broker.qos(0)
    saw("no window", both(one, two, 2))


@case
def a_window_in_bytes(broker: Broker, saw: Saw) -> None:
    saw.answer("refused", broker.qos, 1, size=1000)


@case
def delivery_tags(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    other = broker.another()
    messages = [must_come(other, "q"), must_come(other, "q")]
    saw("of gets", [message.tag for message in messages])
    quiet = other.get("q", no_ack=True)
    saw("of one without ack", None if quiet is None else quiet.tag)
    consumer = other.consume("q", prefetch=1)
    saw("of a consumer", [message.tag for message in consumer.take(1)])
    messages[0].nack()
    saw("of one that comes again", must_come(other, "q").tag)
    saw("of another channel", must_come(broker, "q").tag)


@case
def settled_by_tags(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker)
    for how, tag in (("ack", 99), ("nack", 99), ("reject", 99), ("ack", 0), ("reject", 0)):
        other = broker.another()
        get_all(other, 2)
        saw.answer(f"{how} {tag}", other.settle, tag, how)
        other.close()
        saw(f"ready after {how} {tag}", wait_until_ready(broker, "q", 5))
    other = broker.another()
    get_all(other, 3)
    other.settle(2, "ack", multiple=True)
    saw.answer("several up to an unknown one", other.settle, 99, "ack", multiple=True)
    other.close()
    saw("ready after that", wait_until_ready(broker, "q", 3))
    other = broker.another()
    get_all(other, 2)
    other.settle(0, "ack", multiple=True)
    saw.answer("all of none", other.settle, 0, "ack", multiple=True)
    other.close()
    saw("left", bodies(broker, "q"))


@case
def a_user_id_of_somebody_else(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    saw.answer("refused", broker.publish, "x", "q", user_id="somebody else")
    saw("got", bodies(broker, "q"))
