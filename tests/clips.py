"""Clips whose frames tell their number."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def encode(path: Path, times: list[int], codec: str = "libx264", **options: str) -> None:
    """A 64x48 clip; frame `n` is shown at `times[n]` hundredths, `n` written in 8 stripes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for number, time in enumerate(times):
            stripes = 255 * (number >> np.arange(8) & 1).repeat(8).astype(np.uint8)
            pixels = np.broadcast_to(stripes[None, :, None], (48, 64, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers(frames: Iterable[np.ndarray]) -> list[int]:
    """Which frames of an encoded clip these are, read off their stripes."""
    means = [frame.reshape(48, 8, 24).mean((0, 2)) for frame in frames]
    return [int(((mean > 127) << np.arange(8)).sum()) for mean in means]
