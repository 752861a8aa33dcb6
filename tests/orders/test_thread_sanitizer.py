"""The threaded tests of the core under ThreadSanitizer: nothing plain is touched but behind a release and an acquire.

gcc's sanitizer does not model fences. None is needed for what it looks at: bells order one atomic word against another
(`tests/model` looks at that), and the fence behind a copy of a body orders two loads. The copy itself may be torn, and
is then dropped: `suppressions.txt`. That each release is needed is shown by `tests/crash/test_broken_builds.py`.
"""

import os
import subprocess

import pytest

from support.core_build import CORE, ROOT, SUPPORT, CoreBuild

SANITIZED = ("-O1", "-fPIC", "-fsanitize=thread", "-Wno-tsan")  # the warning is that fences are not modelled
ONE_MAPPING = (ROOT / "tests/orders/one_mapping.c", "-Wl,--wrap=mmap,--wrap=munmap")
MESSAGES = "3000"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> CoreBuild:
    return CoreBuild(tmp_path_factory.mktemp("tsan"), SANITIZED)


def sanitized(build: CoreBuild, test: str, *arguments: str) -> int:
    source, wrap = ONE_MAPPING
    driver = build.link(test, [*CORE, SUPPORT, source, ROOT / f"tests/c/{test}.c"], wrap)
    # A suppression needs the stack of the earlier access, which a short history has forgotten now and then.
    options = f"suppressions={ROOT / 'tests/orders/suppressions.txt'} history_size=7"
    environment = {**os.environ, "TSAN_OPTIONS": options, "SHMQ_TEST_MESSAGES": MESSAGES}
    command = [str(driver), *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout)
    return done.returncode


@pytest.mark.slow
def test_all_at_once_race_for_nothing(build: CoreBuild) -> None:
    assert sanitized(build, "test_stress") == 0


@pytest.mark.slow
def test_sleepers_and_ringers_race_for_nothing(build: CoreBuild) -> None:
    assert sanitized(build, "test_sleep", MESSAGES) == 0
