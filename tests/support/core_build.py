"""Programs built from the core's C sources, whole or with one thing broken (`shmq/core/shmq_break.h`).

Objects are kept: for a broken build only what its switch is in is compiled anew.
"""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

from support.needs import program

ROOT: Final = Path(__file__).parents[2]
CORE: Final = tuple(path for path in sorted((ROOT / "shmq/core").glob("*.c")) if not path.name.startswith("py_"))
SUPPORT: Final = ROOT / "tests/c/support.c"
WARNINGS: Final = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
INCLUDES: Final = ("-Ishmq/core", "-Itests/c", "-Itests/crash/stepping", "-Itests/model")
BREAK: Final = ROOT / "shmq/core/shmq_break.h"


def switches() -> list[str]:
    """Return the switches that the header lists."""
    return re.findall(r"(?:^ \*   |, |and )([A-Z]+(?:_[A-Z]+)+)", BREAK.read_text().partition("*/")[0], re.MULTILINE)


def is_in(switch: str, source: Path) -> bool:
    """Tell whether `source` looks at `switch`."""
    return re.search(rf"\({switch}[,)]", source.read_text()) is not None


def run_compiler(*arguments: str) -> None:
    """Run the C compiler in the root of the tree; what it says is in the error."""
    done = subprocess.run(
        [program("cc"), *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@dataclass
class CoreBuild:
    """Where objects and programs of one set of flags go. Several threads may build."""

    folder: Path
    flags: Sequence[str] = ("-O1", "-fPIC")
    locks: defaultdict[Path, Lock] = field(default_factory=lambda: defaultdict(Lock))

    def make(self, made: Path, *arguments: str) -> Path:
        """Compile or link `made`, unless it is there."""
        with self.locks[made]:
            if not made.exists():
                run_compiler(*self.flags, *arguments, "-o", str(made))
        return made

    def compile(self, source: Path, switch: str | None = None) -> Path:
        """Return the object of `source`."""
        if switch and not is_in(switch, source) and not any(is_in(switch, path) for path in source.parent.glob("*.h")):
            switch = None
        made = self.folder / f"{source.parent.name}-{source.stem}{f'-{switch}' if switch else ''}.o"
        broken = [f"-DSHMQ_BREAK_{switch}"] if switch else []
        return self.make(made, *WARNINGS, "-g", *INCLUDES, *broken, "-c", str(source))

    def link(self, name: str, sources: Iterable[Path], *arguments: str, switch: str | None = None) -> Path:
        """Return the program, or what `arguments` make of it, of `sources`."""
        objects = [str(self.compile(source, switch)) for source in sources]
        return self.make(self.folder / (f"{name}-{switch}" if switch else name), *objects, *arguments, "-pthread")
