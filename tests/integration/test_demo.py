"""The examples do what their pages say: run as a person runs them, and their numpy work alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.deadline import scaled

pytest.importorskip("skimage")
pytest.importorskip("PIL")

from examples.vision_pipeline import photos, sheet, vision

ROOT = Path(__file__).parents[2]


def run(*command: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=scaled(seconds), check=False
    )


@pytest.mark.slow
def test_the_demo_loses_nothing_and_draws_a_sheet(tmp_path: Path) -> None:
    demo = run("-m", "examples.vision_pipeline", "--output", str(tmp_path), seconds=150)

    assert demo.returncode == 0, demo.stdout + demo.stderr
    last = demo.stdout.splitlines()[-1]
    counts = dict(part.rsplit(" ", 1) for part in last.split(", "))
    assert (counts["images"], counts["dead-lettered"], counts["lost"]) == ("577", "1", "0")
    assert int(counts["redelivered"]) > 3  # more than the corrupt file's
    assert (tmp_path / "contact_sheet.png").stat().st_size > 100_000


def test_the_ten_lines_print_the_urgent_message_first() -> None:
    example = run("examples/ten_lines.py", seconds=20)

    assert (example.returncode, example.stdout) == (0, "9 b'urgent'\n0 b'first'\n"), example.stderr


def test_the_ten_lines_are_those_of_the_readme() -> None:
    code = (ROOT / "examples/ten_lines.py").read_text().partition("\n\n")[2]

    assert code in (ROOT / "README.md").read_text()


def test_there_are_tiles_enough_of_photographs_enough_and_one_is_corrupt() -> None:
    files = photos.input_files()

    assert len({file.tile_id for file in files}) == len(files) > 300
    assert len({file.photo for file in files}) >= 8
    corrupt = next(file for file in files if file.tile_id == photos.POISON_ID)
    with pytest.raises(OSError, match="truncated"):
        vision.decode(corrupt.content)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 451), (641, 400)])
def test_the_tiles_cover_the_whole_photograph(height: int, width: int) -> None:
    covered = np.zeros((height, width), bool)
    for top, left, side in photos.squares(height, width):
        assert top + side <= height
        assert left + side <= width
        covered[top : top + side, left : left + side] = True

    assert covered.all()


@pytest.mark.parametrize("side", [57, 128, 200])
def test_resizing_keeps_a_gradient(side: int) -> None:
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    pixels = np.broadcast_to(ramp[:, None, None], (side, side, 3))

    resized = vision.resize(pixels)

    assert np.abs(resized[4:-4, 0, 0] - np.linspace(0, 255, 128)[4:-4]).max() < 4


def test_features_tell_directions_and_colours_apart() -> None:
    stripes = np.broadcast_to((np.arange(128) // 4 % 2 * 255).astype(np.uint8)[:, None, None], (128, 128, 3))
    red = np.zeros((128, 128, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    tiles = np.stack([stripes, stripes.swapaxes(0, 1), red])

    across, along, plain = vision.extract_features(tiles)[:, vision.LAYOUT :]

    assert across.argmax() != along.argmax()
    assert plain.max() < 0.01 * across.max()
    assert vision.oklab(red)[0, 0] == pytest.approx((0.628, 0.225, 0.126), abs=0.001)


def test_the_sheet_gives_each_tile_a_place_beside_its_like() -> None:
    features = np.zeros((60, vision.FEATURES), np.float32)
    features[::2, : vision.LAYOUT] = 1

    places = sheet.arrange(features, columns=10)

    assert len(set(places.tolist())) == len(places)
    bright = np.zeros(60, bool)
    bright[places[::2]] = True
    assert np.mean(bright.reshape(6, 10)[:, 1:] == bright.reshape(6, 10)[:, :-1]) > 0.8
