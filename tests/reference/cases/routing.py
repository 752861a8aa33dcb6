"""Where messages go: exchanges of every type, bindings between them, alternates, CC and BCC, mandatory."""

from typing import Any

from reference.cases.asking import bodies, must_come
from reference.driver import Broker
from reference.record import Saw, case

PATTERNS = (
    "", "#", "*", "a", "b", "a.b", "a.*", "*.b", "*.*", "#.a", "a.#", "#.b", "#.a.#", "a.#.b", "*.#", "#.*", "#.#",
    "*.#.*", "a..b", "a.*.b", ".", "..", "a.", ".a", "*.", ".*", "a*", "a#", "**", "A", "a.*.#.b", "#.c", "a.b.#.c.#",
)  # fmt: skip
KEYS = (
    "",
    ".",
    "..",
    "a",
    "b",
    "A",
    "a.b",
    "a..b",
    "a.",
    ".a",
    "a.b.c",
    "a.x.b",
    "a.x.y.b",
    "aa",
    "a.a",
    "*",
    "#",
    "b.a",
)


@case
def topic_patterns(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "topic")
    for number, pattern in enumerate(PATTERNS):
        broker.declare_queue(f"q{number}")
        broker.bind_queue(f"q{number}", "e", pattern)
    for key in KEYS:
        broker.publish(key, key, "e")

    for number, pattern in enumerate(PATTERNS):
        saw(f"pattern '{pattern}' gets", bodies(broker, f"q{number}"))


HEADERS_BINDINGS: dict[str, dict[str, Any]] = {
    "all of none": {},
    "any of none": {"x-match": "any"},
    "a=1 (no x-match)": {"a": 1},
    "all a=1": {"x-match": "all", "a": 1},
    "all a=1 b=2": {"x-match": "all", "a": 1, "b": "2"},
    "any a=1 b=2": {"x-match": "any", "a": 1, "b": "2"},
    "all a": {"x-match": "all", "a": None},
    "any a b": {"x-match": "any", "a": None, "b": None},
    "all a=1 x-b=2": {"x-match": "all", "a": 1, "x-b": 2},
    "any a=1 x-b=2": {"x-match": "any", "a": 1, "x-b": 2},
    "all-with-x a=1 x-b=2": {"x-match": "all-with-x", "a": 1, "x-b": 2},
    "any-with-x a=1 x-b=2": {"x-match": "any-with-x", "a": 1, "x-b": 2},
    "any x-b=2": {"x-match": "any", "x-b": 2},
    "all a=1.0": {"x-match": "all", "a": 1.0},
    "all a=true": {"x-match": "all", "a": True},
    "all a='1'": {"x-match": "all", "a": "1"},
    "all a=''": {"x-match": "all", "a": ""},
}
MESSAGES: dict[str, dict[str, Any] | None] = {
    "no headers": None,
    "a=1": {"a": 1},
    "a=1 b=2": {"a": 1, "b": "2"},
    "a=2": {"a": 2},
    "a=1.0": {"a": 1.0},
    "a=true": {"a": True},
    "a=false": {"a": False},
    "a='1'": {"a": "1"},
    "a=''": {"a": ""},
    "a=null": {"a": None},
    "b=2": {"b": "2"},
    "x-b=2": {"x-b": 2},
    "a=1 x-b=2": {"a": 1, "x-b": 2},
    "A=1": {"A": 1},
    "c=3": {"c": 3},
}


@case
def headers_forms(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "headers")
    for number, arguments in enumerate(HEADERS_BINDINGS.values()):
        broker.declare_queue(f"q{number}")
        broker.bind_queue(f"q{number}", "e", "", arguments)
    for body, headers in MESSAGES.items():
        broker.publish(body, "ignored", "e", headers)

    for number, label in enumerate(HEADERS_BINDINGS):
        saw(f"{label} gets", bodies(broker, f"q{number}"))


