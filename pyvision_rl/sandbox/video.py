"""`video_clue_k`: a lazy video reader with decord's interface on PyAV. Frames are decoded when
asked for, never before.

Of several video streams it reads the first that is not a cover picture; frames come upright.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import av
import numpy as np
import numpy.typing as npt
from av.container.input import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pyvision_rl.sandbox.timeline import Timeline, VideoError

Indices = Sequence[int] | npt.NDArray[np.integer]


MAX_RATE_ERROR = 0.02
"""How far, as a share, the frame rate that a container says may be from its frames' own."""


class Frames(np.ndarray):
    """`uint8 [H, W, 3]` or `[N, H, W, 3]`: a numpy array that also answers decord's `asnumpy()`."""

    def asnumpy(self) -> npt.NDArray[np.uint8]:
        """The plain numpy array."""
        return self.view(np.ndarray)

    numpy = asnumpy


def cpu(index: int = 0) -> tuple[str, int]:
    """The only device there is."""
    return ("cpu", index)


def gpu(index: int = 0) -> tuple[str, int]:
    """Raise: there is no GPU in the sandbox."""
    raise VideoError(f"gpu({index}): there is no GPU here, use cpu(0)")


class DescriptorFile:
    """An open file read by position, so that several readers of one descriptor do not disturb
    each other.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def read(self, num_bytes: int) -> bytes:
        """The next bytes."""
        data = os.pread(self._descriptor, num_bytes, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (os.fstat(self._descriptor).st_size if base is None else base)
        return self._position

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position


class VideoReader:
    """A video by frame number. `IndexError` beyond its end; `VideoError` where it cannot be
    decoded.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str] | DescriptorFile,
        ctx: object = None,
        width: int = -1,
        height: int = -1,
        num_threads: int = 0,
        fault_tol: int = -1,
    ) -> None:
        self._source = uri if isinstance(uri, DescriptorFile) else str(Path(uri))
        self._size = (width, height)
        self._num_threads = num_threads
        self._opened: tuple[InputContainer, VideoStream] | None = None
        self._cached_timeline: Timeline | None = None
        self._decoder: Iterator[VideoFrame] | None = None
        self._decoded = 0  # the frame that the decoder gives next
        self._position = 0
        if not isinstance(uri, DescriptorFile):
            self._open()

    def _open(self) -> tuple[InputContainer, VideoStream]:
        if self._opened is None:
            try:
                container = av.open(self._source, mode="r")
            except av.FFmpegError as error:
                raise VideoError(f"the video cannot be opened: {error.strerror}") from None
            streams = [
                stream
                for stream in container.streams.video
                if not stream.disposition & Disposition.attached_pic
            ]
            if not streams:
                raise VideoError("the file has no video stream")
            streams[0].codec_context.thread_count = self._num_threads or 1
            self._opened = (container, streams[0])
        return self._opened

    @property
    def _timeline(self) -> Timeline:
        if self._cached_timeline is None:
            self._cached_timeline = Timeline.read(*self._open())
            self._decoder = None  # reading packets moved the file
        return self._cached_timeline

    def __len__(self) -> int:
        return len(self._timeline.shown)

    def get_avg_fps(self) -> float:
        """Frames per second, on average: what the container says, where its frames bear it out."""
        stream = self._open()[1]
        said = stream.average_rate or stream.guessed_rate
        step_s = self._timeline.mean_step * float(stream.time_base or 0)
        if said is not None and (not step_s or abs(float(said) * step_s - 1) < MAX_RATE_ERROR):
            return float(said)
        if not step_s:
            raise VideoError("the video does not say its frame rate")
        return 1 / step_s

    def get_key_indices(self) -> list[int]:
        """Numbers of the frames that decode without others."""
        if self._timeline.max_leading:
            self._opened = self._decoder = None  # packets are read from the start
            self._cached_timeline = Timeline.from_packets(*self._open())
        return self._timeline.keys.tolist()

    def get_frame_timestamp(self, idx: int | Indices) -> npt.NDArray[np.float64]:
        """`[2]` or `[N, 2]`: seconds when a frame begins and ends."""
        stream = self._open()[1]
        if stream.time_base is None:
            raise VideoError("the video has no time base")
        shown = self._timeline.shown
        end = int(shown[-1]) + round(1 / (self.get_avg_fps() * float(stream.time_base)))
        numbers = self._numbers([idx] if isinstance(idx, int) else idx)
        last = len(shown) - 1
        units = [(shown[n], shown[n + 1] if n < last else end) for n in numbers]
        times = np.array(units, np.float64).reshape(-1, 2) * float(stream.time_base)
        return times[0] if isinstance(idx, int) else times

    def __getitem__(self, idx: int | np.integer | slice | Indices) -> Frames:
        if isinstance(idx, slice):
            return self.get_batch(range(*idx.indices(len(self))))
        if isinstance(idx, (int, np.integer)):
            return self._frame(self._numbers([int(idx)])[0])
        return self.get_batch(idx)

    def get_batch(self, indices: Indices) -> Frames:
        """`[N, H, W, 3]` in the order asked for; negative and repeated numbers are fine."""
        numbers = self._numbers(indices)
        frames: dict[int, Frames] = {}
        for number in sorted(set(numbers)):
            frames[number] = self._frame(number)
        if not numbers:
            return np.empty((0, *self._frame(0).shape), np.uint8).view(Frames)
        return np.stack([frames[number] for number in numbers]).view(Frames)

    def _numbers(self, indices: Indices) -> list[int]:
        total = len(self)
        numbers: list[int] = []
        for index in np.asarray(indices).reshape(-1).tolist():
            number = int(index) + (total if index < 0 else 0)
            if not 0 <= number < total:
                raise IndexError(f"frame {index} is out of range: the video has {total} frames")
            numbers.append(number)
        return numbers

    def _frame(self, number: int) -> Frames:
        timeline = self._timeline
        key = timeline.key_before(number)
        if self._decoder is None or number < self._decoded or key > self._decoded:
            self._seek(int(timeline.shown[key]))
        wanted = int(timeline.shown[number])
        try:
            for frame in self._decoder or ():
                if frame.pts is not None and frame.pts >= wanted:
                    self._decoded = number + 1
                    return self._pixels(frame)
        except av.FFmpegError as error:
            self._decoder = None
            raise VideoError(f"frame {number} cannot be decoded: {error.strerror}") from None
        self._decoder = None
        raise VideoError(f"frame {number} cannot be decoded: the file ends before it")

    def _seek(self, time: int) -> None:
        container, stream = self._open()
        try:
            container.seek(time, stream=stream, backward=True)
        except av.FFmpegError as error:
            raise VideoError(f"the video cannot be searched: {error.strerror}") from None
        self._decoder = container.decode(stream)
        self._decoded = 0

    def _pixels(self, frame: VideoFrame) -> Frames:
        turned = frame.rotation % 180 != 0
        width, height = (side if side > 0 else None for side in self._size)
        if turned:
            width, height = height, width
        size = width or frame.width, height or frame.height
        # The scaler would start a thread per core of the machine.
        pixels = frame.reformat(*size, "rgb24", threads=1).to_ndarray()
        pixels = np.rot90(pixels, round(frame.rotation / 90))
        return np.ascontiguousarray(pixels).view(Frames)

    def next(self) -> Frames:
        """The next frame from the current position."""
        if self._position >= len(self):
            raise StopIteration
        self._position += 1
        return self[self._position - 1]

    __next__ = next

    def __iter__(self) -> Iterator[Frames]:
        for number in range(len(self)):
            yield self[number]

    def seek(self, pos: int) -> None:
        """Make `pos` the frame that `next` gives."""
        self._position = self._numbers([pos])[0]

    seek_accurate = seek

    def skip_frames(self, num: int = 1) -> None:
        """Let `next` pass over `num` frames."""
        self._position += num

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._opened is not None:
            self._opened[0].close()
        self._opened = self._decoder = None

    def __repr__(self) -> str:
        stream = self._open()[1]
        size = f"{stream.width}x{stream.height}"
        return f"<VideoReader {len(self)} frames, {size}, {self.get_avg_fps():.2f} fps>"


def open_descriptor(descriptor: int) -> VideoReader:
    """A reader of an open file; nothing is read until it is used."""
    return VideoReader(DescriptorFile(descriptor))


def install_as_decord() -> None:
    """Let `from decord import VideoReader, cpu` find this module's names; no decord is needed."""
    module = types.ModuleType("decord", "This sandbox's own video reader under decord's names.")
    bridge = types.ModuleType("decord.bridge")

    def set_bridge(name: str) -> None:
        if name not in ("native", "numpy"):
            raise VideoError(f"bridge {name!r}: frames are numpy arrays here")

    names = {"VideoReader": VideoReader, "cpu": cpu, "gpu": gpu, "bridge": bridge}
    for name, value in names.items():
        setattr(module, name, value)
    bridge.__dict__["set_bridge"] = set_bridge
    sys.modules["decord"] = module
    sys.modules["decord.bridge"] = bridge
