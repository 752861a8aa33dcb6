"""For the crash tests: figures are shown in every run, not only with `-s` or after a failure."""

from collections.abc import Callable

import pytest


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line for the reader of the run."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return line
