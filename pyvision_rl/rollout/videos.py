"""Videos of a task as its prompt names them; their frames stay in the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pyvision_rl.errors import InputError
from pyvision_rl.sandbox.video import VideoError, VideoReader


@dataclass(frozen=True)
class VideoConfig:
    """How tasks with videos are put to the policy."""

    prompt: str = "video"
    """Prompt template of tasks with videos, named as `rollout.prompt` is."""


@dataclass(frozen=True)
class VideoInfo:
    """What a prompt says of a video, as the reader in the runtime has it."""

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float

    def __str__(self) -> str:
        fps, duration_s = (f"{round(value, 2):g}" for value in (self.fps, self.duration_s))
        size = f"{self.width} x {self.height}"
        return f"{size}, {self.num_frames} frames, {fps} fps, {duration_s} s"


@lru_cache(maxsize=4096)
def read_info(path: Path) -> VideoInfo:
    """Open a video and decode its first frame. Raises InputError for one that cannot be read."""
    try:
        with VideoReader(path) as reader:
            height, width, _ = reader[0].shape
            first, last = reader.get_frame_timestamp([0, -1]).tolist()
            return VideoInfo(width, height, len(reader), reader.get_avg_fps(), last[1] - first[0])
    except VideoError as error:
        raise InputError(f"{path}: {error}") from error
