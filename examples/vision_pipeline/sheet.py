"""The contact sheet: all thumbnails on one grid, neighbours alike in colour and texture.

The arrangement is Linear Assignment Sorting (Barthel et al., 2023): blur the map of features, give each tile the place
whose blurred features are most like its own, blur less, again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter1d  # type: ignore[import-untyped, unused-ignore] # has no types
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped, unused-ignore] # has no types

from .vision import LAYOUT, Floats, Pixels

COLUMNS = 32
GAP, MARGIN, FOOTER = 4, 48, 56
BACKGROUND, AMBER, GREY, WHITE = (17, 18, 22), (255, 184, 28), (150, 152, 160), (236, 236, 240)


def arrange(features: Floats, columns: int) -> npt.NDArray[np.int64]:
    """Return the place (row * columns + column) of each tile, so that neighbours are alike."""
    look = appearance(features)
    rows = -(-len(look) // columns)
    places = np.random.default_rng(1).permutation(rows * columns)[: len(look)]
    radius = columns / 2
    while radius >= 1:
        wanted = blurred_map(look, places, rows, columns, radius)
        places = linear_sum_assignment(squared_distances(look, wanted))[1]
        radius *= 0.8
    return np.asarray(places, np.int64)


def appearance(features: Floats) -> Floats:
    """Return few numbers per tile that say how it looks: colours first, strength of texture second."""
    colours = features[:, :LAYOUT].reshape(len(features), -1, 3)
    texture = np.log(features[:, LAYOUT:].reshape(len(features), 3, -1).mean(axis=2) + 1e-4)
    texture = (texture - texture.mean(axis=0)) / (texture.std(axis=0) + 1e-6)
    hue = colours.mean(axis=1) * (1, 4, 4)
    detail = (colours * (1, 2, 2)).reshape(len(features), -1) / np.sqrt(colours.shape[1])
    return np.concatenate([2 * hue, detail, 0.1 * texture], axis=1).astype(np.float32)


def blurred_map(look: Floats, places: npt.NDArray[np.int64], rows: int, columns: int, radius: float) -> Floats:
    """Return what each place (rows * columns) of the grid should look like: the mean of its surroundings."""
    grid = np.zeros((rows * columns, look.shape[1] + 1), np.float32)
    grid[places, :-1], grid[places, -1] = look, 1  # the last plane says where tiles are
    grid = grid.reshape(rows, columns, -1)
    for axis in (0, 1):
        size = min(2 * round(radius) + 1, 2 * grid.shape[axis] - 1)
        for _ in range(2):  # twice a box is a triangle
            grid = uniform_filter1d(grid, size, axis=axis, mode="reflect")
    means = grid[..., :-1] / (grid[..., -1:] + 1e-6)
    return np.asarray(means.reshape(rows * columns, -1), np.float32)


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Return the squared distances (n, m) between the rows of a (n, d) and of b (m, d)."""
    distances: Floats = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return distances


def draw_sheet(thumbnails: Pixels, features: Floats, redelivered: Sequence[bool], caption: str, path: Path) -> None:
    """Write the sheet of the thumbnails (n, side, side, 3) to `path`; what was redelivered has an amber frame."""
    side = thumbnails.shape[1]
    pitch = side + GAP
    rows = -(-len(thumbnails) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * pitch + 2 * MARGIN - GAP, rows * pitch + 2 * MARGIN + FOOTER - GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for pixels, place, again in zip(thumbnails, arrange(features, COLUMNS), redelivered, strict=True):
        left, top = MARGIN + place % COLUMNS * pitch, MARGIN + place // COLUMNS * pitch
        if again:
            draw.rectangle((left - GAP, top - GAP, left + side + GAP - 1, top + side + GAP - 1), fill=AMBER)
        sheet.paste(Image.fromarray(pixels), (int(left), int(top)))
    write_caption(draw, sheet.size, caption)
    sheet.save(path, optimize=True)


def write_caption(draw: ImageDraw.ImageDraw, size: tuple[int, int], caption: str) -> None:
    """Write the name at the left, the caption at the right of the foot."""
    base = size[1] - MARGIN
    draw.text((MARGIN, base), "shmq", WHITE, ImageFont.load_default(40), anchor="ls")
    draw.text((size[0] - MARGIN, base), caption, GREY, ImageFont.load_default(24), anchor="rs")
