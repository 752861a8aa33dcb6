"""What a broker costs that has nothing to do, by the measures of benchmarks/idle.py.

Time on the clock depends on what else the host does: there the limits are generous. Memory and the time of the
processes themselves do not: there they are the figures to meet.
"""

import statistics
from collections.abc import Iterator

import pytest

import shmq
from benchmarks import idle
from support.deadline import scaled

pytestmark = pytest.mark.slow
SECONDS = 5.0
START_CPU_SECONDS = 0.5
QUEUES, CONNECTIONS = 1_000, 20


@pytest.fixture
def conn() -> Iterator[shmq.Connection]:
    with idle.broker() as running, shmq.connect(running.url) as connection:
        yield connection


def share_of_a_core(conn: shmq.Connection) -> float:
    """The lower of two looks: neighbours in the caches make a process slower, never quicker."""
    processes = idle.pids(conn)
    shares = [idle.cpu_share(processes, SECONDS)]
    if shares[0] > idle.CPU_SHARE:
        shares.append(idle.cpu_share(processes, SECONDS))
    print(f"processor: {min(shares):.3%}")
    return min(shares)


def test_it_is_ready_soon() -> None:
    seconds = idle.start_times(5)

    print(f"ready: {statistics.median(seconds):.3f} s, at best {min(seconds):.3f} s")
    assert min(seconds) <= scaled(4 * idle.READY_SECONDS)


def test_being_ready_takes_half_a_second_of_processor_time_at_most(conn: shmq.Connection) -> None:
    used = idle.cpu_seconds(idle.pids(conn))

    print(f"start: {used:.3f} s of processor time")
    assert used <= START_CPU_SECONDS


def test_its_memory_stays_within_bounds(conn: shmq.Connection) -> None:
    pss = idle.pss_mib(idle.pids(conn))

    print(f"PSS: {pss:.1f} MiB")
    assert pss <= idle.PSS_MIB


def test_alone_it_leaves_the_processor_alone(conn: shmq.Connection) -> None:
    assert share_of_a_core(conn) <= idle.CPU_SHARE


def test_connections_that_wait_cost_no_processor_time() -> None:
    with idle.broker() as running, idle.waiting(running.url, CONNECTIONS), shmq.connect(running.url) as conn:
        assert share_of_a_core(conn) <= idle.CPU_SHARE


def test_a_thousand_idle_queues_stay_small_and_quiet(conn: shmq.Connection) -> None:
    shm = idle.declare(conn, QUEUES)

    print(f"shared memory of {QUEUES} idle queues: {shm:.1f} MiB")
    assert shm <= idle.SHM_MIB
    assert share_of_a_core(conn) <= idle.CPU_SHARE
