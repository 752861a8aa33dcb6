"""The work of the pipeline: arrays in, arrays out. It knows no queue, no process and no file name.

Shapes: pixels are uint8 (height, width, 3) in sRGB; features are float32 (FEATURES,), first LAYOUT colours, then
TEXTURE energies. The texture part is GIST (Oliva and Torralba, 2001): energies of Gabor filters on a coarse grid.
"""

from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE = 128  # of a resized tile
CELLS = 4  # colours and energies are averaged over CELLS x CELLS cells
WAVELENGTHS = (4, 8, 16, 32)  # pixels
ORIENTATIONS = 8
LAYOUT = CELLS * CELLS * 3
TEXTURE = 3 * len(WAVELENGTHS) * ORIENTATIONS * CELLS * CELLS
FEATURES = LAYOUT + TEXTURE

# Oklab, a colour space in which distances look right: https://bottosson.github.io/posts/oklab/
RGB_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929],
     [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]], np.float32)  # fmt: skip
LMS_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468],
     [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]], np.float32)  # fmt: skip


def decode(file: bytes) -> Pixels:
    """Return the pixels of an image file. OSError when it is corrupt."""
    with Image.open(BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


def resize(pixels: Pixels) -> Floats:
    """Return square pixels as (SIDE, SIDE, 3), 0 to 255: a matrix for the rows, the same one for the columns."""
    weights = resampling(pixels.shape[0], SIDE)
    resized: Floats = np.einsum("yi,ijc,xj->yxc", weights, pixels, weights, optimize=True)
    return resized


@cache
def resampling(source: int, target: int) -> Floats:
    """Return the (target, source) matrix of a triangle filter that is wide enough not to alias."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale - 0.5
    distances = np.abs(centres[:, None] - np.arange(source)) / max(scale, 1)
    weights = np.maximum(1 - distances, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def extract_features(tiles: Pixels) -> Floats:
    """Return the features (n, FEATURES) of the tiles (n, SIDE, SIDE, 3)."""
    lab = oklab(tiles)
    colours = cell_means(lab).reshape(len(tiles), LAYOUT)
    textures = [[gist(lab[tile, :, :, channel]) for channel in range(3)] for tile in range(len(tiles))]
    return np.concatenate([colours, np.reshape(textures, (-1, TEXTURE))], axis=1)


def oklab(pixels: Pixels) -> Floats:
    """Return lightness (0 to 1), green-red and blue-yellow of sRGB pixels, in the last axis."""
    linear = linear_light()[pixels]
    lab: Floats = np.cbrt(linear @ RGB_TO_LMS.T) @ LMS_TO_LAB.T
    return lab


@cache
def linear_light() -> Floats:
    """Return the linear intensity of each of the 256 sRGB values (IEC 61966-2-1)."""
    value = np.arange(256, dtype=np.float32) / 255
    straight, curved = value / 12.92, ((value + 0.055) / 1.055) ** 2.4
    return np.where(value <= 0.04045, straight, curved).astype(np.float32)  # noqa: PLR2004 - the norm's number


def gist(channel: Floats) -> Floats:
    """Return the Gabor energies of one channel (SIDE, SIDE) of a tile: filters, then cells, flat."""
    spectrum = np.fft.fft2(channel - channel.mean())
    energies = np.abs(np.fft.ifft2(spectrum * gabor_bank()))
    return cell_means(energies[..., None]).ravel()


@cache
def gabor_bank() -> Floats:
    """Return the filters (wavelengths * orientations, SIDE, SIDE) as they multiply a spectrum."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    radius = np.hypot(fx, fy) + 1e-9
    angle = np.arctan2(fy, fx)
    return np.asarray(
        [
            np.exp(-((np.log2(radius * wavelength) / 0.7) ** 2) - (turned(angle, turn) / 0.4) ** 2)
            for wavelength in WAVELENGTHS
            for turn in np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS
        ],
        np.float32,
    )


def turned(angle: npt.NDArray[np.float64], turn: float) -> npt.NDArray[np.float64]:
    """Return how far the directions are from `turn`, opposite directions being one: -pi/2 to pi/2."""
    return (angle - turn + np.pi / 2) % np.pi - np.pi / 2


def cell_means(planes: Floats) -> Floats:
    """Average (n, SIDE, SIDE, channels) over the cells: (n, CELLS, CELLS, channels)."""
    n, side, _, channels = planes.shape
    cells = planes.reshape(n, CELLS, side // CELLS, CELLS, side // CELLS, channels)
    means: Floats = cells.mean(axis=(2, 4))
    return means


def thumbnail(tile: Pixels) -> Pixels:
    """Return the tile at half its size: the mean of each 2 x 2 pixels."""
    side = tile.shape[0] // 2
    halved: Pixels = tile.reshape(side, 2, side, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    return halved
