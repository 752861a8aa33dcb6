"""The input: photographs that the scikit-image wheel ships, cut into tiles, each tile an image file of its own.

Nothing is fetched. One file among them is poison: a JPEG that lost its second half, as a full disk leaves them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

URGENT = "astronaut"
PHOTOS = (
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
    "astronaut.png",
)
COLUMNS, ROWS = 8, 6  # tiles of a photograph
POISON_ID = "coffee/corrupt"


@dataclass(frozen=True)
class TileFile:
    """One input of the pipeline: an image file, named `photo/number`."""

    tile_id: str
    photo: str
    content: bytes
    urgent: bool = False


def input_files() -> list[TileFile]:
    """Return all tiles in the order in which they are published: the poison in the middle, the urgent photo last."""
    files = [tile for name in PHOTOS for tile in tiles_of(name)]
    whole = next(tile for tile in files if tile.photo == "coffee")
    poison = TileFile(POISON_ID, "coffee", whole.content[: len(whole.content) // 2])
    files.insert(len(files) // 2, poison)
    return files


def tiles_of(name: str) -> Iterator[TileFile]:
    """Cut one photograph into COLUMNS x ROWS square tiles that cover all of it."""
    photo = Path(name).stem.partition("_")[0]
    with (resources.files("skimage") / "data" / name).open("rb") as file:
        pixels = np.asarray(Image.open(file).convert("RGB"))
    for number, (top, left, side) in enumerate(squares(*pixels.shape[:2])):
        tile = pixels[top : top + side, left : left + side]
        yield TileFile(f"{photo}/{number:02}", photo, jpeg(tile), urgent=photo == URGENT)


def squares(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield (top, left, side) of a grid of equal squares; they overlap where the photograph is not 4:3."""
    side = -(-max(width * ROWS, height * COLUMNS) // (COLUMNS * ROWS))
    for top in np.linspace(0, height - side, ROWS).astype(int):
        for left in np.linspace(0, width - side, COLUMNS).astype(int):
            yield int(top), int(left), side


def jpeg(pixels: np.ndarray) -> bytes:
    """Return the pixels, uint8 (height, width, 3), as a JPEG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()
