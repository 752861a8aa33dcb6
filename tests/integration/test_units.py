"""The systemd files: valid, hardened, and true to what the broker needs."""

import re
import subprocess
from pathlib import Path

import pytest

from support import needs

SYSTEMD = Path(__file__).parents[2] / "systemd"
EXPOSURE_MAX = 0.6


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies of the units whose ExecStart exists on any host."""
    copies = []
    for unit in SYSTEMD.glob("shmqd.*"):
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(unit.read_text().replace("/opt/shmq/bin/python", "/bin/true"))
    return copies


def test_systemd_finds_nothing_to_say_about_the_units(units: list[Path]) -> None:
    analyze = needs.program("systemd-analyze")

    run = subprocess.run([analyze, "verify", *map(str, units)], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_the_service_is_exposed_as_little_as_its_work_allows() -> None:
    command = [
        needs.program("systemd-analyze"),
        "security",
        "--offline=true",
        "--no-pager",
        str(SYSTEMD / "shmqd.service"),
    ]

    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    level = re.search(r"Overall exposure level for \S+ (\d+\.\d+)", report)
    assert level is not None
    assert float(level[1]) <= EXPOSURE_MAX


def test_sysusers_understands_the_user_and_the_groups(tmp_path: Path) -> None:
    sysusers = needs.program("systemd-sysusers")

    run = subprocess.run(
        [sysusers, "--dry-run", f"--root={tmp_path}", str(SYSTEMD / "shmq.sysusers")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "Creating group 'shmq-direct'" in run.stdout + run.stderr


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "Restart=always",
        "RemoveIPC=no",
        "RuntimeDirectory=shmq",
        "RuntimeDirectoryPreserve=yes",
        "StateDirectory=shmq",
        "User=shmq",
    ],
)
def test_the_service_keeps_what_messages_depend_on(line: str) -> None:
    assert line in (SYSTEMD / "shmqd.service").read_text().splitlines()


@pytest.mark.parametrize("setting", ["DynamicUser", "PrivateUsers", "ProtectProc", "ProcSubset"])
def test_the_service_leaves_off_what_would_break_it(setting: str) -> None:
    assert not re.search(rf"^{setting}=", (SYSTEMD / "shmqd.service").read_text(), re.MULTILINE)


def test_the_socket_is_for_the_group_alone() -> None:
    lines = (SYSTEMD / "shmqd.socket").read_text().splitlines()

    assert {"ListenStream=/run/shmq/shmq.sock", "SocketGroup=shmq", "SocketMode=0660"} <= set(lines)
