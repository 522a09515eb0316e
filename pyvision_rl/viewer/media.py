"""The files a task named, where they still lie on this machine: sizes, pixels, lengths."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import av
from PIL import Image

from pyvision_rl.data.media import BROKEN_FILE, load_image
from pyvision_rl.viewer.looks import VideoFacts

_SIZES = re.compile(r"image_clue_(\d+) is (\d+) x (\d+)")
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)
_MAX_SIDE_PX = 2400
_LARGE_PX = 1_000_000


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
    """Frames and rate of a video file as its header has them; zeros where it cannot be read."""
    if not Path(path).is_file():
        return VideoFacts(0, 0.0)
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 0)
            seconds = float(container.duration or 0) / av.time_base
            return VideoFacts(stream.frames or round(seconds * fps), fps)
    except (OSError, ValueError, IndexError):
        return VideoFacts(0, 0.0)
