"""Who gets what: consumers of one queue, by priority, alone, the only active one; and their ends."""

from reference.cases.asking import must_come, ready
from reference.cases.settling import publish_all
from reference.driver import REPLY_TO, Broker
from reference.record import Saw, case


@case
def consuming(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    publish_all(broker, bodies_=("1", "2"))
    consumer = broker.consume("q")
    first = consumer.take(2)
    publish_all(broker, bodies_=("3",))
    second = consumer.take(1)
    saw("got", [(message.body, message.redelivered) for message in (*first, *second)])
    saw.answer("no queue", broker.another().consume, "nobody")


@case
def a_higher_priority_is_served_first(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    low, high = broker.consume("q", prefetch=10, priority=-1), broker.consume("q", prefetch=2, priority=5)
    none = broker.consume("q", prefetch=1)
    publish_all(broker)
    came = high.rest(2)
    saw("high", [message.body for message in came])
    saw("none", [message.body for message in none.rest(1)])
    saw("low", [message.body for message in low.rest(2)])
    came[0].ack()
    publish_all(broker, bodies_=("6", "7"))
    saw("high again", [message.body for message in high.rest(1)])
    saw("low again", [message.body for message in low.rest(1)])


@case
def equals_share(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    consumers = [broker.consume("q", priority=1, prefetch=2) for _ in range(2)]
    publish_all(broker)
    saw("counts", [len(consumer.rest(2)) for consumer in consumers])
    saw("left", ready(broker, "q"))


@case
def an_exclusive_consumer(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    alone = broker.consume("q", exclusive=True)
    saw.answer("a second one", broker.another().consume, "q")
    saw.answer("a second exclusive one", broker.another().consume, "q", exclusive=True)
    saw.answer("get", broker.another().get, "q")
    publish_all(broker, bodies_=("1",))
    saw("it got", [message.body for message in alone.take(1)])
    alone.cancel()
    shared = broker.another().consume("q")
    saw.answer("exclusive beside another", broker.another().consume, "q", exclusive=True)
    publish_all(broker, bodies_=("2",))
    saw("the other got", [message.body for message in shared.take(1)])


@case
def one_active_consumer(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-single-active-consumer": True})
    first_connection, second_connection = broker.another(), broker.another()
    first, second = first_connection.consume("q", prefetch=2), second_connection.consume("q")
    publish_all(broker)
    held = first.take(2)
    saw("the first", [message.body for message in held])
    saw("the second", [message.body for message in second.rest()])
    saw.answer("get", broker.another().get, "q")
    saw.answer("an exclusive one", broker.another().consume, "q", exclusive=True)
    held[0].ack()
    saw("the first again", [message.body for message in first.rest(1)])
    first.cancel()
    came = [message.body for message in second.rest()]
    saw("the second takes over", came)
    first_connection.close()
    saw("and gets what the first held", sorted(came + [message.body for message in second.rest(3 - len(came))]))


@case
def one_active_consumer_goes(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-single-active-consumer": True})
    connection = broker.another()
    first, second = connection.consume("q", prefetch=2), broker.consume("q")
    publish_all(broker)
    first.take(2)
    connection.close()
    saw("the second", [(message.body, message.redelivered) for message in second.take(5)])


@case
def one_active_consumer_and_priorities(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-single-active-consumer": True})
    low, high = broker.consume("q", prefetch=1, priority=1), broker.consume("q", prefetch=1, priority=5)
    publish_all(broker)
    saw("low", [message.body for message in low.rest(1)])
    saw("high", [message.body for message in high.rest()])


@case
def a_tag_in_use(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    other = broker.another()
    other.consume("q", tag="t")
    saw.answer("the same tag", other.consume_again, "q", "t")


@case
def a_tag_of_another_connection(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    one, two = broker.another(), broker.another()
    one.consume("q", tag="t")
    saw.answer("the same tag", two.consume, "q", tag="t")
    saw("consumers", broker.declare_queue("q", passive=True).consumers)


@case
def a_consumer_whose_queue_goes(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    consumer = broker.another().consume("q")
    saw("before", consumer.is_cancelled())
    broker.delete_queue("q")
    saw("after", consumer.is_cancelled())


@case
def a_nack_goes_to_another_consumer(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    one, two = broker.another(), broker.another()
    first = one.consume("q", prefetch=1)
    publish_all(broker, bodies_=("1",))
    (held,) = first.take(1)
    first.cancel()
    second = two.consume("q", prefetch=1)
    held.nack()
    saw("the other", [(message.body, message.redelivered) for message in second.take(1)])


@case
def getting_beside_a_consumer(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    consumer = broker.consume("q", prefetch=1)
    publish_all(broker, bodies_=("1", "2"))
    saw("consumed", [message.body for message in consumer.take(1)])
    saw("got", must_come(broker, "q").body)


@case
def direct_replies(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("rpc")
    saw.answer("a request that nobody waits for", broker.another().request, "lost", "rpc")
    saw.answer("with acks", broker.another().consume, REPLY_TO)
    client = broker.another()
    replies = client.consume(REPLY_TO, no_ack=True)
    client.request("question", "rpc")
    request = must_come(broker, "rpc")
    saw("asked", (request.body, request.reply_to.startswith(f"{REPLY_TO}."), request.headers))
    broker.publish("answer", request.reply_to)
    broker.publish("answer again", request.reply_to)
    came = replies.take(2)
    saw("answered", [(answer.body, answer.exchange, answer.redelivered) for answer in came])
    saw("its key is its address", {answer.routing_key for answer in came} == {request.reply_to})
    client.close()
    saw.answer("who asked is gone", broker.publish, "late", request.reply_to)
