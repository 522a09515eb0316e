"""Training images of the vision stage: dense needle images, their views and crops of tags."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image

from pyvision_rl.data.needle_draw import (
    CELL_PX,
    COLOURS,
    GLYPHS,
    GRID,
    IMAGE_PX,
    LARGE_DOT_PX,
    SMALL_DOT_PX,
    Pixels,
    cell_of,
    new_canvas,
    paint_clutter,
    paint_tag,
)

VIEW_PX = 168
TOKEN_PX = 28
IGNORE = -100
NONE, LARGE, SMALL = range(3)
"""What a cell holds: no tag, a tag that the view shows legibly, one that it does not."""

_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
_NUM_LARGE, _NUM_SMALL = 8, 6


@dataclass(frozen=True)
class Mark:
    """A painted tag of a training image."""

    row: int
    column: int
    colour: str
    glyph: str
    size: int


def view_of(image: Pixels) -> Pixels:
    """The 168 x 168 view, reduced as the image processor does it."""
    return np.asarray(Image.fromarray(image).resize((VIEW_PX, VIEW_PX), Image.Resampling.BICUBIC))


def to_patches(images: list[Pixels]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose sides are multiples of 28 as the vision tower's patches and grids."""
    patches: list[torch.Tensor] = []
    grids: list[list[int]] = []
    for image in images:
        pixels = (torch.tensor(image).float() / 255 - _MEAN) / _STD
        rows, columns = pixels.shape[0] // 14, pixels.shape[1] // 14
        pixels = pixels.permute(2, 0, 1).reshape(3, rows // 2, 2, 14, columns // 2, 2, 14)
        pixels = pixels.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
        patches.append(pixels.expand(-1, -1, -1, -1, -1, 2, -1, -1).reshape(rows * columns, -1))
        grids.append([1, rows, columns])
    return torch.cat(patches), torch.tensor(grids)


def dense_scene(rng: Random) -> tuple[Pixels, list[Mark]]:
    """An image with many more tags than a task has: every token then teaches something."""
    image = new_canvas(rng)
    num_tags = _NUM_LARGE + _NUM_SMALL
    cells = rng.sample(range(GRID * GRID), num_tags + 5)
    for cell in cells[num_tags:]:
        paint_clutter(cell_of(image, *divmod(cell, GRID)), rng)
    marks = []
    for index, cell in enumerate(cells[:num_tags]):
        size = LARGE if index < _NUM_LARGE else SMALL
        glyph = rng.choice(GLYPHS[:10] if size == LARGE else GLYPHS)
        mark = Mark(*divmod(cell, GRID), rng.choice(list(COLOURS)), glyph, size)
        dot_px = LARGE_DOT_PX if size == LARGE else SMALL_DOT_PX
        paint_tag(cell_of(image, mark.row, mark.column), mark.colour, glyph, dot_px, rng)
        marks.append(mark)
    return image, marks


def loose_crop(image: Pixels, row: int, column: int, rng: Random) -> tuple[Pixels, int]:
    """A crop that misses the middle of a cell a bit, and the index of its token at that middle.

    The crops of a policy in training are not always neat.
    """
    width, height = (TOKEN_PX * rng.choice([3, 3, 3, 4, 5]) for _ in range(2))
    dx, dy = (rng.randint(-16, 16) for _ in range(2))
    x, y = column * CELL_PX + CELL_PX // 2, row * CELL_PX + CELL_PX // 2
    left = min(max(x - width // 2 + dx, 0), IMAGE_PX - width)
    top = min(max(y - height // 2 + dy, 0), IMAGE_PX - height)
    token = (y - top) // TOKEN_PX * (width // TOKEN_PX) + (x - left) // TOKEN_PX
    return image[top : top + height, left : left + width], token
