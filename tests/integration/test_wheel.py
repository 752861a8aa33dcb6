"""The wheel: built from a clean copy of the tree, installed into a fresh venv, used outside the tree."""

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from shmq._version import __version__

ROOT = Path(__file__).parents[2]
TREE = ["shmq", "daemon", "clients", "pyproject.toml", "setup.py", "README.md", "LICENSE"]
BUILT = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that nothing an earlier build left can get into it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=BUILT)
        else:
            shutil.copy(ROOT / name, tree)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, tree], check=True)
    (built,) = out.glob("shmq-*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh venv that holds the wheel, from the package index for all it needs."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", f"{wheel}[demo]"], check=True)
    return folder / "bin"


def test_the_wheel_holds_exactly_the_three_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.partition("/")[0] for name in names} - {f"shmq-{wheel.name.split('-')[1]}.dist-info"}
    assert tops == {"shmq", "shmq_daemon", "shmq_clients"}


def test_each_package_in_the_wheel_says_that_it_is_typed(wheel: Path) -> None:
    assert {f"{name}/py.typed" for name in ("shmq", "shmq_daemon", "shmq_clients")} <= set(
        zipfile.ZipFile(wheel).namelist()
    )


def test_the_wheel_holds_no_c_source(wheel: Path) -> None:
    assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".c", ".h"))] == []


def outside(folder: Path, *command: str | Path) -> str:
    """Run `command` in `folder` and return what it printed; its complaints are the failure's text."""
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_packages_import_outside_the_tree(fresh: Path, tmp_path: Path) -> None:
    code = "import shmq, shmq_daemon, shmq_clients, shmq.core._core; print(shmq.__file__)"

    printed = outside(tmp_path, fresh / "python", "-I", "-c", code)

    assert Path(printed.strip()).is_relative_to(fresh.parent)


@pytest.mark.parametrize("command", ["shmqd", "shmqctl"])
def test_the_commands_name_the_version(fresh: Path, tmp_path: Path, command: str) -> None:
    assert __version__ in outside(tmp_path, fresh / command, "--version")


def test_the_ten_lines_work_outside_the_tree(fresh: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/ten_lines.py", tmp_path)

    assert outside(tmp_path, fresh / "python", "ten_lines.py") == "9 b'urgent'\n0 b'first'\n"


def test_the_examples_are_strictly_typed_against_the_wheel(fresh: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=BUILT)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", str(fresh / "python")]

    assert "Success" in outside(tmp_path, *mypy, "examples")
