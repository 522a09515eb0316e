"""Eight random frames of a 60 s 720p h264 clip: CPU time and peak memory of this reader and, where
installed, decord.

Each reader runs in a process of its own; the clip is encoded here. `pip install decord` for the
peer.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

READ = """
import sys
from pyvision_rl.sandbox.video import VideoReader
"""
READ_DECORD = """
import sys
from decord import VideoReader
"""
FRAMES = """
import random, resource
reader = VideoReader(sys.argv[1])
numbers = random.Random(0).sample(range(len(reader)), 8)
pixels = [reader[n].asnumpy() for n in numbers]
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, sum(int(p.sum()) for p in pixels))
"""


def encode(path: Path) -> None:
    """60 s at 25 frames a second, a key frame every 250, moving noise."""
    noise = np.random.default_rng(0).integers(0, 256, (720, 2560, 3), dtype=np.uint8)
    noise = noise // 4 + 96
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(1500):
            pixels = np.full((720, 1280, 3), number % 200, np.uint8)
            pixels[200:300] = noise[200:300, number % 1280 : number % 1280 + 1280]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def measure(program: str, clip: Path) -> tuple[float, float, str]:
    """CPU seconds, peak MiB, and a checksum of the pixels."""
    command = [sys.executable, "-c", program + FRAMES, str(clip)]
    cpu, peak, total = subprocess.check_output(command, text=True, env=os.environ).split()[-3:]
    return float(cpu), float(peak), total


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        encode(clip)
        ours = measure(READ, clip)
        print(f"this reader: {1e3 * ours[0]:.0f} ms CPU, {ours[1]:.0f} MiB")
        if importlib.util.find_spec("decord") is None:
            print("decord is not installed")
            return
        theirs = measure(READ_DECORD, clip)
        print(f"decord:      {1e3 * theirs[0]:.0f} ms CPU, {theirs[1]:.0f} MiB")
        print(f"RATIO | video reader: CPU | decord | {theirs[0] / ours[0]:.2f}")
        print(f"RATIO | video reader: memory | decord | {theirs[1] / ours[1]:.2f}")
        print("pixels are equal" if ours[2] == theirs[2] else "pixels DIFFER")


if __name__ == "__main__":
    main()
