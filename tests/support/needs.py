"""What the host may lack: skipped on a laptop, a failure where CI=true says that everything must be there."""

import os
import shutil
from typing import NoReturn

import pytest

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def missing(what: str) -> NoReturn:
    """Skip the running test because the host lacks `what`; in CI, fail."""
    if IN_CI:
        pytest.fail(f"this host lacks {what}, and CI must not skip it")
    pytest.skip(f"this host lacks {what}")


def program(name: str) -> str:
    """Return the path of the program `name`, or skip (in CI: fail)."""
    return shutil.which(name) or missing(name)
