from typing import Any

import click
import pytest

from shmq_clients.perf.main import main, plan_of
from shmq_clients.perf.plan import Plan


def parsed(*arguments: str) -> Plan:
    options: dict[str, Any] = dict(main.make_context("shmq-perf", list(arguments)).params)
    for name in ("url", "as_json"):
        options.pop(name)
    return plan_of(options)


def test_without_options_one_publishes_to_one_without_end() -> None:
    assert parsed() == Plan()


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ("-x 2 -y 3", {"producers": 2, "consumers": 3}),
        ("--producers 2 --consumers 0", {"producers": 2, "consumers": 0}),
        ("-s 4000 -z 10", {"sizes": ((4000, 1),), "seconds": 10}),
        ("-C 5 -D 6", {"producer_messages": 5, "consumer_messages": 6}),
        ("--pmessages 5 --cmessages 6", {"producer_messages": 5, "consumer_messages": 6}),
        ("-r 100 -R 50 -L 250", {"rate": 100, "consumer_rate": 50, "consumer_latency": 0.00025}),
        ("-q 100 -A 10", {"prefetch": 100, "ack_every": 10}),
        ("-a -u jobs -p", {"auto_ack": True, "queue": "jobs", "predeclared": True}),
        ("-f persistent -f mandatory", {"persistent": True, "mandatory": True}),
        ("-c 100 --confirm-level memory", {"unconfirmed": 100, "confirm": "memory"}),
        ("-e logs -t topic -k a.b", {"exchange": "logs", "exchange_type": "topic", "routing_key": "a.b"}),
        ("-qa x-max-priority=5,x-name=a", {"queue_arguments": {"x-max-priority": 5, "x-name": "a"}}),
        ("--batch 100 --mode socket", {"batch": 100, "mode": "socket"}),
        ("--priorities 0:9,5:1 -i 0.5", {"priorities": ((0, 9), (5, 1)), "interval": 0.5}),
        ("--zero-copy --no-latency", {"zero_copy": True, "measure_latency": False}),
    ],
)
def test_options_say_what_perftest_says(arguments: str, settings: dict[str, Any]) -> None:
    assert parsed(*arguments.split()) == Plan(**settings)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("-s x", "not a size"),
        ("-x -1", "-1"),
        ("-z 0", "0"),
        ("-q 70000", "65535"),
        ("-s 4", "size"),
        ("-qa x-max-priority", "NAME=VALUE"),
        ("--confirm-level maybe", "maybe"),
        ("stray", "stray"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments: str, says: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        parsed(*arguments.split())

    assert says in caught.value.format_message()
