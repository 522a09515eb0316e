"""Groups with real images, made from a step number: the same number, the same groups."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from pyvision_rl.runs import GroupRecord
from pyvision_rl.types import (
    Completion,
    Group,
    Observation,
    Reward,
    StopReason,
    Task,
    Trajectory,
    Turn,
)


def noise(seed: int, width: int = 28, height: int = 28) -> Image.Image:
    return Image.frombytes(
        "RGB", (width, height), random.Random(seed).randbytes(3 * width * height)
    )


def records(step: int, num_groups: int = 2, group_size: int = 3) -> list[GroupRecord]:
    """One kept group, the others dropped; the first image of a group is shared by its members."""
    return [_record(step, place, group_size) for place in range(num_groups)]


def _record(step: int, place: int, group_size: int) -> GroupRecord:
    task = Task(
        id=f"task-{step}-{place}",
        question="Which digit is on the röd tag?\n<image>",
        answer="7",
        images=(Path("images/a b.png"), Path("/data/ü.jpg")),
        videos=(Path("clip.mp4"),) if place else (),
        source="needle",
        ability="easy" if place else "two_looks",
        rule="number" if place else "auto",
    )
    view = noise(1000 * step + place, 56, 28)
    members = tuple(_trajectory(task, view, step, index) for index in range(group_size))
    rewards = tuple(Reward(float(index % 2), 0.1 * (index % 2)) for index in range(group_size))
    return GroupRecord(
        Group(task, members, rewards),
        rank=None if place else 0,
        dropped=dict.fromkeys(range(group_size), "group/constant") if place else {1: "max_tokens"},
        advantages=tuple(reward.total - 1 / 3 for reward in rewards),
        seconds=tuple(0.25 * index for index in range(group_size)),
    )


def _trajectory(task: Task, view: Image.Image, step: int, index: int) -> Trajectory:
    random_numbers = random.Random(f"{task.id} {index}")
    # As sampled: doubles that are no float32 too.
    logprobs = (-random_numbers.random(), -1e-300, -0.1)
    called = Turn(
        Completion((5, 6, 151_000), logprobs, "I look. <code>print(1)</code>", "stop"),
        Observation((7, 8), "1\n\x00\u2028", (noise(step), noise(index)), 8, ok=index != 2),
        code="print(1)",
    )
    silent = Turn(Completion((), (), "", "length"), Observation((9,), "nothing", (), 0))
    last = Turn(Completion((1,), (-2.5,), "<answer>7</answer>", "stop"), None)
    stop = (StopReason.ANSWERED, StopReason.MAX_TOKENS, StopReason.SANDBOX_LOST)[index % 3]
    return Trajectory(
        task=task,
        prompt=Observation((1, 2, 3, 4), "<|im_start|>", (view,), 36),
        turns=(called, silent, last) if index else (last,),
        stop=stop,
        answer="7" if stop is StopReason.ANSWERED else None,
        seed=random_numbers.getrandbits(62),
    )
