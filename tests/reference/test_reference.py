"""Each case at RabbitMQ and at shmq: they see the same, but for what docs/DIFFERENCES.md lists."""

import pytest

from reference.by_pika import PikaBroker
from reference.by_shmq import Mode, ShmqBroker
from reference.cases import ALL_CASES
from reference.record import DIFFERENCES, differences, judge, listed
from reference.run import seen

pytestmark = pytest.mark.slow
LISTED = listed(DIFFERENCES.read_text())
_seen_at_rabbitmq: dict[str, dict[str, str]] = {}


@pytest.mark.parametrize("mode", ["auto", "socket"])
@pytest.mark.parametrize("name", ALL_CASES)
def test_the_two_see_the_same_but_for_what_is_listed(rabbitmq_port: int, shmq_url: str, name: str, mode: Mode) -> None:
    if name not in _seen_at_rabbitmq:
        _seen_at_rabbitmq[name] = seen(ALL_CASES[name], PikaBroker(rabbitmq_port))
    found = differences(_seen_at_rabbitmq[name], seen(ALL_CASES[name], ShmqBroker(shmq_url, mode)))

    complaint = judge(name, found, LISTED.get(name, {}))
    assert not complaint, complaint
