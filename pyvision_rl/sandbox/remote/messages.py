"""Bodies of the HTTP interface: the frames of wire.py (length, msgpack header, raw RGB blobs)
as octet streams.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from PIL import Image

from pyvision_rl.sandbox import wire
from pyvision_rl.sandbox.config import ResultKind

MEDIA_TYPE = "application/octet-stream"


class OpenRuntime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /runtimes; the blobs of `images` follow. Videos are paths below the server's video
    folder.
    """

    seed: int
    images: list[wire.Size]
    videos: list[str]


class Opened(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer: the name of the runtime."""

    id: str


class RunCell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /runtimes/ID/run."""

    code: str


class CellAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer: a `CellResult` whose image blobs follow, and whether another cell can run."""

    kind: ResultKind
    text: str
    seconds: float
    images: list[wire.Size]
    alive: bool


Message = TypeVar("Message", OpenRuntime, Opened, RunCell, CellAnswer)


def pack(message: msgspec.Struct, images: list[Image.Image] | None = None) -> bytes:
    """One body; `images` must be those whose sizes are in the message, RGB."""
    header = msgspec.msgpack.encode(message)
    blobs = [image.tobytes() for image in images or []]
    return b"".join([wire.LENGTH.pack(len(header)), header, *blobs])


def unpack(body: bytes, kind: type[Message]) -> tuple[Message, memoryview]:
    """The message and the bytes of its blobs; `WireError` if the body is not such a frame."""
    if len(body) < wire.LENGTH.size:
        raise wire.WireError("a body without a header")
    view = memoryview(body)
    end = wire.LENGTH.size + wire.LENGTH.unpack_from(view)[0]
    try:
        message = msgspec.msgpack.decode(view[wire.LENGTH.size : end], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise wire.WireError(f"a header that does not decode: {error}") from None
    return message, view[end:]


def split_images(sizes: list[wire.Size], blobs: memoryview) -> list[Image.Image]:
    """The images of `sizes` that `blobs` holds, no byte more or less."""
    if any(width <= 0 or height <= 0 for width, height in sizes):
        raise wire.WireError("an image without pixels")
    if len(blobs) != wire.num_blob_bytes(sizes):
        raise wire.WireError(
            f"{len(blobs)} bytes of images, {wire.num_blob_bytes(sizes)} announced"
        )
    images, offset = list[Image.Image](), 0
    for size in sizes:
        end = offset + wire.num_blob_bytes([size])
        images.append(Image.frombytes("RGB", size, blobs[offset:end]))
        offset = end
    return images
