"""Needle-video data sets on disk: h264 clips, a training file and a validation file in the paper's
layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame

from pyvision_rl.data.generated import write_json, write_once
from pyvision_rl.data.needle import MAX_ITEMS, Split, item_seed
from pyvision_rl.data.needle_draw import CELL_PX, Pixels
from pyvision_rl.data.needle_video import FPS, Event, make_clip
from pyvision_rl.errors import ConfigError, InputError

TRAIN_FILE = "train.json"
TEST_FILE = "video_val_dataset_needle.json"
PLANS_FILE = "needle_video_plans.json"
"""The oracle's side file: the configuration of the set and the asked event of every clip."""

_SOURCE = "needle-video"
_ENVIRONMENT = "pyvision_gym_wo_video_hint"
_KEY_FRAME_EVERY = 24
_QUALITY = "23"
"""x264's own default; the tags stay legible."""


@dataclass(frozen=True)
class NeedleVideoConfig:
    """Size of a needle-video data set."""

    num_train: int = 256
    """Training clips."""
    num_test: int = 200
    """Test clips."""
    seed: int = 0
    """Data sets of different seeds share no clip."""

    def __post_init__(self) -> None:
        for name in ("num_train", "num_test", "seed"):
            value = getattr(self, name)
            if not 0 <= value < MAX_ITEMS:
                raise ConfigError(f"needle_video.{name}: {value} is not from 0 to {MAX_ITEMS - 1}")


def write_needle_video(folder: Path, config: NeedleVideoConfig) -> None:
    """Write the data set; the same configuration gives the same bytes where the codec is the same.

    The folder appears whole or not at all. One that already holds this very set is left as it is;
    any other content raises InputError.
    """
    write_once(
        folder,
        "needle-video",
        PLANS_FILE,
        asdict(config),
        lambda partial: _write_files(partial, config),
    )


def load_events(folder: Path) -> dict[str, Event]:
    """The asked event of every clip of a written set, by the clip's file name."""
    path = folder / PLANS_FILE
    try:
        events = json.loads(path.read_text())["events"]
        return {name: Event(**event) for name, event in events.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the plans of a needle-video data set ({error})") from error


def write_clip(path: Path, frames: Pixels) -> None:
    """Encode frames [N, 112, 112, 3] as h264 in mp4."""
    with av.open(path, "w") as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(FPS),
            options={"crf": _QUALITY, "preset": "ultrafast", "threads": "1"},
        )
        stream.width, stream.height = CELL_PX, CELL_PX
        stream.pix_fmt = "yuv420p"
        stream.gop_size = _KEY_FRAME_EVERY
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@dataclass(frozen=True)
class _Row:
    index: int
    video: str
    question: str
    event: Event


def _write_files(folder: Path, config: NeedleVideoConfig) -> None:
    (folder / "videos").mkdir()
    train = list(_write_videos(folder, "train", config.seed, config.num_train))
    test = list(_write_videos(folder, "test", config.seed, config.num_test))
    events = {Path(row.video).name: asdict(row.event) for row in (*train, *test)}
    write_json(folder / TRAIN_FILE, [_train_row(row) for row in train])
    write_json(folder / TEST_FILE, [_test_row(row) for row in test])
    write_json(folder / PLANS_FILE, {"config": asdict(config), "events": events})


def _write_videos(folder: Path, split: Split, dataset_seed: int, num: int) -> Iterator[_Row]:
    for index in range(num):
        clip = make_clip(item_seed(split, dataset_seed, index))
        path = f"videos/{split}_{index:06d}.mp4"
        write_clip(folder / path, clip.frames)
        yield _Row(index, path, clip.question, clip.asked)


def _train_row(row: _Row) -> dict[str, object]:
    """A row of the paper's RL training json."""
    return {
        "prompt": [{"role": "user", "content": f"<video>\n{row.question}"}],
        "data_source": _SOURCE,
        "ability": row.event.kind,
        "env_name": _ENVIRONMENT,
        "reward_model": {"ground_truth": row.event.digit, "style": "rule"},
        "extra_info": {
            "answer": row.event.digit,
            "index": row.index,
            "question": row.question,
            "split": "train",
            "frames": [row.event.first, row.event.end],
        },
        "mm_hint": {"hint_path": row.video, "hint_type": "video"},
    }


def _test_row(row: _Row) -> dict[str, object]:
    """A row of the released validation json."""
    return {
        "id": f"{_SOURCE}_test_{row.index:06d}",
        "question": row.question,
        "answer": row.event.digit,
        "ability": row.event.kind,
        "data_source": _SOURCE,
        "video_path": row.video,
    }
