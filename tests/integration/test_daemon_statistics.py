"""What it costs to look: statistics are read from shared memory, so a monitor may ask often."""

from pathlib import Path

import psutil  # type: ignore[import-untyped] # ships no types

from support.shmqd import instance

QUEUES, READINGS, MESSAGES = 100, 40, 200
COST_MAX = 0.01  # seconds of a core for one reading of all: two a second are then 2 % of one core at the very most


def test_reading_all_queues_twice_a_second_costs_nearly_nothing(tmp_path: Path) -> None:
    with instance(tmp_path) as daemon, daemon.connect("direct") as conn:
        for number in range(QUEUES):
            name = conn.declare_queue(f"q{number}", capacity_messages=1000, max_priority=9).name
            conn.publish_many([b"x"] * MESSAGES, routing_key=name)
            conn.ack_many(conn.get_batch(name, max_messages=MESSAGES))
        broker = psutil.Process(daemon.child("broker"))
        before = sum(broker.cpu_times()[:2])
        for _ in range(READINGS):
            infos = conn.queues()
        cost = (sum(broker.cpu_times()[:2]) - before) / READINGS

    print(f"\none reading of {QUEUES} queues costs the broker {cost * 1e3:.1f} ms of a core")
    assert [info.time_to_ack.count for info in infos] == [MESSAGES] * QUEUES
    assert cost <= COST_MAX


def test_queues_with_many_arguments_are_listed_in_smaller_pages(tmp_path: Path) -> None:
    arguments = {f"x-note-{number}": "v" * 4000 for number in range(20)}
    with instance(tmp_path) as daemon, daemon.connect() as conn:
        names = {conn.declare_queue(f"q{number}", arguments=arguments).name for number in range(30)}

        assert {info.definition.name for info in conn.queues()} == names
