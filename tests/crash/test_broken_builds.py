"""The harnesses can fail: each switch of `shmq/core/shmq_break.h` breaks the core, and each of these builds is caught.

The same command must pass without the switch. A table at the end says what was caught by what, and in what time. Where
the effect is an order of memory that x86-64 keeps whatever one writes, the model is broken in the same way, and the
fence must be seen to be missing from the code for aarch64 (where a compiler for it is there).
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from support.core_build import CORE, ROOT, SUPPORT, CoreBuild, switches

CROSS_COMPILER: Final = "aarch64-linux-gnu-gcc"
PATIENCE_S: Final = 120
SANITIZED: Final = ("-O1", "-fPIC", "-fsanitize=thread", "-Wno-tsan")
TELLING: Final = r"FAULT|WARNING: Thr|.*\.c:\d+: in |AssertionError|no "
STEPPING: Final = tuple(sorted((ROOT / "tests/crash/stepping").glob("*.c")))
INTERLEAVED: Final = tuple(sorted((ROOT / "tests/crash/interleaved").glob("*.c")))
SEAM: Final = ("-include", "tests/crash/stale.h", "-include", "tests/crash/interleaved/seam.h")
C_TESTS: Final = (
    "test_arena",
    "test_bell",
    "test_counting",
    "test_deliver",
    "test_heal",
    "test_limit",
    "test_returned",
    "test_ring",
    "test_ring_full",
    "test_slot",
    "test_stress",
    "test_sweep",
)
# A consumer that comes to a message that is there already must not sleep.
WAIT: Final = """
from shmq import core
from support.segments import segment
with segment() as made:
    queue = made.attach(32)
    queue.publish(b"")
    assert core.wait([queue], core.CONSUMERS, 100_000_000) == core.LOOK, "slept beside a message"
