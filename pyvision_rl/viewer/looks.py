"""Where a trajectory's programs looked: crops of images and frames of videos, read off the code.

Nothing is run. A look whose place cannot be read from the text is left out.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from pyvision_rl.viewer.arithmetic import UNKNOWN, Arithmetic, is_number, numbers
from pyvision_rl.viewer.pictures import (
    MATPLOTLIB,
    Box,
    Figures,
    Picture,
    Size,
    figure_picture,
    whole_picture,
)

MAX_LOOKS = 400
"""Looks kept of one trajectory."""

_DPI = 100
_SAME_GEOMETRY = frozenset(
    {"convert", "copy", "filter", "point", "astype", "enhance", "array", "asarray", "fromarray"}
    | {"Contrast", "Sharpness", "Brightness", "Color", "autocontrast", "equalize", "grayscale"}
)
"""Functions and methods whose result has the pixels of the image in the same places."""


@dataclass(frozen=True)
class Crop:
    """A part of `image_clue_{image}` that the program of a turn cut out.

    `box` is in pixels of that image as it is in the runtime, where it has `size`.
    """

    turn: int
    image: int
    box: Box
    size: Size


@dataclass(frozen=True)
class Fetch:
    """Frames of `video_clue_{video}`, by number, that the program of a turn decoded."""

    turn: int
    video: int
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Looks:
    """All that could be read off."""

    crops: tuple[Crop, ...] = ()
    fetches: tuple[Fetch, ...] = ()


@dataclass(frozen=True)
class VideoFacts:
    """Length of a video: number of frames and frames per second, 0 where unknown."""

    num_frames: int
    fps: float


@dataclass(frozen=True)
class _Video:
    number: int
    facts: VideoFacts


@dataclass
class _Found:
    crops: list[Crop] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)


def find_looks(
    codes: Sequence[str | None],
    images: Mapping[int, Size],
    videos: Mapping[int, VideoFacts],
    figures: Mapping[int, Figures] = MappingProxyType({}),
    *,
    exact: bool = False,
) -> Looks:
    """Looks in the programs of a trajectory's turns (None: no program), in order.

    `images` and `videos` hold the sizes of those whose size in the runtime is known, `figures` what
    a turn showed. `exact`: a figure of one image alone has that image's pixels and nothing else.
    """
    reader = _Reader(images, videos)
    for turn, code in enumerate(codes):
        if code is not None:
            reader.begin(turn)
            reader.read(code)
            if turn in figures:
                reader.take_figures(figures[turn], exact=exact)
    return Looks(tuple(reader.found.crops), tuple(reader.found.fetches))


class _Reader(Arithmetic):
    """Arithmetic that knows images and videos."""

    def __init__(self, images: Mapping[int, Size], videos: Mapping[int, VideoFacts]) -> None:
        pictures = {f"image_clue_{k}": whole_picture(k, size) for k, size in images.items()}
        readers = {f"video_clue_{k}": _Video(k, facts) for k, facts in videos.items()}
        super().__init__(pictures | readers)
        self.turn = 0
        self.found = _Found()
        self.drawn: list[Picture | None] = []
        self.figure_sizes: list[Size] = []

    def begin(self, turn: int) -> None:
        """What follows is the program of another turn."""
        self.turn = turn
        self.drawn = []
        self.figure_sizes = []

    def take_figures(self, figures: Figures, *, exact: bool) -> None:
        """Give the figures that the program just read has shown their names."""
        each_drawn = exact and len(self.drawn) == len(figures.sizes)
        candidates = self.figure_sizes if exact else [*self.figure_sizes, MATPLOTLIB]
        for place, size in enumerate(figures.sizes):
            drawn = self.drawn[place] if each_drawn else None
            number = figures.first + place
            picture = figure_picture(number, size, drawn, candidates)
            self.names[f"image_clue_{number}"] = picture

    def attribute(self, value: object, name: str) -> object:
        if isinstance(value, Picture):
            width, height = int(value.width), int(value.height)
            known = {"width": width, "height": height, "size": (width, height)}
            return (known | {"shape": (height, width, 3)}).get(name, UNKNOWN)
        return UNKNOWN

    def item(self, value: object, index: ast.expr) -> object:
        if isinstance(value, Picture):
            return self._slice(value, index)
        if isinstance(value, _Video):
            self._fetch(value, self._frame_numbers(value, index))
            return UNKNOWN
        return super().item(value, index)

    def function(self, name: str, args: Sequence[object], named: Mapping[str, object]) -> object:
        first = args[0] if args else UNKNOWN
        if name == "imshow":
            self.drawn.append(first if isinstance(first, Picture) else None)
        if inches := numbers(named.get("figsize"), 2):
            self.figure_sizes.append((round(inches[0] * _DPI), round(inches[1] * _DPI)))
        if isinstance(first, Picture) and name in _SAME_GEOMETRY:
            return first
        if isinstance(first, _Video) and name == "len" and first.facts.num_frames:
            return first.facts.num_frames
        return super().function(name, args, named)

    def method(
        self, value: object, name: str, args: Sequence[object], named: Mapping[str, object]
    ) -> object:
        if isinstance(value, Picture):
            return self._picture_method(value, name, [*args, *named.values()])
        if isinstance(value, _Video):
            return self._video_method(value, name, args)
        if isinstance(value, tuple) and name in ("astype", "tolist", "round"):
            return tuple(int(part) for part in value) if all(map(is_number, value)) else UNKNOWN
        return UNKNOWN

    def _picture_method(self, picture: Picture, name: str, args: Sequence[object]) -> object:
        if name == "crop":
            box = numbers(args[0], 4) if args else None
            return self._cut(picture, *box) if box else UNKNOWN
        if name == "resize":
            size = numbers(args[0], 2) if args else None
            is_whole = not any(numbers(part, 4) for part in args[1:])
            fits = is_whole and size is not None and min(size) >= 1
            return picture.resized(*size) if size and fits else UNKNOWN
        return picture if name in _SAME_GEOMETRY else UNKNOWN

    def _cut(
        self, picture: Picture, left: float, top: float, right: float, bottom: float
    ) -> object:
        part = picture.part(left, top, right, bottom)
        if part is None:
            return UNKNOWN
        for layer, before in zip(part.layers, picture.layers, strict=True):
            if layer.inside is None or layer.inside == before.inside or not self._room():
                continue
            crop = Crop(self.turn, layer.image, layer.inside, layer.whole)
            if crop not in self.found.crops:
                self.found.crops.append(crop)
        return part

    def _slice(self, picture: Picture, index: ast.expr) -> object:
        """`array[top:bottom, left:right]`, each bound optional or counted from the end."""
        parts = index.elts[:2] if isinstance(index, ast.Tuple) else [index]
        if not all(isinstance(part, ast.Slice) and part.step is None for part in parts):
            return UNKNOWN
        top, bottom = self._bounds(parts[0], picture.height)
        left, right = self._bounds(parts[1] if len(parts) > 1 else None, picture.width)
        if top is None or bottom is None or left is None or right is None:
            return UNKNOWN
        return self._cut(picture, left, top, right, bottom)

    def _bounds(self, part: ast.expr | None, length: float) -> tuple[float | None, float | None]:
        if not isinstance(part, ast.Slice):
            return 0.0, length
        return self._bound(part.lower, 0.0, length), self._bound(part.upper, length, length)

    def _bound(self, node: ast.expr | None, default: float, length: float) -> float | None:
        if node is None:
            return default
        value = self.evaluate(node)
        if not isinstance(value, (int, float)) or not is_number(value):
            return None
        return max(0.0, value + length) if value < 0 else min(float(value), length)

    def _video_method(self, video: _Video, name: str, args: Sequence[object]) -> object:
        if name == "get_avg_fps" and video.facts.fps:
            return video.facts.fps
        if name == "get_batch" and args and isinstance(args[0], tuple):
            self._fetch(video, args[0])
        return UNKNOWN

    def _frame_numbers(self, video: _Video, index: ast.expr) -> tuple[object, ...]:
        if isinstance(index, ast.Slice):
            first, last = self._bounds(index, float(video.facts.num_frames or math.inf))
            step = self.evaluate(index.step) if index.step else 1
            if first is None or last is None or not isinstance(step, int) or step < 1:
                return ()
            if math.inf in (first, last):
                return ()
            return tuple(range(int(first), int(last), step)[:MAX_LOOKS])
        value = self.evaluate(index)
        return value if isinstance(value, tuple) else (value,)

    def _fetch(self, video: _Video, wanted: Sequence[object]) -> None:
        found = [int(part) for part in wanted if isinstance(part, (int, float))]
        count = video.facts.num_frames
        frames = tuple(part + count if part < 0 else part for part in found)
        fits = frames and min(frames) >= 0 and (max(frames) < count or not count)
        if fits and self._room():
            self.found.fetches.append(Fetch(self.turn, video.number, frames[:MAX_LOOKS]))

    def _room(self) -> bool:
        return len(self.found.crops) + len(self.found.fetches) < MAX_LOOKS