@case
def headers_bindings_that_are_refused(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "headers")
    broker.declare_queue("q")
    for match in ("none", "", 5, True):
        saw.answer(f"x-match {match!r}", broker.bind_queue, "q", "e", "", {"x-match": match, "a": 1})
    broker.bind_queue("q", "amq.direct", "k", {"x-match": "none"})


@case
def direct_keys(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e")
    for queue, *keys in (("one", "a"), ("two", "a", "b"), ("empty", ""), ("star", "*"), ("hash", "#")):
        broker.declare_queue(queue)
        for key in keys:
            broker.bind_queue(queue, "e", key)
    for key in ("a", "b", "", "*", "#", "A", "a.b"):
        broker.publish(f"key {key}", key, "e")

    for queue in ("one", "two", "empty", "star", "hash"):
        saw(queue, bodies(broker, queue))


@case
def fanout_ignores_keys(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "fanout")
    for queue, key in (("one", "a"), ("two", "")):
        broker.declare_queue(queue)
        broker.bind_queue(queue, "e", key)
    broker.bind_queue("one", "e", "b")
    for key in ("a", "c", ""):
        broker.publish(f"key {key}", key, "e")

    saw("one", bodies(broker, "one"))
    saw("two", bodies(broker, "two"))


@case
def default_exchange(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    broker.publish("there", "q")
    broker.publish("nowhere", "nobody")
    saw.answer("bind", broker.bind_queue, "q", "", "k")
    saw.answer("unbind", broker.unbind_queue, "q", "", "q")
    saw.answer("declare", broker.declare_exchange, "", "direct")
    saw.answer("declare passively", broker.declare_exchange, "", "direct", passive=True)
    saw.answer("delete", broker.delete_exchange, "")
    broker.declare_exchange("e")
    saw.answer("bind it to an exchange", broker.bind_exchange, "e", "", "k")
    saw.answer("bind an exchange to it", broker.bind_exchange, "", "e", "k")
    message = must_come(broker, "q")
    saw("it came through", (message.exchange, message.routing_key))


@case
def predeclared_exchanges(broker: Broker, saw: Saw) -> None:
    kinds = {"direct": "direct", "fanout": "fanout", "topic": "topic", "headers": "headers", "match": "headers"}
    for name, kind in kinds.items():
        saw.answer(f"amq.{name} is there", broker.declare_exchange, f"amq.{name}", kind, passive=True)
        saw.answer(f"amq.{name} declared the same", broker.declare_exchange, f"amq.{name}", kind)
    saw.answer("amq.direct declared as fanout", broker.declare_exchange, "amq.direct", "fanout")
    saw.answer("amq.direct deleted", broker.delete_exchange, "amq.direct")
    saw.answer("amq.mine declared", broker.declare_exchange, "amq.mine")
    saw.answer("amq.mine declared passively", broker.declare_exchange, "amq.mine", passive=True)
    saw.answer("a queue amq.mine", broker.declare_queue, "amq.mine")


@case
def bindings_taken_back(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "topic")
    broker.declare_queue("q")
    for key in ("a", "a", "b", "#"):
        broker.bind_queue("q", "e", key)
    broker.publish("bound by all", "a", "e")
    broker.unbind_queue("q", "e", "#")
    broker.publish("bound by a", "a", "e")
    broker.unbind_queue("q", "e", "a")
    broker.publish("bound by b alone", "a", "e")
    broker.publish("bound by b", "b", "e")
    saw("it got", bodies(broker, "q"))
    saw.answer("unbind what is not bound", broker.unbind_queue, "q", "e", "never")
    saw.answer("unbind from no exchange", broker.unbind_queue, "q", "nowhere", "a")
    saw.answer("unbind no queue", broker.unbind_queue, "nobody", "e", "a")
    saw.answer("bind to no exchange", broker.bind_queue, "q", "nowhere", "a")
    saw.answer("bind no queue", broker.bind_queue, "nobody", "e", "a")
    saw.answer("bind an exchange to none", broker.bind_exchange, "e", "nowhere", "a")
    saw.answer("bind none to an exchange", broker.bind_exchange, "nowhere", "e", "a")


@case
def bindings_that_differ_in_arguments(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e")
    broker.declare_queue("q")
    broker.bind_queue("q", "e", "k", {"n": 1})
    broker.bind_queue("q", "e", "k", {"n": 2})
    broker.publish("two bindings", "k", "e")
    broker.unbind_queue("q", "e", "k", {"n": 3})
    broker.unbind_queue("q", "e", "k", {"n": 1})
    broker.publish("one binding", "k", "e")
    broker.unbind_queue("q", "e", "k", {"n": 2})
    broker.publish("none", "k", "e")
    saw("it got", bodies(broker, "q"))


@case
def exchange_to_exchange(broker: Broker, saw: Saw) -> None:
    for name, kind in (("in", "topic"), ("left", "fanout"), ("right", "direct"), ("out", "fanout")):
        broker.declare_exchange(name, kind)
    broker.bind_exchange("left", "in", "a.#")
    broker.bind_exchange("right", "in", "#.b")
    broker.bind_exchange("out", "left")
    broker.bind_exchange("out", "right", "a.b")
    broker.bind_exchange("in", "out", "#")  # a cycle
    for queue, exchange, key in (("q-left", "left", ""), ("q-right", "right", "x.b"), ("q-out", "out", "")):
        broker.declare_queue(queue)
        broker.bind_queue(queue, exchange, key)
    for key in ("a.b", "a", "x.b", "c"):
        broker.publish(key, key, "in")
        broker.publish(f"{key} at left", key, "left")

    for queue in ("q-left", "q-right"):
        saw(queue, bodies(broker, queue))
    message = must_come(broker, "q-out")
    saw("the exchange told", (message.exchange, message.routing_key))
    message.nack()
    saw("q-out", bodies(broker, "q-out"))
    broker.unbind_exchange("left", "in", "a.#")
    broker.publish("no longer", "a", "in")
    saw("after unbinding", bodies(broker, "q-left"))
    broker.delete_exchange("left")
    saw.answer("a binding of a deleted exchange", broker.unbind_exchange, "out", "left")


@case
def alternates(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("last", "fanout")
    broker.declare_exchange("second", "direct", {"alternate-exchange": "last"})
    broker.declare_exchange("first", "topic", {"alternate-exchange": "second"})
    for queue, exchange, key in (("one", "first", "a.*"), ("two", "second", "b"), ("three", "last", "")):
        broker.declare_queue(queue)
        broker.bind_queue(queue, exchange, key)
    for key in ("a.b", "b", "c"):
        saw.answer(f"mandatory {key}", broker.publish, key, key, "first", mandatory=True)
    for queue in ("one", "two"):
        saw(queue, bodies(broker, queue))
    message = must_come(broker, "three")
    saw("three", (message.body, message.exchange, message.routing_key))


@case
def alternates_in_a_loop_and_missing(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("one", "direct", {"alternate-exchange": "other"})
    broker.declare_exchange("other", "direct", {"alternate-exchange": "one"})
    saw.answer("round and round", broker.publish, "x", "k", "one", mandatory=True)
    broker.declare_exchange("to nowhere", "direct", {"alternate-exchange": "missing"})
    saw.answer("no alternate there", broker.publish, "x", "k", "to nowhere", mandatory=True)
    broker.declare_exchange("to itself", "direct", {"alternate-exchange": "to itself"})
    saw.answer("its own alternate", broker.publish, "x", "k", "to itself", mandatory=True)
    broker.declare_exchange("missing", "fanout")
    broker.declare_queue("q")
    broker.bind_queue("q", "missing")
    saw.answer("declared later", broker.publish, "x", "k", "to nowhere", mandatory=True)
    broker.declare_exchange("to default", "direct", {"alternate-exchange": ""})
    saw.answer("the default exchange", broker.publish, "y", "q", "to default", mandatory=True)
    saw("q", bodies(broker, "q"))


@case
def an_alternate_behind_another_exchange(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("rest", "fanout")
    broker.declare_exchange("inner", "direct", {"alternate-exchange": "rest"})
    broker.declare_exchange("outer", "fanout")
    broker.bind_exchange("inner", "outer")
    for queue, exchange, key in (("matched", "inner", "k"), ("rest", "rest", ""), ("outer", "outer", "")):
        broker.declare_queue(queue)
        broker.bind_queue(queue, exchange, key)
    broker.publish("k", "k", "outer")
    broker.publish("other", "other", "outer")
    for queue in ("matched", "rest", "outer"):
        saw(queue, bodies(broker, queue))


@case
def copies(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e")
    for queue in ("key", "cc", "bcc", "both"):
        broker.declare_queue(queue)
        broker.bind_queue(queue, "e", queue)
    broker.bind_queue("both", "e", "key")
    broker.publish("1", "key", "e", {"CC": ["cc", "nobody", "key"], "BCC": ["bcc", "both"], "mine": 1})
    for queue in ("key", "cc", "bcc", "both"):
        message = must_come(broker, queue)
        saw(f"{queue} hears", (message.routing_key, sorted(message.headers.items(), key=str)))
        message.ack()
        saw(f"{queue} has more", bodies(broker, queue))
    saw.answer("CC alone is routed", broker.publish, "2", "nobody", "e", {"CC": ["cc"]}, mandatory=True)
    saw.answer("BCC alone is routed", broker.publish, "3", "nobody", "e", {"BCC": ["bcc"]}, mandatory=True)
    saw.answer("empty", broker.publish, "4", "key", "e", {"CC": [], "BCC": []}, mandatory=True)
    saw("cc", bodies(broker, "cc"))
    message = must_come(broker, "bcc")
    saw("only BCC leaves", message.headers)


@case
def copies_by_the_default_exchange_and_by_topics(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "topic")
    for queue, pattern in (("one", "a.*"), ("two", "#.c"), ("three", "x")):
        broker.declare_queue(queue)
        broker.bind_queue(queue, "e", pattern)
    broker.publish("default", "one", headers={"CC": ["two", "one"], "BCC": ["three"]})
    broker.publish("topic", "a.b", "e", {"CC": ["b.c"], "BCC": ["a.c"]})
    for queue in ("one", "two", "three"):
        saw(queue, bodies(broker, queue))


@case
def copies_that_are_no_arrays_of_text(broker: Broker, saw: Saw) -> None:
    broker.declare_queue("q")
    for header in ("CC", "BCC"):
        for value in ("q", 5, {"a": 1}, None, True, [5], ["q", 5], [None]):
            saw.answer(f"{header} {value!r}", broker.publish, "x", "q", headers={header: value})


@case
def mandatory(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e")
    broker.declare_queue("q")
    broker.bind_queue("q", "e", "k")
    for exchange in ("", "e"):
        saw.answer(f"unroutable at '{exchange}'", broker.publish, "x", "nobody", exchange)
        saw.answer(f"mandatory, unroutable at '{exchange}'", broker.publish, "x", "nobody", exchange, mandatory=True)
    saw.answer("mandatory, routable", broker.publish, "x", "k", "e", mandatory=True)
    saw.answer("no such exchange", broker.publish, "x", "k", "nowhere")
    saw.answer("no such exchange, mandatory", broker.publish, "x", "k", "nowhere", mandatory=True)
    saw("q", bodies(broker, "q"))


@case
def internal_exchanges(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("inner", "fanout", internal=True)
    broker.declare_exchange("outer", "fanout")
    broker.declare_queue("q")
    broker.bind_queue("q", "inner")
    saw.answer("publish", broker.publish, "x", "k", "inner")
    broker.bind_exchange("inner", "outer")
    broker.publish("through", "k", "outer")
    saw("q", bodies(broker, "q"))


@case
def a_queue_deleted_and_declared_anew_has_no_bindings(broker: Broker, saw: Saw) -> None:
    broker.declare_exchange("e", "fanout")
    broker.declare_queue("q")
    broker.bind_queue("q", "e")
    broker.delete_queue("q")
    broker.declare_queue("q")
    saw.answer("publish", broker.publish, "x", "k", "e", mandatory=True)
    saw("q", bodies(broker, "q"))
