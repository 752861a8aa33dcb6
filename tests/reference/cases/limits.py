"""What a queue keeps, for how long, and in which order: TTL, lengths and overflow, priorities."""

from reference.cases.asking import arrives, bodies, must_come, next_of, pass_time, ready
from reference.cases.settling import publish_all
from reference.driver import QUIET, Broker
from reference.record import Saw, case

# -- time to live -----------------------------------------------------------------------------------------------------


@case
def time_to_live(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("short", {"x-message-ttl": 100})
    broker.declare_queue("long", {"x-message-ttl": 60_000})
    broker.declare_queue("none")
    for queue in ("short", "long", "none"):
        broker.publish("own", queue, expiration=100)
        broker.publish("long", queue, expiration=50_000)
        broker.publish("none", queue)
    pass_time(0.4)
    for queue in ("short", "long", "none"):
        saw(queue, bodies(broker, queue))


@case
def expired_behind_one_that_lives(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    broker.publish("lives", "q")
    broker.publish("expires", "q", expiration=50)
    broker.publish("lives too", "q")
    pass_time(0.4)
    saw("ready", ready(broker, "q"))
    saw("got", bodies(broker, "q"))


@case
def time_of_zero(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-message-ttl": 0})
    broker.publish("nobody waits", "q")
    saw("got", arrives(broker, "q"))
    broker.declare_queue("r")
    broker.publish("nobody waits", "r", expiration=0)
    saw("got by its own time", arrives(broker, "r"))
    consumer = broker.consume("q")
    consumer.rest()
    broker.publish("somebody waits", "q")
    saw("consumed", [message.body for message in consumer.rest(1)])


@case
def requeued_and_its_time(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-message-ttl": 300})
    broker.publish("x", "q")
    message = must_come(broker, "q")
    pass_time(0.5)
    saw("held over its time: ready", ready(broker, "q"))
    message.nack()
    saw("given back too late", arrives(broker, "q"))
    broker.declare_queue("r", {"x-message-ttl": 60_000})
    broker.publish("y", "r")
    must_come(broker, "r").nack()
    saw("given back in time", must_come(broker, "r").redelivered)


@case
def expirations_that_cannot_be(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    saw.answer("below zero", broker.publish, "x", "q", expiration=-1)
    saw.answer("no number", broker.publish, "x", "q", expiration="soon")
    saw.answer("a year", broker.publish, "x", "q", expiration=365 * 86_400_000)
    saw("got", bodies(broker, "q"))


# -- lengths ----------------------------------------------------------------------------------------------------------


@case
def dropping_the_head(broker: Broker, saw: Saw) -> None:
    for label, arguments in (("by default", {}), ("said so", {"x-overflow": "drop-head"})):
        broker.declare_queue("q", {"x-max-length": 3} | arguments)
        publish_all(broker)
        saw(label, bodies(broker, "q"))
        broker.delete_queue("q")


@case
def a_length_in_bytes(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-length-bytes": 10})
    for body in ("aaaa", "bbbb", "cccc", "dd", "e" * 9):
        broker.publish(body, "q")
        saw(f"ready after {body}", ready(broker, "q"))
    broker.publish("f" * 20, "q")
    saw("larger than the limit", bodies(broker, "q"))
    broker.declare_queue("both", {"x-max-length-bytes": 10, "x-max-length": 2})
    for body in ("a", "b", "c", "d" * 9):
        broker.publish(body, "both")
        saw(f"both: ready after {body}", ready(broker, "both"))
    saw("both", bodies(broker, "both"))


@case
def a_length_of_zero(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-length": 0})
    broker.publish("nobody waits", "q")
    saw("got", bodies(broker, "q"))
    consumer = broker.consume("q")
    consumer.rest()
    broker.publish("somebody waits", "q")
    saw("consumed", [message.body for message in consumer.rest(1)])
    broker.declare_queue("r", {"x-max-length": 0, "x-overflow": "reject-publish"})
    saw.answer("refused", broker.publish, "x", "r")


@case
def only_ready_ones_count(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-length": 2})
    broker.declare_queue("r", {"x-max-length": 2, "x-overflow": "reject-publish"})
    for queue in ("q", "r"):
        publish_all(broker, queue, ("1", "2"))
        held = [must_come(broker, queue) for _ in range(2)]
        for body in ("3", "4", "5"):
            saw.answer(f"{queue}: publish {body}", broker.publish, body, queue)
        saw(f"{queue}: ready", ready(broker, queue))
        for message in held:
            message.nack()
        pass_time(0.1)
        saw(f"{queue}: after the requeue", bodies(broker, queue))


@case
def refusing_to_publish(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-length": 2, "x-overflow": "reject-publish"})
    for body in ("1", "2", "3", "4"):
        saw.answer(f"publish {body}", broker.publish, body, "q")
    must_come(broker, "q").ack()
    saw.answer("publish 5, with room", broker.publish, "5", "q")
    saw("got", bodies(broker, "q"))


@case
def refusing_to_publish_by_bytes(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-length-bytes": 10, "x-overflow": "reject-publish"})
    for body in ("a" * 6, "b" * 5, "c" * 4, "d", "e" * 20):
        saw.answer(f"publish {body}", broker.publish, body, "q")
    saw("got", bodies(broker, "q"))


@case
def refusing_with_dead_letters(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    for overflow in ("reject-publish", "reject-publish-dlx"):
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        broker.declare_queue("q", {"x-max-length": 1, "x-overflow": overflow} | arguments)
        for body in ("1", "2"):
            saw.answer(f"{overflow}: publish {body}", broker.publish, body, "q")
        letter = next_of(broker, "dead", within=QUIET)
        saw(f"{overflow}: dead", None if letter is None else (letter.body, letter.headers))
        saw(f"{overflow}: got", bodies(broker, "q"))
        broker.delete_queue("q")


@case
def one_of_several_refuses(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "fanout")
    broker.declare_queue("short", {"x-max-length": 1, "x-overflow": "reject-publish"})
    broker.declare_queue("long")
    for queue in ("short", "long"):
        broker.bind_queue(queue, "e")
    for body in ("1", "2"):
        saw.answer(f"publish {body}", broker.publish, body, "", "e")
    saw("short", bodies(broker, "short"))
    saw("long", bodies(broker, "long"))


# -- priorities -------------------------------------------------------------------------------------------------------


@case
def order_of_priorities(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-priority": 5})
    for number, priority in enumerate((0, 5, 3, 5, 1, 3, 9, 255, 4)):
        broker.publish(f"{number} of {priority}", "q", priority=priority)
    broker.publish("of none", "q")
    saw("got", bodies(broker, "q"))


@case
def priorities_where_there_are_none(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    for priority in (0, 5, 3):
        broker.publish(str(priority), "q", priority=priority)
    saw("got", bodies(broker, "q"))


@case
def the_priority_told(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-priority": 5})
    broker.declare_queue("flat")
    for queue in ("q", "flat"):
        for priority in (0, 3, 9):
            broker.publish(str(priority), queue, priority=priority)
            message = must_come(broker, queue)
            saw(f"{queue}: {priority}", message.priority)
            message.ack()


@case
def who_waits_gets_by_priority(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-priority": 5})
    consumer = broker.consume("q", prefetch=1)
    broker.publish("first", "q", priority=0)
    held = consumer.take(1)
    for priority in (1, 5, 3):
        broker.publish(str(priority), "q", priority=priority)
    order = []
    for _ in range(3):
        held[0].ack()
        held = consumer.take(1)
        order.append(held[0].body)
    saw("order", order)


@case
def dropping_by_priority(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-priority": 9, "x-max-length": 3, "x-overflow-victim": "highest"})
    broker.declare_queue("default", {"x-max-priority": 9, "x-max-length": 3})
    for queue in ("q", "default"):
        for body, priority in (("low 1", 1), ("high 1", 9), ("low 2", 1), ("middle", 5), ("high 2", 9)):
            broker.publish(body, queue, priority=priority)
    saw("the most urgent first", bodies(broker, "q"))
    saw("by default", bodies(broker, "default"))


@case
def expiry_in_levels(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-priority": 5})
    broker.publish("low expires", "q", priority=1, expiration=50)
    broker.publish("high lives", "q", priority=5)
    broker.publish("low lives", "q", priority=1)
    pass_time(0.3)
    saw("ready", ready(broker, "q"))
    saw("got", bodies(broker, "q"))
