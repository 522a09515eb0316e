"""Images as programs handle them, by place only: which part of which image, and at which size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Size = tuple[int, int]
"""Width and height."""

MATPLOTLIB: Size = (640, 480)
"""A figure of which the program says no size."""
_TOKEN_PX = 28


@dataclass(frozen=True)
class Figures:
    """What a turn showed: `image_clue_{first}` and on. `sizes` are those of the records, which may
    be those of the runtime rounded to whole visual tokens, enlarged or reduced.
    """

    first: int
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Picture:
    """The `box` of an image that is `whole` pixels large, itself `width` x `height` pixels. It may
    reach beyond that image's edges.

    `beneath`: the same pixels as a part of the image from which a figure was drawn.
    """

    image: int
    whole: Size
    box: Box
    width: float
    height: float
    beneath: Picture | None = None

    def part(self, left: float, top: float, right: float, bottom: float) -> Picture | None:
        """The picture of a part given in this picture's own pixels, None where it is empty."""
        if right <= left or bottom <= top:
            return None
        x0, y0, x1, y1 = self.box
        across, down = (x1 - x0) / self.width, (y1 - y0) / self.height
        box = (x0 + left * across, y0 + top * down, x0 + right * across, y0 + bottom * down)
        beneath = self.beneath.part(left, top, right, bottom) if self.beneath else None
        return Picture(self.image, self.whole, box, right - left, bottom - top, beneath)

    def resized(self, width: float, height: float) -> Picture:
        """The same part at another size."""
        beneath = self.beneath.resized(width, height) if self.beneath else None
        return Picture(self.image, self.whole, self.box, width, height, beneath)

    @property
    def inside(self) -> Box | None:
        """What of the box lies within the image's edges; None: nothing."""
        x0, y0, x1, y1 = self.box
        width, height = self.whole
        x0, y0, x1, y1 = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    @property
    def layers(self) -> Iterator[Picture]:
        """This picture, then those beneath it."""
        yield self
        if self.beneath:
            yield from self.beneath.layers


def whole_picture(image: int, size: Size, beneath: Picture | None = None) -> Picture:
    """All of an image."""
    width, height = size
    return Picture(image, size, (0.0, 0.0, float(width), float(height)), width, height, beneath)


def figure_picture(
    image: int, recorded: Size, drawn: Picture | None, candidates: Sequence[Size]
) -> Picture:
    """A figure that was shown. `drawn` is the picture of which it has the very pixels, if it has.

    Else its size in the runtime is the first of the candidates that can have become the recorded
    one, or that itself.
    """
    if drawn and _may_become((round(drawn.width), round(drawn.height)), recorded):
        return whole_picture(image, (round(drawn.width), round(drawn.height)), drawn)
    fitting = (size for size in candidates if _may_become(size, recorded))
    return whole_picture(image, next(fitting, recorded))


def _may_become(size: Size, recorded: Size) -> bool:
    """Whether one scale and then rounding to whole visual tokens leads from one to the other."""
    if min(size) < 1:
        return False
    lows = [(side - _TOKEN_PX) / own for side, own in zip(recorded, size, strict=True)]
    highs = [(side + _TOKEN_PX) / own for side, own in zip(recorded, size, strict=True)]
    return max(lows) <= min(highs)
