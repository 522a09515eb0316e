"""The video reader and, where installed, decord: eight random frames of a 60 s 720p h264 clip, and
opening two hours beside opening one minute. CPU time and memory.

Each reader runs in a process of its own; the clips are made here. `pip install decord` for the
peer. Memory is the most that was resident (VmHWM), whole and above what the imports had taken, and
what is private (USS) while the reader and its frames are held.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

IMPORTS = {
    "this reader": "from pyvision_rl.sandbox.video import VideoReader",
    "decord": "from decord import VideoReader",
}
MEASURE = """
import json, random, resource, sys
import numpy as np
{imports}

def fields(name):
    with open(f"/proc/self/{{name}}") as lines:
        return {{line.split()[0]: float(line.split()[1]) / 1024 for line in lines
                if line.rstrip().endswith("kB")}}

def private():
    usage = fields("smaps_rollup")
    return usage["Private_Clean:"] + usage["Private_Dirty:"]

def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

VideoReader(sys.argv[2])[0]  # what loads late
resident, own, began = fields("status")["VmRSS:"], private(), cpu()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts again
reader = VideoReader(sys.argv[1])
total = len(reader)
opened_s = cpu() - began
opened_mib = fields("status")["VmHWM:"] - resident
numbers = random.Random(0).sample(range(total), 8)
frames = [reader[n].asnumpy() for n in numbers]
peak = fields("status")["VmHWM:"]
print(json.dumps(dict(
    cpu_s=cpu() - began, opened_s=opened_s, opened_mib=opened_mib, peak_mib=peak,
    grown_mib=peak - resident, private_mib=private() - own,
    checksum=sum(int(f.astype(np.uint64).sum()) for f in frames))))
"""


@dataclass(frozen=True)
class Usage:
    """What a process took to open a video and read 8 frames."""

    cpu_s: float
    opened_s: float
    opened_mib: float
    peak_mib: float
    grown_mib: float
    private_mib: float
    checksum: int


def encode(path: Path, size: tuple[int, int], num_frames: int) -> None:
    """25 frames a second, a key frame every 250, a band of moving noise."""
    width, height = size
    noise = np.random.default_rng(0).integers(96, 160, (100, 2 * width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            pixels = np.full((height, width, 3), number % 200, np.uint8)
            band = noise[: height // 4, number % width : number % width + width]
            pixels[height // 4 : height // 4 + len(band)] = band
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def repeat(source: Path, target: Path, times: int) -> None:
    """The same packets again and again, without encoding them again."""
    with av.open(str(source)) as once, av.open(str(target), "w") as many:
        given = once.streams.video[0]
        stream = many.add_stream_from_template(given)
        for number in range(times):
            once.seek(0)
            for packet in once.demux(given):
                if packet.pts is None or packet.dts is None:
                    continue
                packet.pts += number * (given.duration or 0)
                packet.dts += number * (given.duration or 0)
                packet.stream = stream
                many.mux(packet)


def measure(name: str, video: Path, other: Path) -> Usage:
    """Read `video`, after `other` has made the libraries load what they load late."""
    program = MEASURE.format(imports=IMPORTS[name])
    command = [sys.executable, "-c", program, str(video), str(other)]
    return Usage(**json.loads(subprocess.check_output(command, text=True)))


def compare(names: list[str], clip: Path, other: Path) -> None:
    """Eight frames of a clip."""
    found = {name: measure(name, clip, other) for name in names}
    for name, usage in found.items():
        print(
            f"{name:<12}{1e3 * usage.cpu_s:6.0f} ms CPU, peak {usage.peak_mib:4.0f} MiB, "
            f"{usage.grown_mib:4.0f} above the imports, {usage.private_mib:4.0f} private"
        )
    if "decord" not in found:
        print("decord is not installed")
        return
    ours, theirs = found["this reader"], found["decord"]
    for what, ratio in (
        ("CPU", theirs.cpu_s / ours.cpu_s),
        ("peak memory", theirs.peak_mib / ours.peak_mib),
        ("peak memory above imports", theirs.grown_mib / ours.grown_mib),
        ("private memory", theirs.private_mib / ours.private_mib),
    ):
        print(f"RATIO | video reader: {what} | decord | {ratio:.2f}")
    print("pixels are equal" if ours.checksum == theirs.checksum else "pixels DIFFER")


def main() -> None:
    names = [name for name in IMPORTS if name != "decord" or importlib.util.find_spec("decord")]
    with tempfile.TemporaryDirectory() as folder:
        clip, minute, hours = (Path(folder) / name for name in ("c.mp4", "m.mp4", "h.mp4"))
        encode(clip, (1280, 720), 1500)
        encode(minute, (64, 48), 1500)
        repeat(minute, hours, 120)
        compare(names, clip, minute)
        for name in names:
            short, long = (measure(name, video, clip) for video in (minute, hours))
            print(
                f"{name:<12}2 hours (1 minute): opened in {1e3 * long.opened_s:.0f} "
                f"({1e3 * short.opened_s:.0f}) ms CPU and {long.opened_mib:.0f} "
                f"({short.opened_mib:.0f}) MiB; with 8 frames {long.private_mib:.0f} "
                f"({short.private_mib:.0f}) MiB private"
            )


if __name__ == "__main__":
    main()
