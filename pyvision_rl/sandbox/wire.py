"""Frames between the pool and a runtime: u32 length, msgpack header of a fixed schema, raw RGB
blobs. Never pickle.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
from PIL import Image

LENGTH = struct.Struct("<I")
MAX_CODE_CHARS = 1 << 20
"""Longest cell."""
FIGURES_PER_CELL = 2
"""How many figures of the largest size fit into one answer."""
MAX_ASPECT = 200
"""Vision processors of the Qwen family refuse images that are this many times as long as wide."""
STRIP_BYTES = 1 << 16

Size = tuple[int, int]
"""Width and height of an RGB image; its blob has 3 * width * height bytes."""


class Open(msgspec.Struct, frozen=True, tag="open", forbid_unknown_fields=True):
    """First request to a runtime; the blobs of `images` follow it."""

    id: int
    seed: int
    images: list[Size]
    num_videos: int


class Run(msgspec.Struct, frozen=True, tag="run", forbid_unknown_fields=True):
    """A cell to run."""

    id: int
    code: str


Request = Open | Run


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one answer to a request, its `id` echoed; the blobs of `images` follow it."""

    id: int
    kind: Literal["ok", "error", "timeout"]
    text: str
    images: list[Size]


class WireError(Exception):
    """Bytes that break the format or its bounds."""


REPLIES = msgspec.msgpack.Decoder(Reply)
REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Open | Run)
ENCODER = msgspec.msgpack.Encoder()


def num_blob_bytes(sizes: Iterable[Size]) -> int:
    """Bytes that the blobs of images of these sizes take."""
    return sum(3 * width * height for width, height in sizes)


def frame(message: Request | Reply, images: Iterable[Image.Image] = ()) -> Iterator[bytes]:
    """The buffers of one frame, to be sent in order; the pixels of an image come strip by strip, so
    that they need not be in memory twice.
    """
    header = ENCODER.encode(message)
    yield LENGTH.pack(len(header)) + header
    for image in images:
        for top, rows in strips(*image.size):
            yield image.crop((0, top, image.width, top + rows)).tobytes()


def strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each strip of an image."""
    step = max(1, STRIP_BYTES // (3 * width))
    return ((top, min(step, height - top)) for top in range(0, height, step))


def check_reply(reply: Reply, request_id: int, max_images: int, max_image_px: int) -> None:
    """Raise `WireError` unless the reply answers `request_id` and its images are within bounds."""
    if reply.id != request_id:
        raise WireError("the answer is to another request")
    if len(reply.images) > max_images:
        raise WireError(f"{len(reply.images)} images in one answer")
    if num_blob_bytes(reply.images) > 3 * FIGURES_PER_CELL * max_image_px:
        raise WireError("more pixels than fit into one answer")
    for width, height in reply.images:
        is_bounded = 0 < width * height <= max_image_px and min(width, height) > 0
        if not is_bounded or max(width, height) >= MAX_ASPECT * min(width, height):
            raise WireError(f"an image of {width}x{height} pixels")


def decode_reply(header: bytes) -> Reply:
    """The typed reply in `header`, or `WireError`."""
    try:
        return REPLIES.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a header that does not decode: {error}") from None
