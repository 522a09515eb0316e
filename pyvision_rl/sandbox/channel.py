"""The pool's end of a runtime's channel: one request, its one answer, everything bounded. What
comes in was written by code that is trusted with nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from PIL import Image

from pyvision_rl.sandbox import wire
from pyvision_rl.sandbox.config import SandboxConfig
from pyvision_rl.sandbox.inside.output import NOTICE_CHARS

READ_BYTES = 65536


class Channel:
    """Asks and reads. Whatever breaks the format is a `WireError`, its end a `ConnectionError`."""

    def __init__(self, end: socket.socket, limits: SandboxConfig) -> None:
        end.setblocking(False)
        self._end = end
        self._limits = limits
        self._rest = b""

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def refuse_unasked(self) -> None:
        """Raise if anything arrived before it was asked for."""
        try:
            waiting = self._end.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        if waiting:
            raise wire.WireError("an answer that nobody asked for")
        raise ConnectionError

    async def ask(
        self, request: wire.Request, images: Sequence[Image.Image] = ()
    ) -> tuple[wire.Reply, list[Image.Image]]:
        """The answer to `request`, which `images` follow."""
        loop = asyncio.get_running_loop()
        for buffer in wire.frame(request, images):
            await loop.sock_sendall(self._end, buffer)
        limits = self._limits
        (length,) = wire.LENGTH.unpack(await self._read(wire.LENGTH.size))
        if length > 8 * limits.max_text_chars + 32 * limits.max_figures + 1024:
            raise wire.WireError(f"a header of {length} bytes")
        reply = wire.decode_reply(await self._read(length))
        wire.check_reply(reply, request.id, limits.max_figures, limits.max_figure_px)
        if len(reply.text) > limits.max_text_chars + NOTICE_CHARS:
            raise wire.WireError(f"a text of {len(reply.text)} characters")
        shown = [await self._read_image(width, height) for width, height in reply.images]
        if self._rest:
            raise wire.WireError("bytes beyond the end of the answer")
        return reply, shown

    async def _read_image(self, width: int, height: int) -> Image.Image:
        image = Image.new("RGB", (width, height))
        for top, rows in wire.strips(width, height):
            pixels = await self._read(3 * width * rows)
            image.paste(Image.frombytes("RGB", (width, rows), pixels), (0, top))
        return image

    async def _read(self, num_bytes: int) -> bytes:
        parts, missing = [self._rest[:num_bytes]], num_bytes - len(self._rest)
        self._rest = self._rest[num_bytes:]
        loop = asyncio.get_running_loop()
        while missing > 0:
            part = await loop.sock_recv(self._end, READ_BYTES)
            if not part:
                raise ConnectionError
            parts.append(part[:missing])
            self._rest = part[missing:]
            missing -= len(part)
        return b"".join(parts)
