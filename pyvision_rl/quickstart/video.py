"""The quickstart on videos: needle-video clips, and beside the agent evenly spaced frames in the
context, without a tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from pyvision_rl.data.needle import answer_text
from pyvision_rl.data.needle_video import NUM_FRAMES, STRIDE, Event, oracle_clip_turns
from pyvision_rl.data.needle_video_files import (
    TEST_FILE,
    TRAIN_FILE,
    NeedleVideoConfig,
    load_events,
    write_needle_video,
)
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.quickstart.stages import TRACE_SEED, Stages, StagesConfig, run_stages
from pyvision_rl.rollout.videos import VideoConfig, open_video
from pyvision_rl.runs.folder import Json
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.needle_video import NeedleVideoTraceConfig, write_needle_video_traces
from pyvision_rl.types import Task

UNIFORM = "uniform"
PERFECT_READER = "uniform, perfect reader"
_DIGITS = "0123456789"


def _uniform_frames() -> VideoConfig:
    return VideoConfig("uniform", num_frames=NUM_FRAMES // STRIDE, prompt="question")


@dataclass(frozen=True)
class VideoQuickstartConfig(StagesConfig):
    """Everything the quickstart on videos runs. Folders, data files and seeds are set here."""

    num_traces: int = 600
    """Traces of the cold start."""
    needle_video: NeedleVideoConfig = field(default_factory=NeedleVideoConfig)
    """Size of the data set."""
    traces: NeedleVideoTraceConfig = field(default_factory=NeedleVideoTraceConfig)
    """How often the traces call."""
    uniform: VideoConfig = field(default_factory=_uniform_frames)
    """The context that the agent is compared with."""


async def run_video_quickstart(config: VideoQuickstartConfig) -> Path:
    """Run all stages on videos; returns the run folder."""
    return await run_stages(config, VideoTask(config))


class VideoTask:
    """Needle-video clips as the stages want them."""

    train_file = TRAIN_FILE
    test_file = TEST_FILE

    def __init__(self, config: VideoQuickstartConfig) -> None:
        self.config = config

    def write_data(self, folder: Path) -> None:
        """Make the clips of RL and evaluation."""
        write_needle_video(folder, replace(self.config.needle_video, seed=self.config.seed))

    async def write_traces(self, folder: Path, codec: ChatCodec, pool: SandboxPool) -> Path:
        """Play the traces of the cold start on clips of their own."""
        config = self.config
        clips = replace(
            config.needle_video,
            num_train=config.num_traces,
            num_test=0,
            seed=TRACE_SEED + config.seed,
        )
        write_needle_video(folder / "data", clips)
        return await write_needle_video_traces(
            folder,
            read_tasks(folder / "data" / TRAIN_FILE),
            load_events(folder / "data"),
            codec,
            pool,
            config.rl.agent.rollout,
            config.traces,
            config.seed,
        )

    def oracle_texts(self, data: Path, tasks: Sequence[Task]) -> dict[str, list[str]]:
        """Sheets until the tag is found, then its frame."""
        events = load_events(data)
        return {task.id: oracle_clip_turns(events[task.videos[0].name]) for task in tasks}

    async def compare(self, stages: Stages) -> dict[str, Json]:
        """A perfect reader of a uniform context: who reads every tag in it, and else guesses."""
        tasks = stages.tests()
        events = load_events(stages.data)
        covered = {
            task.id: self._is_covered(events[task.videos[0].name], task.videos[0]) for task in tasks
        }
        texts = {
            task.id: [answer_text(task.answer if covered[task.id] else _guess(task))]
            for task in tasks
        }
        rollout = replace(self.config.eval.agent.rollout, video=self.config.uniform)
        report = await stages.play_script(PERFECT_READER, texts, rollout)
        stages.rows.append((PERFECT_READER, report))
        num_covered = sum(covered.values())
        ceiling = (num_covered + (len(tasks) - num_covered) / len(_DIGITS)) / len(tasks)
        return {UNIFORM: {**report.as_dict(), "reader": "perfect", "ceiling": ceiling}}

    def _is_covered(self, event: Event, path: Path) -> bool:
        """Whether the tag shows in a frame of the uniform context."""
        numbers = open_video(path, self.config.uniform).numbers
        return any(event.first <= number < event.end for number in numbers)


def _guess(task: Task) -> str:
    return Random(task.id).choice(_DIGITS)
