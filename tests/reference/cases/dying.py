"""Dead letters: why, where to, what their headers say, and where they don't go again."""

from typing import Any

from reference.cases.asking import arrives, bodies, must_come, pass_time, ready, told, wait_until_ready
from reference.driver import Broker
from reference.record import Saw, case

TO_DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


@case
def a_rejected_message(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    for how in ("reject", "nack"):
        broker.declare_queue("q", TO_DEAD)
        broker.publish("x", "q", headers={"mine": 1})
        getattr(must_come(broker, "q"), how)(requeue=False)
        letter = must_come(broker, "dead")
        saw(how, told(letter))
        letter.ack()


@case
def an_expired_message(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("by queue", TO_DEAD | {"x-message-ttl": 30})
    broker.declare_queue("by message", TO_DEAD)
    broker.publish("x", "by queue")
    saw("by the queue's time", told(must_come(broker, "dead")))
    broker.publish("y", "by message", expiration=30)
    letter = must_come(broker, "dead")
    saw("by its own", told(letter))
    saw("its expiration is gone", letter.expiration)
    broker.publish("z", "by queue", expiration=60_000)
    letter = must_come(broker, "dead")
    saw("by the lower of both", told(letter))


@case
def an_evicted_message(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("q", TO_DEAD | {"x-max-length": 1})
    for body in ("1", "2"):
        broker.publish(body, "q")
    saw("dead", told(must_come(broker, "dead")))
    saw("left", bodies(broker, "q"))


@case
def through_an_exchange_with_the_key_kept(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e")
    broker.declare_exchange("graves", "topic")
    broker.declare_queue("q", {"x-dead-letter-exchange": "graves"})
    broker.declare_queue("dead")
    broker.declare_queue("other")
    broker.bind_queue("q", "e", "a.b")
    broker.bind_queue("dead", "graves", "a.*")
    broker.bind_queue("other", "graves", "q")
    broker.publish("x", "a.b", "e")
    must_come(broker, "q").reject()
    saw("dead", told(must_come(broker, "dead")))
    saw("other", bodies(broker, "other"))


@case
def to_several_queues(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("graves", "fanout")
    for queue in ("one", "two"):
        broker.declare_queue(queue)
        broker.bind_queue(queue, "graves")
    broker.declare_queue("q", {"x-dead-letter-exchange": "graves", "x-dead-letter-routing-key": "new"})
    broker.publish("x", "q")
    must_come(broker, "q").reject()
    for queue in ("one", "two"):
        saw(queue, told(must_come(broker, queue)))


@case
def a_second_death_elsewhere(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("second", TO_DEAD | {"x-message-ttl": 20})
    broker.declare_queue("first", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "second"})
    broker.publish("x", "first")
    must_come(broker, "first").reject()
    saw("dead", told(must_come(broker, "dead")))


@case
def the_same_death_again(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("retry", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q", "x-message-ttl": 20})
    broker.declare_queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "retry"})
    broker.publish("x", "q")
    for turn in range(3):
        message = must_come(broker, "q")
        saw(f"turn {turn}", told(message))
        message.reject()
    saw("turn 3", told(must_come(broker, "q")))


@case
def the_same_queue_for_another_reason(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("graves", "fanout")
    broker.declare_queue("q", {"x-dead-letter-exchange": "graves"})
    broker.bind_queue("q", "graves")
    broker.declare_queue("dead")
    broker.bind_queue("dead", "graves")
    broker.publish("x", "q", expiration=20)
    saw("expired", told(must_come(broker, "dead")))
    saw("a cycle without a rejection", arrives(broker, "q"))
    broker.publish("y", "q")
    must_come(broker, "q").reject()
    message = must_come(broker, "q")
    saw("rejected into its own queue", told(message))
    message.reject()
    saw("and again", told(must_come(broker, "q")))


@case
def a_cycle_by_expiry(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("graves", "fanout")
    for queue, ttl in (("one", 20), ("two", 40)):
        broker.declare_queue(queue, {"x-dead-letter-exchange": "graves", "x-message-ttl": ttl})
        broker.bind_queue(queue, "graves")
    broker.declare_queue("watch")
    broker.bind_queue("watch", "graves")
    broker.publish("x", "one")
    pass_time(0.5)
    came = sorted((told(must_come(broker, "watch")) for _ in range(ready(broker, "watch"))), key=str)
    saw("deaths seen", [[(death["queue"], death["count"]) for death in each["headers"]["x-death"]] for each in came])
    saw("one", ready(broker, "one"))
    saw("two", ready(broker, "two"))


@case
def a_cycle_by_length(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"})
    for body in ("1", "2", "3"):
        broker.publish(body, "q")
    pass_time(0.2)
    saw("left", bodies(broker, "q"))


@case
def a_dead_letter_and_its_copies(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e")
    broker.declare_exchange("graves")
    for key in ("key", "cc", "bcc", "own"):
        broker.declare_queue(key)
        broker.bind_queue(key, "graves", key)
    for label, arguments in (("keys kept", {}), ("own key", {"x-dead-letter-routing-key": "own"})):
        broker.declare_queue("q", {"x-dead-letter-exchange": "graves"} | arguments)
        broker.bind_queue("q", "e", "key")
        broker.publish("x", "key", "e", {"CC": ["cc"], "BCC": ["bcc"]})
        must_come(broker, "q").reject()
        letter = must_come(broker, "own" if arguments else "key")
        saw(label, told(letter))
        letter.ack()
        for key in ("key", "cc", "bcc", "own"):
            saw(f"{label}: {key}", arrives(broker, key))
        broker.delete_queue("q")


@case
def reached_by_a_copy(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("q", TO_DEAD)
    broker.publish("x", "nobody", headers={"CC": ["q"]})
    must_come(broker, "q").reject()
    saw("by CC", told(must_come(broker, "dead")))
    broker.publish("y", "nobody", headers={"BCC": ["q"]})
    must_come(broker, "q").reject()
    saw("by BCC", told(must_come(broker, "dead")))


@case
def a_death_that_a_client_tells(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("q", TO_DEAD)
    forged: list[dict[str, Any]] = [{"queue": "q", "reason": "rejected", "count": 40, "exchange": ""}]
    broker.publish("x", "q", headers={"x-death": forged, "x-first-death-queue": "nowhere"})
    message = must_come(broker, "q")
    saw("travels", message.headers)
    message.reject()
    saw("dead", told(must_come(broker, "dead")))


@case
def a_dead_letter_published_again(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("q", TO_DEAD)
    broker.publish("x", "q")
    must_come(broker, "q").reject()
    letter = must_come(broker, "dead")
    letter.ack()
    broker.publish(letter.body, "q", headers=letter.headers)
    must_come(broker, "q").reject()
    again = must_come(broker, "dead").headers
    saw("counts", [(death["queue"], death["reason"], death["count"]) for death in again["x-death"]])
    saw("first", [again[f"x-first-death-{what}"] for what in ("queue", "reason", "exchange")])


@case
def what_is_not_a_death(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead")
    broker.declare_queue("q", TO_DEAD)
    broker.publish("purged", "q")
    broker.purge_queue("q")
    broker.publish("deleted", "q")
    broker.delete_queue("q")
    broker.declare_queue("q", TO_DEAD | {"x-expires": 50})
    broker.publish("its queue expired", "q")
    pass_time(0.3)
    saw("dead", arrives(broker, "dead"))


@case
def no_such_exchange(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-dead-letter-exchange": "graves"})
    broker.publish("1", "q")
    must_come(broker, "q").reject()
    pass_time(0.2)
    broker.declare_exchange("graves", "fanout")
    broker.declare_queue("dead")
    broker.bind_queue("dead", "graves")
    broker.publish("2", "q")
    must_come(broker, "q").reject()
    saw("declared later", [told(must_come(broker, "dead")), arrives(broker, "dead")])


@case
def no_queue_to_go_to(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("rest", "fanout")
    broker.declare_exchange("graves", "direct", {"alternate-exchange": "rest"})
    broker.declare_queue("dead")
    broker.bind_queue("dead", "rest")
    broker.declare_queue("q", {"x-dead-letter-exchange": "graves"})
    broker.publish("x", "q")
    must_come(broker, "q").reject()
    saw("its alternate", told(must_come(broker, "dead")))


@case
def no_dead_letter_exchange(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q", {"x-message-ttl": 20})
    broker.publish("expires", "q")
    pass_time(0.1)
    saw("expired", bodies(broker, "q"))
    broker.publish("rejected", "q")
    must_come(broker, "q").reject()
    saw("rejected", bodies(broker, "q"))


@case
def a_dead_letters_priority(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("dead", {"x-max-priority": 9})
    broker.declare_queue("q", TO_DEAD)
    for priority in (2, 7, 5):
        broker.publish(str(priority), "q", priority=priority)
    for _ in range(3):
        must_come(broker, "q").reject()
    saw("all came", wait_until_ready(broker, "dead", 3))
    saw("order", bodies(broker, "dead"))


@case
def a_dead_letter_where_there_is_no_room(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("last")
    to_last = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "last"}
    broker.declare_queue("dead", {"x-max-length": 1} | to_last)
    broker.declare_queue("q", TO_DEAD)
    for body in ("1", "2"):
        broker.publish(body, "q")
    for _ in range(2):
        must_come(broker, "q").reject()
    letter = must_come(broker, "last")
    saw("the last", told(letter))
    saw("dead", bodies(broker, "dead"))
