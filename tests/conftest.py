"""For the whole suite: hypothesis' profile, Ctrl-C, and a word when an earlier run died without one.

pytest writes its results at the end. A run that dies in C, or is killed, writes nothing and would look as if it had
never been; so each run leaves a file with the test it is in, named after its pid, and takes it away at its end.
"""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A loaded host is slow; deadlines belong to what a test measures, not to each example.
settings.register_profile("shmq", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shmq")

# A shell without job control has us ignore it in the background, and our children too, which some tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


class RunMark:
    """The file that says which test this run is in, and what earlier runs left behind."""

    def __init__(self, folder: Path) -> None:
        self.died_in: list[str] = []
        for mark in folder.iterdir():
            if not Path("/proc", mark.name).exists():
                self.died_in.append(mark.read_text() or "no test")
                mark.unlink(missing_ok=True)
        self.mark = folder / str(os.getpid())
        self.mark.touch()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Write down the test that begins."""
        self.mark.write_text(nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the tests in which earlier runs died."""
        for test in self.died_in:
            terminalreporter.write_line(f"an earlier run died, in C or killed, in: {test}", yellow=True)

    def pytest_unconfigure(self) -> None:
        """Say that this run came to its end."""
        self.mark.unlink(missing_ok=True)


def pytest_configure(config: pytest.Config) -> None:
    """Set this run's mark, unless the cache that would hold it is off."""
    if config.pluginmanager.hasplugin("cacheprovider") and config.cache is not None:
        config.pluginmanager.register(RunMark(config.cache.mkdir("shmq-runs")))
