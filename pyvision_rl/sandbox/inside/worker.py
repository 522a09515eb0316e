"""The loop inside a confined runtime: reads cells, runs them in one namespace, answers with text
and figures.

Everything here runs beside untrusted code and is trusted with nothing: the pool checks each answer.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from typing import Literal

from PIL import Image

from pyvision_rl.sandbox import wire
from pyvision_rl.sandbox.inside.cells import Cells
from pyvision_rl.sandbox.inside.seeds import Seeds
from pyvision_rl.sandbox.limits import Limits


class Worker:
    """What every fork of the fork server becomes. Made before the first fork."""

    def __init__(self, limits: Limits) -> None:
        """Answers two requests first: what Python builds at a first time, every fork would have to
        build again.
        """
        seeds = Seeds()
        kept = sys.modules["__main__"], sys.stdin, sys.stdout, sys.stderr
        self._cells = Cells(limits, seeds)
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryFile() as output:
            for request in (wire.Open(1, 0, [], 0), wire.Run(2, "x = 1")):
                ours.sendall(b"".join(wire.frame(request)))
            ours.shutdown(socket.SHUT_WR)
            self.serve(theirs, output.fileno(), [])
        sys.modules["__main__"], sys.stdin, sys.stdout, sys.stderr = kept
        self._cells = Cells(limits, seeds)

    def serve(self, channel: socket.socket, output: int, videos: list[int]) -> None:
        """Answer requests until the pool closes the channel. `output` is the file behind
        descriptors 1 and 2, `videos` are open files.
        """
        cells = self._cells
        request = read_request(channel)
        if not isinstance(request, wire.Open):
            return
        cells.open(request.seed, read_images(channel, request.images), videos, output)
        answer(channel, request.id, "ok", "", [])
        while isinstance(request := read_request(channel), wire.Run):
            kind, text, images = cells.run(request.code)
            answer(channel, request.id, kind, text, images)


def read_request(channel: socket.socket) -> wire.Request | None:
    """The next request, or None when the pool has gone."""
    prefix = read_exactly(channel, wire.LENGTH.size)
    if prefix is None:
        return None
    header = read_exactly(channel, wire.LENGTH.unpack(prefix)[0])
    return None if header is None else wire.REQUESTS.decode(header)


def read_images(channel: socket.socket, sizes: list[wire.Size]) -> list[Image.Image]:
    """The images whose blobs follow an `Open`."""
    return [read_image(channel, width, height) for width, height in sizes]


def read_image(channel: socket.socket, width: int, height: int) -> Image.Image:
    """One image, strip by strip, so that its pixels are in memory once."""
    image = Image.new("RGB", (width, height))
    for top, rows in wire.strips(width, height):
        pixels = read_exactly(channel, 3 * width * rows) or b""
        image.paste(Image.frombytes("RGB", (width, rows), bytes(pixels)), (0, top))
    return image


def read_exactly(channel: socket.socket, num_bytes: int) -> bytearray | None:
    """`num_bytes` from the channel, or None at its end."""
    buffer = bytearray(num_bytes)
    view, filled = memoryview(buffer), 0
    while filled < num_bytes:
        received = channel.recv_into(view[filled:])
        if not received:
            return None
        filled += received
    return buffer


def answer(
    channel: socket.socket,
    request_id: int,
    kind: Literal["ok", "error", "timeout"],
    text: str,
    images: list[Image.Image],
) -> None:
    """Send one whole frame."""
    sizes = [image.size for image in images]
    for buffer in wire.frame(wire.Reply(request_id, kind, text, sizes), images):
        channel.sendall(buffer)
