"""Videos of a task: what its prompt says of them, and the frames, if any, that it starts with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pyvision_rl.errors import ConfigError, MediaError
from pyvision_rl.sandbox.video import VideoError, VideoReader

VideoContext = Literal["on_demand", "uniform", "hybrid"]


@dataclass(frozen=True)
class FramesConfig:
    """Which frames of a video the context starts with."""

    context: VideoContext = "on_demand"
    """on_demand: none, programs fetch what they want to see (paper Sec. 3.3); uniform: evenly
    spaced ones, and no tool; hybrid: evenly spaced ones, and the tool."""
    num_frames: int = 16
    """Frames of each video; with `fps` the most that a video has."""
    fps: float = 0.0
    """Frames of a second of video; 0 is `num_frames` however long it is."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.fps < 0:
            raise ConfigError(
                f"video: num_frames={self.num_frames}, fps={self.fps}; "
                "num_frames must be at least 1 and fps not negative"
            )


@dataclass(frozen=True)
class VideoConfig(FramesConfig):
    """How tasks with videos are put to the policy."""

    prompt: str = ""
    """Prompt template of tasks with videos, named as `rollout.prompt` is; empty: the shipped one,
    `video_uniform` for a uniform context and `video` for the others."""

    @property
    def template(self) -> str:
        """The name of the prompt template."""
        return self.prompt or ("video_uniform" if self.context == "uniform" else "video")


@dataclass(frozen=True)
class VideoInfo:
    """What a prompt says of a video, as the reader in the runtime has it."""

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float

    def __str__(self) -> str:
        size = f"{self.width} x {self.height}"
        seconds = _short(self.duration_s)
        return f"{size}, {self.num_frames} frames, {_short(self.fps)} fps, {seconds} s"


@lru_cache(maxsize=4096)
def read_info(path: Path) -> VideoInfo:
    """Open a video and decode its first frame. Raises MediaError for one that cannot be read."""
    try:
        with VideoReader(path) as reader:
            height, width, _ = reader[0].shape
            first, last = reader.get_frame_timestamp([0, -1]).tolist()
            return VideoInfo(width, height, len(reader), reader.get_avg_fps(), last[1] - first[0])
    except VideoError as error:
        raise MediaError(f"{path}: {error}") from error


@dataclass(frozen=True)
class GivenVideo:
    """A video of a task and the numbers of the frames that the context starts with."""

    path: Path
    info: VideoInfo
    numbers: tuple[int, ...]

    def frames(self) -> Iterator[Image.Image]:
        """Those frames, one at a time. Raises MediaError for one that cannot be read."""
        try:
            with VideoReader(self.path) as reader:
                for number in self.numbers:
                    yield Image.fromarray(np.asarray(reader[number]))
        except VideoError as error:
            raise MediaError(f"{self.path}: {error}") from error


def open_video(path: Path, config: FramesConfig) -> GivenVideo:
    """Look at a video, and choose the middle frame of each of so many equal parts of it.

    Raises MediaError for a video that cannot be read.
    """
    info = read_info(path)
    if config.context == "on_demand":
        return GivenVideo(path, info, ())
    wanted = round(info.duration_s * config.fps) if config.fps else config.num_frames
    num = max(1, min(wanted, config.num_frames, info.num_frames))
    return GivenVideo(
        path, info, tuple((2 * part + 1) * info.num_frames // (2 * num) for part in range(num))
    )


def frame_info(videos: Sequence[GivenVideo], config: FramesConfig, first: int) -> str:
    """What the context starts with, in words. Frames of a hybrid context are named from
    `image_clue_{first}` on; those of a uniform one have no names.
    """
    parts: list[str] = []
    for place, video in enumerate(videos):
        num = len(video.numbers)
        if config.context == "uniform":
            every, start = video.info.duration_s / num, video.numbers[0] / video.info.fps
            spacing = f"one every {_short(every)} s from {_short(start)} s on"
            parts.append(f"{num} frames of video_clue_{place}, {spacing}")
        elif config.context == "hybrid":
            listed = ", ".join(map(str, video.numbers))
            names, what = f"image_clue_{first}", f"frame {listed}"
            if num > 1:
                names, what = f"{names} to image_clue_{first + num - 1}", f"frames {listed}"
            parts.append(f"{names}, {what} of video_clue_{place}")
            first += num
    return "; ".join(parts) or "no frame of a video yet"


def _short(value: float) -> str:
    return f"{round(value, 2):g}"
