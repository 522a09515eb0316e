"""One image file as pixels, whatever its colours: always RGB, upright, of a bounded size; and
whether a video can be read, whose frames are the sandbox's affair.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image, ImageOps

from pyvision_rl.errors import MediaError

MAX_PIXELS = 89_478_485
"""Larger files are refused before they are decoded: the size from which Pillow suspects a
decompression bomb (an 8K frame has 33 million pixels)."""

MAX_ASPECT = 200
"""Largest ratio of the sides that a Qwen2.5-VL is defined for."""

BROKEN_FILE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow's decoders raise on damaged files."""


def load_image(path: str | Path) -> Image.Image:
    """The image as RGB: turned as its EXIF says, transparency on white, 16 bits reduced to 8.

    Of an animation, the first frame. Raises MediaError that names the file where it is missing,
    truncated, not an image, larger than 89 million pixels, or over 200 times as wide as high.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise MediaError(
                    f"{path}: {width} x {height} pixels; at most {MAX_PIXELS:,} are allowed"
                )
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise MediaError(
                    f"{path}: {width} x {height} pixels; one side may be at most {MAX_ASPECT} "
                    "times the other"
                )
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except MediaError:
        raise
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such image file") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path}: more pixels than the {MAX_PIXELS:,} that are allowed") from error
    except BROKEN_FILE as error:
        raise MediaError(f"{path}: not a readable image ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floats as 8 bits, which Pillow itself would clip at 255."""
    values = np.asarray(image).astype(np.float64)
    top = float(values.max(initial=0.0))
    if image.mode.startswith("I;16") or (image.mode[0] == "I" and top > 255):
        values = values / 257
    elif image.mode[0] == "F" and top <= 1:
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def check_video(path: str | Path) -> None:
    """Decode the first frame of the stream that the video reader takes: the first that is no cover.

    Raises MediaError that names the file where there is none.
    """
    try:
        with av.open(str(path)) as container:
            for stream in container.streams.video:
                if stream.disposition & Disposition.attached_pic:
                    continue
                if next(container.decode(stream), None) is not None:
                    return
                break
    except av.FFmpegError as error:
        raise MediaError(f"{path}: not a readable video ({error.strerror})") from error
    raise MediaError(f"{path}: holds no video frames")
