"""The files a task named, where they still lie on this machine: sizes, pixels, lengths."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from pyvision_rl.data.media import BROKEN_FILE, load_image
from pyvision_rl.errors import InputError
from pyvision_rl.rollout.videos import read_info
from pyvision_rl.sandbox.video import VideoError, VideoReader
from pyvision_rl.viewer.looks import VideoFacts

_SIZES = re.compile(r"image_clue_(\d{1,6}) is (\d{1,6}) x (\d{1,6})\b")
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)
_MAX_SIDE_PX = 2400
_LARGE_PX = 1_000_000
_MAX_FRAME_PX = 640
_STRIP_FRAMES = 8
_STRIP_SIZE = (96, 54)


def sizes_in_runtime(prompt: str, paths: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Width and height of the given images as programs see them, those that can be known.

    The prompt says them in most templates; else the files do, if they are still there.
    """
    said = {int(k): (int(width), int(height)) for k, width, height in _SIZES.findall(prompt)}
    sizes = {}
    for k, path in enumerate(paths):
        size = said.get(k) or _file_size(path)
        if size:
            sizes[k] = size
    return sizes


def _file_size(path: str) -> tuple[int, int] | None:
    """As its header has it, turned as its EXIF says."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            return (image.height, image.width) if turned else image.size
    except BROKEN_FILE:
        return None


def original_image(path: str) -> tuple[bytes, str]:
    """An image file decoded and encoded anew for the browser, large ones reduced; and its type.

    Raises InputError.
    """
    image = load_image(path)
    image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    file = io.BytesIO()
    if image.width * image.height > _LARGE_PX:
        image.save(file, "JPEG", quality=90)
        return file.getvalue(), "image/jpeg"
    image.save(file, "PNG", compress_level=1)
    return file.getvalue(), "image/png"


def video_facts(path: str) -> VideoFacts:
    """Frames and rate of a video as programs see them; zeros where it cannot be read."""
    if not Path(path).is_file():
        return VideoFacts(0, 0.0)
    try:
        info = read_info(Path(path))
    except InputError:
        return VideoFacts(0, 0.0)
    return VideoFacts(info.num_frames, info.fps)


def video_frame(path: str, number: int) -> bytes:
    """One frame as JPEG, a large one reduced. Raises InputError."""
    return _jpeg(_frames(path, [number])[0], _MAX_FRAME_PX)


@lru_cache(maxsize=64)
def film_strip(path: str) -> bytes:
    """The middle frames of equal parts of a video side by side, as JPEG. Raises InputError."""
    count = max(1, video_facts(path).num_frames)
    numbers = [(2 * part + 1) * count // (2 * _STRIP_FRAMES) for part in range(_STRIP_FRAMES)]
    frames = [frame.resize(_STRIP_SIZE) for frame in _frames(path, numbers)]
    width, height = _STRIP_SIZE
    strip = Image.new("RGB", (width * len(frames), height))
    for place, frame in enumerate(frames):
        strip.paste(frame, (place * width, 0))
    return _jpeg(strip, strip.width)


def _frames(path: str, numbers: Sequence[int]) -> list[Image.Image]:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such video file")
    try:
        with VideoReader(path) as reader:
            return [Image.fromarray(reader[number].asnumpy()) for number in numbers]
    except (VideoError, IndexError) as error:
        raise InputError(f"{path}: {error}") from error


def _jpeg(image: Image.Image, max_side: int) -> bytes:
    image.thumbnail((max_side, max_side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