"""

# Each switch with what must catch it; the first one is named in the table.
CATCHERS: Final[dict[str, tuple[str, ...]]] = {
    "COMMIT_BEFORE_BODY": ("stepping publish/one",),
    "GENERATION_KEPT": ("c test_stress", "c test_slot", "model ring"),
    "DELIVERY_WITHOUT_SWAP": ("stepping deliver/one", "model ring"),
    "GATE_RAISED_LATE": ("stepping publish/gated levels",),
    "GATE_LOWERED_EARLY": ("stepping deliver/gated levels",),
    "SLEEP_WITHOUT_LOOK": ("wait", "model bell"),
    "REGISTER_WITHOUT_FENCE": ("model bell", "aarch64 shmq_bell_register"),
    "RING_WITHOUT_FENCE": ("model bell", "aarch64 shmq_bell_ring"),
    "TOKEN_AFTER_COUNT": ("stepping publish/sleepers", "model bell"),
    "LEAVES_WITH_TOKEN": ("c test_bell", "model bell"),
    "STALE_RINGS": ("interleaved sleepers, bells of old", "c test_bell"),
    "REAPS_THE_STOPPED": ("stepping publish/one", "c test_sweep"),
    "ACK_WITHOUT_OWNER": ("stepping ack/one", "c test_deliver"),
    "DELIVERIES_SATURATE": ("c test_deliver",),
    "TAIL_NOT_HELPED": ("c test_ring", "model ring"),
    "HALF_DONE_TAKE_UNSEEN": ("c test_ring", "model ring"),
    "HEAD_MOVED_BLINDLY": ("c test_ring", "model ring"),
    "FULL_FROM_HINTS": ("c test_slot", "model ring"),
    "GRANULES_BY_SLOT": ("c test_arena",),
    "RETURNED_AFTER_MAIN": ("stepping deliver/returned", "c test_deliver"),
    "MIDDLE_TAKE_LEAVES": ("c test_deliver",),
    "WINDOW_OF_POSITIONS": ("c test_deliver",),
    "MOVE_MARKS_FIRST": ("stepping deliver/behind a gap",),
    "CLEARS_WHAT_CAME": ("c test_ring",),
    "SPILL_CLEARS_FIRST": ("stepping publish/spill",),
    "ROTATES_WHEN_NOT_FULL": ("c test_ring_full",),
    "HEALER_LOOKS_ONCE": ("c test_heal",),
    "HEALER_COUNTS_AT_ONCE": ("stepping publish/drops the head", "interleaved heal, miscounted", "c test_counting"),
    "DROPS_AS_SEEN": ("interleaved drops the head, publishers", "c test_limit"),
    "DROPS_COUNTED_LATE": ("stepping deliver/drops the head",),
    "DROPS_COUNTED_EARLY": ("stepping publish/drops the head",),
    "REFUSES_COUNTED_LATE": ("stepping publish/refusing", "c test_limit"),
    "DUE_WRITTEN_LATE": ("stepping requeue/delayed retry",),
    "EXPIRY_EMPTIED_LATE": ("interleaved first expiry",),
    "READY_RELAXED": ("tsan READY", "model ring"),
    "FREE_RELAXED": ("tsan FREE", "model ring"),
    "LEVELS_RELAXED": ("tsan LEVELS",),
    "SLOTS_RELAXED": ("tsan SLOTS",),
    "TIERS_RELAXED": ("tsan TIERS",),
    "BACK_RELAXED": ("tsan BACK", "model growth"),
    "MAGIC_RELAXED": ("tsan MAGIC",),
}


@dataclass(frozen=True)
class Verdict:
    """What a harness said of a build."""

    code: int
    said: str
    seconds: float = 0.0

    def story(self) -> str:
        """Return the line that says what was wrong."""
        lines = [line.strip() for line in self.said.splitlines()]
        telling = [n for n, line in enumerate(lines) if re.match(TELLING, line)]
        if not telling:
            return lines[-1] if lines else ""
        line = lines[telling[0]]
        if line.startswith("FAULT ") and telling[0] + 1 < len(lines):
            return lines[telling[0] + 1].partition(", while")[0]
        if line.startswith("WARNING"):
            return next((line for line in lines if line.startswith("SUMMARY")), line).replace(f"{ROOT}/", "")
        return line.rpartition("FAULT: ")[2].removeprefix(f"{ROOT}/")


Verdicts = dict[tuple[str, str | None], tuple[Verdict, int]]  # by catcher and switch; with the code that means "caught"


class Workshop:
    """Builds harnesses with one thing broken, or none, and runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain = CoreBuild(self.make("plain"), ("-O1", "-fPIC"))
        self.stepped = CoreBuild(self.make("stepped"), ("-O1", "-fPIC", "-include", "tests/crash/stale.h"))
        self.seamed = CoreBuild(self.make("seamed"), ("-O1", "-fPIC", *SEAM))
        self.sanitized = CoreBuild(self.make("sanitized"), SANITIZED)
        self.extension = CoreBuild(self.make("extension"), ("-O0", "-fPIC", f"-isystem{sysconfig.get_path('include')}"))
        self.explorer = CoreBuild(self.make("model"), ("-O2",))
        self.harnesses: dict[str, tuple[Callable[[str, str | None], Verdict], int]] = {
            "c": (self.c, -6),
            "stepping": (self.stepping, 1),
            "interleaved": (self.interleaved, 1),
            "model": (self.model, 1),
            "tsan": (self.tsan, 66),
            "wait": (self.wait, 1),
            "aarch64": (self.aarch64, 1),
        }

    def make(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made

    def prepare(self, pool: ThreadPoolExecutor) -> None:
        """Compile all that is not broken, once."""
        tests = [ROOT / f"tests/c/{name}.c" for name in C_TESTS]
        list(pool.map(self.plain.compile, [*CORE, SUPPORT, *tests]))
        list(pool.map(self.stepped.compile, [*CORE, SUPPORT, *STEPPING]))
        list(pool.map(self.seamed.compile, [*CORE, SUPPORT, *INTERLEAVED]))
        edges = [ROOT / "tests/orders/one_mapping.c", ROOT / "tests/orders/edges.c"]
        list(pool.map(self.sanitized.compile, [*CORE, SUPPORT, *edges]))
        list(pool.map(self.extension.compile, sorted((ROOT / "shmq/core").glob("py_*.c"))))
        self.explorer.link("model", sorted((ROOT / "tests/model").glob("*.c")))

    def try_one(self, catcher: str, switch: str | None) -> tuple[Verdict, int]:
        """Return the verdict of a harness over a build, and the exit code that it has when it catches something."""
        kind, _, what = catcher.partition(" ")
        harness, code = self.harnesses[kind]
        start = time.monotonic()
        verdict = harness(what, switch)
        return Verdict(verdict.code, verdict.said, time.monotonic() - start), code

    def run(self, command: list[str], folder: Path = ROOT, **environment: str) -> Verdict:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Verdict(done.returncode, done.stdout)

    def c(self, test: str, switch: str | None) -> Verdict:
        driver = self.plain.link(test, [*CORE, SUPPORT, ROOT / f"tests/c/{test}.c"], switch=switch)
        return self.run([str(driver)], SHMQ_TEST_MESSAGES="5000", SHMQ_TEST_SEED="1")

    def stepping(self, scene: str, switch: str | None) -> Verdict:
        driver = self.stepped.link("stepping", [*CORE, SUPPORT, *STEPPING], "-Wl,-z,now", "-ldl", switch=switch)
        return self.run([str(driver), "--only", scene, "--sample", "400", "--seed", "3"])

    def interleaved(self, scene: str, switch: str | None) -> Verdict:
        driver = self.seamed.link("interleaved", [*CORE, SUPPORT, *INTERLEAVED], switch=switch)
        return self.run([str(driver), "--only", scene, "--preemptions", "2", "--sample", "20000", "--seed", "3"])

    def model(self, subject: str, switch: str | None) -> Verdict:
        return self.run([str(self.folder / "model/model"), subject, *([switch] if switch else [])])

    def tsan(self, edge: str, switch: str | None) -> Verdict:
        sources = [*CORE, SUPPORT, ROOT / "tests/orders/one_mapping.c", ROOT / "tests/orders/edges.c"]
        driver = self.sanitized.link("edges", sources, "-Wl,--wrap=mmap,--wrap=munmap", switch=switch)
        return self.run([str(driver), edge])

    def wait(self, _: str, switch: str | None) -> Verdict:
        folder = self.make(f"python-{switch}")
        sources = shutil.ignore_patterns("*.so", "*.c", "*.h", "__pycache__")
        shutil.copytree(ROOT / "shmq", folder / "shmq", ignore=sources)
        binding = [self.extension.compile(path, switch) for path in sorted((ROOT / "shmq/core").glob("py_*.c"))]
        core = [self.plain.compile(path, switch) for path in CORE]
        made = self.extension.link("_core.so", [], *map(str, [*binding, *core]), "-shared", switch=switch)
        made.rename(folder / "shmq/core/_core.so")
        return self.run([sys.executable, "-c", WAIT], folder, PYTHONPATH=f"{folder}:{ROOT / 'tests'}")

    def aarch64(self, function: str, switch: str | None) -> Verdict:
        broken = [f"-DSHMQ_BREAK_{switch}"] if switch else []
        compiler = [CROSS_COMPILER, "-std=c11", "-O2", *broken, "-S", "shmq/core/bell.c", "-o", "-"]
        code = self.run(compiler).said.partition(f"\n{function}:\n")[2].partition(f".size\t{function}")[0]
        return Verdict(0, "") if "dmb\tish" in code else Verdict(1, f"no full fence in {function}")


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    workshop = Workshop(tmp_path_factory.mktemp("broken"))
    here = shutil.which(CROSS_COMPILER) is not None
    pairs: dict[tuple[str, str | None], None] = {}
    for switch, catchers in CATCHERS.items():
        for catcher in catchers:
            if here or not catcher.startswith("aarch64"):
                pairs[catcher, None] = pairs[catcher, switch] = None
    with ThreadPoolExecutor(2) as pool:
        workshop.prepare(pool)
        found = dict(zip(pairs, pool.map(lambda pair: workshop.try_one(*pair), pairs), strict=True))
    yield found
    lines = [
        f"{switch:24} {catchers[0]:30} {verdict.seconds:5.1f} s  {verdict.story()}"
        for switch, catchers in CATCHERS.items()
        for verdict, _ in [found[catchers[0], switch]]
    ]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("\n" + "\n".join(lines))


def test_every_switch_has_something_that_must_catch_it() -> None:
    assert sorted(switches()) == sorted(CATCHERS)


@pytest.mark.slow
@pytest.mark.parametrize("switch", CATCHERS)
def test_a_broken_build_is_caught(switch: str, verdicts: Verdicts) -> None:
    for catcher in CATCHERS[switch]:
        if (catcher, switch) not in verdicts:
            continue  # no compiler for aarch64 here
        whole, _ = verdicts[catcher, None]
        broken, code_of_a_catch = verdicts[catcher, switch]

        assert whole.code == 0, f"{catcher} fails with nothing broken:\n{whole.said[-4000:]}"
        assert broken.code == code_of_a_catch, f"{catcher} does not catch {switch}:\n{broken.said[-4000:]}"
