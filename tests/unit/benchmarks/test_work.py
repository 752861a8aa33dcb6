import pytest

from benchmarks.side_by_side.tables import count, size, table, times
from benchmarks.side_by_side.work import KIB, MIB, RUN_BYTES_MAX, Work, batches


@pytest.mark.parametrize(("producers", "consumers", "messages"), [(1, 1, 7), (4, 4, 1000), (2, 8, 3), (8, 2, 99)])
def test_what_is_published_is_what_is_consumed_in_equal_shares(producers: int, consumers: int, messages: int) -> None:
    work = Work(producers=producers, consumers=consumers).of(messages)

    published = [work.published_by(i) for i in range(producers)]
    consumed = [work.consumed_by(i) for i in range(consumers)]
    assert sum(published) == sum(consumed) == work.messages > 0
    assert len(set(published)) == len(set(consumed)) == 1


@pytest.mark.parametrize("body_bytes", [64, 64 * KIB, MIB, 64 * MIB])
def test_a_run_is_bounded_in_bytes(body_bytes: int) -> None:
    work = Work(body_bytes=body_bytes)

    assert work.messages_max * body_bytes <= RUN_BYTES_MAX
    assert work.on_the_way_bytes >= 4 * body_bytes


def test_priorities_are_all_levels_in_turn() -> None:
    assert list(Work(levels=3).of(7).priorities(0)) == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(("messages", "sizes"), [(250, [100, 100, 50]), (100, [100]), (7, [7]), (0, [])])
def test_batches_make_up_the_messages(messages: int, sizes: list[int]) -> None:
    assert list(batches(messages, 100)) == sizes


def test_tables_are_markdown_with_numbers_to_the_right() -> None:
    assert table(("peer", "rate"), [("a", "1"), ("bcdef", "1,000")]).splitlines() == [
        "| peer  |  rate |",
        "|-------|------:|",
        "| a     |     1 |",
        "| bcdef | 1,000 |",
    ]


def test_numbers_are_for_people() -> None:
    assert [count(1_234_567.8), count(12.345), times(1.5), times(0)] == ["1,234,568", "12.3", "1.50x", "-"]
    assert [size(64), size(16 * KIB), size(64 * MIB)] == ["64 B", "16 KiB", "64 MiB"]
