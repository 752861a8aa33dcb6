"""The example does what its page says, run as a person runs it."""

import subprocess
import sys
from pathlib import Path

from support.deadline import scaled

ROOT = Path(__file__).parents[2]
SAID = """\
the urgent task came first: True
words: {'a': 3, 'message': 2, 'is': 1}
killed in the middle: done by the second process
due in an hour: 1 held by the broker, 0 by the worker
"""


def test_the_example_is_all_as_it_should_be() -> None:
    command = [sys.executable, "-m", "examples.celery_app"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(90), check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    for line in SAID.splitlines():
        assert line in done.stdout, done.stderr
    assert "all as it should be" in done.stdout.splitlines()[-1]
