"""The columns of trajectory records, and how a row becomes the dataclasses again.

`trajectories/` is one flat row a trajectory, small enough to list 100,000 of them at once;
`turns/` has, for the same (group, index), everything that was said, sampled and shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa
from PIL.Image import Image

from pyvision_rl.runs.parquet import Layout
from pyvision_rl.types import Completion, Observation, Reward, StopReason, Task, Trajectory, Turn

TRAJECTORIES = Layout(
    pa.schema(
        [
            pa.field("step", pa.int64()),
            pa.field("phase", pa.string()),
            pa.field("group", pa.int32()),  # place of the group among those recorded
            pa.field("index", pa.int32()),  # place of the trajectory in its group
            pa.field("task_id", pa.string()),
            pa.field("source", pa.string()),
            pa.field("ability", pa.string()),
            pa.field("question", pa.string()),
            pa.field("gold", pa.string()),
            pa.field("answer", pa.string()),  # null: none was given
            pa.field("stop", pa.string()),
            pa.field("accuracy", pa.float64()),
            pa.field("tool", pa.float64()),
            pa.field("reward", pa.float64()),  # accuracy + tool
            pa.field("advantage", pa.float64()),  # null: never computed
            pa.field("rank", pa.int32()),  # of the group among those kept, 0 = best; null: not kept
            pa.field("dropped", pa.string()),  # why it is not in the loss; null: it is, or eval
            pa.field("num_turns", pa.int32()),
            pa.field("num_tool_calls", pa.int32()),
            pa.field("num_ok_tool_calls", pa.int32()),
            pa.field("visual_tokens_given", pa.int32()),
            pa.field("visual_tokens_shown", pa.int32()),
            pa.field("num_completion_tokens", pa.int32()),
            pa.field("seconds", pa.float64()),  # wall time of the episode; null: unknown
            pa.field("seed", pa.int64()),
        ]
    )
)
LIGHT_COLUMNS: tuple[str, ...] = tuple(TRAJECTORIES.schema.names)

_IDS = pa.list_(pa.int32())
_OBSERVATION = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("token_ids", _IDS),
        pa.field("images", pa.list_(pa.string())),  # sha1 of rows in images/
        pa.field("num_visual_tokens", pa.int32()),
        pa.field("ok", pa.bool_()),
    ]
)
_TURN = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("token_ids", _IDS),
        pa.field("logprobs", pa.list_(pa.float64())),
        pa.field("finish", pa.string()),
        pa.field("code", pa.string()),  # null: no tool call
        pa.field("observation", _OBSERVATION),  # null: the episode ended here
    ]
)
TURNS = Layout(
    pa.schema(
        [
            pa.field("group", pa.int32()),
            pa.field("index", pa.int32()),
            pa.field("task_images", pa.list_(pa.string())),  # paths
            pa.field("task_videos", pa.list_(pa.string())),
            pa.field("rule", pa.string()),  # that the task declares
            pa.field("prompt", _OBSERVATION),
            pa.field("turns", pa.list_(_TURN)),
        ]
    ),
    compression="zstd",
    rows_per_group=32,
    dictionary=("prompt.text", "prompt.images.list.element"),
    split_bytes=("turns.list.element.logprobs.list.element",),
)


class StoredObservation(msgspec.Struct):
    """An observation as read back, its images still names."""

    text: str
    token_ids: tuple[int, ...]
    images: tuple[str, ...]
    num_visual_tokens: int
    ok: bool

    def build(self, images: Mapping[str, Image]) -> Observation:
        """The observation with its images."""
        shown = tuple(images[name] for name in self.images)
        return Observation(self.token_ids, self.text, shown, self.num_visual_tokens, self.ok)


class StoredTurn(msgspec.Struct):
    """A turn as read back."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]
    code: str | None
    observation: StoredObservation | None

    def build(self, images: Mapping[str, Image]) -> Turn:
        """The turn with its images."""
        completion = Completion(self.token_ids, self.logprobs, self.text, self.finish)
        seen = self.observation.build(images) if self.observation else None
        return Turn(completion, seen, self.code)


class StoredTrajectory(msgspec.Struct):
    """The two rows of a trajectory, joined."""

    group: int
    index: int
    task_id: str
    source: str
    ability: str
    question: str
    gold: str
    answer: str | None
    stop: StopReason
    accuracy: float
    tool: float
    advantage: float | None
    rank: int | None
    dropped: str | None
    seconds: float | None
    seed: int
    task_images: tuple[str, ...]
    task_videos: tuple[str, ...]
    prompt: StoredObservation
    turns: tuple[StoredTurn, ...]
    rule: str = "auto"

    @property
    def image_names(self) -> set[str]:
        """Every image it refers to."""
        seen = [self.prompt, *(turn.observation for turn in self.turns if turn.observation)]
        return {name for observation in seen for name in observation.images}

    @property
    def task(self) -> Task:
        """The task that was rolled out."""
        return Task(
            id=self.task_id,
            question=self.question,
            answer=self.gold,
            images=tuple(map(Path, self.task_images)),
            videos=tuple(map(Path, self.task_videos)),
            source=self.source,
            ability=self.ability,
            rule=self.rule,
        )

    def build(self, images: Mapping[str, Image]) -> Trajectory:
        """The trajectory with its images."""
        return Trajectory(
            task=self.task,
            prompt=self.prompt.build(images),
            turns=tuple(turn.build(images) for turn in self.turns),
            stop=self.stop,
            answer=self.answer,
            seed=self.seed,
        )


def trajectory_columns(task: Task, reward: Reward, trajectory: Trajectory) -> dict[str, object]:
    """What a row of `trajectories/` says of the trajectory itself."""
    return {
        "task_id": task.id,
        "source": task.source,
        "ability": task.ability,
        "question": task.question,
        "gold": task.answer,
        "answer": trajectory.answer,
        "stop": trajectory.stop.value,
        "accuracy": reward.accuracy,
        "tool": reward.tool,
        "reward": reward.total,
        "num_turns": len(trajectory.turns),
        "num_tool_calls": trajectory.num_tool_calls,
        "num_ok_tool_calls": trajectory.num_ok_tool_calls,
        "visual_tokens_given": trajectory.num_visual_tokens_given,
        "visual_tokens_shown": trajectory.num_visual_tokens_shown,
        "num_completion_tokens": trajectory.num_completion_tokens,
        "seed": trajectory.seed,
    }


def turns_columns(
    task: Task, trajectory: Trajectory, name: Callable[[Image], str]
) -> dict[str, object]:
    """What a row of `turns/` says; `name` stores an image and gives its name."""
    return {
        "task_images": [str(path) for path in task.images],
        "task_videos": [str(path) for path in task.videos],
        "rule": task.rule,
        "prompt": _observation_columns(trajectory.prompt, name),
        "turns": [_turn_columns(turn, name) for turn in trajectory.turns],
    }


def _turn_columns(turn: Turn, name: Callable[[Image], str]) -> dict[str, object]:
    completion, seen = turn.completion, turn.observation
    return {
        "text": completion.text,
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "finish": completion.finish,
        "code": turn.code,
        "observation": _observation_columns(seen, name) if seen else None,
    }


def _observation_columns(
    observation: Observation, name: Callable[[Image], str]
) -> dict[str, object]:
    return {
        "text": observation.text,
        "token_ids": observation.token_ids,
        "images": [name(image) for image in observation.images],
        "num_visual_tokens": observation.num_visual_tokens,
        "ok": observation.ok,
    }
