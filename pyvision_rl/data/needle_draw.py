"""Painting of needle images: coloured discs with a plate and a glyph on a vivid background.

All is drawn from arrays, without a font file: a seed gives the same bytes on every machine.
"""

from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An image as [height, width, 3] bytes."""

GRID = 6
CELL_PX = 112
IMAGE_PX = GRID * CELL_PX
CROP_MARGIN_PX = 14
CROP_PX = CELL_PX - 2 * CROP_MARGIN_PX
LARGE_DOT_PX = 8
"""Dots of a glyph that is legible in the 168 x 168 view (14 px high there)."""
SMALL_DOT_PX = 2
"""Dots of a glyph that is legible at native resolution only (14 px high, 3.5 px in the view)."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 40),
    "orange": (245, 140, 20),
    "violet": (150, 50, 190),
    "pink": (250, 130, 190),
    "cyan": (40, 200, 215),
}
INITIALS = {colour: colour[0].upper() for colour in COLOURS}
"""The letter that stands for a colour on a tag; all eight differ."""

# 5 x 7 dots; one hexadecimal byte a row, the left dot is bit 4.
_GLYPH_ROWS = {
    "0": "0e11131519110e",
    "1": "040c040404040e",
    "2": "0e11010204081f",
    "3": "1f02040201110e",
    "4": "02060a121f0202",
    "5": "1f101e0101110e",
    "6": "0608101e11110e",
    "7": "1f010204080808",
    "8": "0e11110e11110e",
    "9": "0e11110f01020c",
    "R": "1e11111e141211",
    "G": "0e11101711110f",
    "B": "1e11111e11111e",
    "Y": "1111110a040404",
    "O": "0e11111111110e",
    "V": "11111111110a04",
    "P": "1e11111e101010",
    "C": "0e11101010110e",
}
GLYPHS = "".join(_GLYPH_ROWS)

_DISC_RADIUS_PX = 51  # so that a shifted disc stays inside its cell
_PLATE_PX = 64
_PLATE_GREY = 245
_NUM_BACKGROUNDS = 12
_NOISE_BLOCK_PX = 8
_JITTER_STEPS = 2  # of 2 px each way: the glyph stays inside one 28 px token of the crop


@cache
def _glyph_mask(glyph: str, dot_px: int) -> NDArray[np.bool_]:
    rows = bytes.fromhex(_GLYPH_ROWS[glyph])
    dots = np.array([[row >> (4 - x) & 1 for x in range(5)] for row in rows], dtype=bool)
    return dots.repeat(dot_px, 0).repeat(dot_px, 1)


@cache
def _disc_mask() -> NDArray[np.bool_]:
    y, x = np.mgrid[0:CELL_PX, 0:CELL_PX] - (CELL_PX - 1) / 2
    return y**2 + x**2 <= _DISC_RADIUS_PX**2


@cache
def _background(index: int) -> Pixels:
    """Red grows with x and green with y, so that every cell shows where it lies."""
    y, x = np.mgrid[0:IMAGE_PX, 0:IMAGE_PX].astype(np.float32) / IMAGE_PX
    base = np.stack([40 + 170 * x, 40 + 170 * y, np.full_like(x, 110)], axis=-1)
    blocks = IMAGE_PX // _NOISE_BLOCK_PX
    noise = np.random.default_rng(index).normal(0, 10, (blocks, blocks, 1))
    noise = noise.repeat(_NOISE_BLOCK_PX, 0).repeat(_NOISE_BLOCK_PX, 1)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def new_canvas(rng: Random) -> Pixels:
    """A fresh 672 x 672 background that may be painted on."""
    return _background(rng.randrange(_NUM_BACKGROUNDS)).copy()


def cell_of(image: Pixels, row: int, column: int) -> Pixels:
    """The 112 x 112 cell as a view into `image`: painting on it paints the image."""
    top, left = row * CELL_PX, column * CELL_PX
    return image[top : top + CELL_PX, left : left + CELL_PX]


def crop_of(image: Pixels, row: int, column: int) -> Pixels:
    """The native 84 x 84 centre of a cell, which is what the oracle's code shows."""
    margin = CROP_MARGIN_PX
    return cell_of(image, row, column)[margin:-margin, margin:-margin]


def paint_clutter(cell: Pixels, rng: Random) -> None:
    """Put a grey rectangle into an empty cell."""
    top, left = rng.randint(10, 40), rng.randint(10, 40)
    height, width = rng.randint(20, 60), rng.randint(20, 60)
    cell[top : top + height, left : left + width] = rng.randint(60, 200)


def paint_tag(cell: Pixels, colour: str, glyph: str, dot_px: int, rng: Random) -> None:
    """Put a disc with a plate and a glyph near the middle of a cell (a few pixels of jitter)."""
    dy, dx = (2 * rng.randint(-_JITTER_STEPS, _JITTER_STEPS) for _ in range(2))
    cell[np.roll(_disc_mask(), (dy, dx), (0, 1))] = COLOURS[colour]
    top, left = (CELL_PX - _PLATE_PX) // 2 + dy, (CELL_PX - _PLATE_PX) // 2 + dx
    cell[top : top + _PLATE_PX, left : left + _PLATE_PX] = _PLATE_GREY
    mask = _glyph_mask(glyph, dot_px)
    height, width = mask.shape
    top, left = (CELL_PX - height) // 2 + dy, (CELL_PX - width) // 2 + dx
    cell[top : top + height, left : left + width][mask] = 0
