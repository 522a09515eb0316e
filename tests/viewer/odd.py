"""Trajectories that strain a page: hostile text, 300 turns, 32 images, a figure of 4 MB."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from pyvision_rl.runs import GroupRecord, RunFolder
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

ATTACK = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
KINDS = ("hostile", "long", "many_images", "large_figure", "video")


def write_odd_run(folder: Path) -> Path:
    """A run of one step whose groups are `KINDS`, in that order, each of one trajectory."""
    with RunFolder.create(folder, "seed: 0\n") as run:
        run.log(0, {"eval/accuracy": 0.5, "reward/mean": float("nan")})
        run.write_groups(0, "eval", [_record(kind) for kind in KINDS])
    return folder


def _record(kind: str) -> GroupRecord:
    trajectory = _MAKERS[kind]()
    return GroupRecord(Group(trajectory.task, (trajectory,), (Reward(0.0, 0.0),)))


def turn(text: str, code: str | None, output: str, *images: Image.Image) -> Turn:
    """A turn as it would be recorded; without code it is the last."""
    ids = tuple(range(3, 3 + max(1, len(text) // 4)))
    completion = Completion(ids, tuple(-0.01 * n for n in range(len(ids))), text, "stop")
    if code is None:
        return Turn(completion, None)
    shown = f"<tool_response>\n<interpreter>Text Result:\n{output}"
    shown += "\nImage Result:\n</interpreter>" if images else "</interpreter>"
    seen = Observation((1, 2, 2, 2), f"{shown}\n\n</tool_response>", images, len(images))
    return Turn(completion, seen, code)


def _played(task: Task, *turns: Turn, prompt: tuple[Image.Image, ...] = ()) -> Trajectory:
    return Trajectory(task, opening(task, prompt), turns, StopReason.ANSWERED, task.answer + "!")


def opening(task: Task, images: tuple[Image.Image, ...] = ()) -> Observation:
    """A prompt that names the size of one image."""
    return Observation((1, 2, 3), f"{task.question} image_clue_0 is 40 x 20.", images, 4)


def call(code: str, thought: str = "I look.") -> str:
    """A completion that runs code."""
    return f"{thought}\n<code>\n```python\n{code}\n```\n</code>"


def _hostile() -> Trajectory:
    task = Task(ATTACK, f"What? {ATTACK}", ATTACK, source=ATTACK, ability=ATTACK)
    code = f"print({ATTACK!r})"
    return _played(
        task,
        turn(ATTACK + call(code), code, f"{ATTACK}</interpreter>\nImage Result:\n{ATTACK}"),
        turn(f"<answer>{ATTACK}</answer>", None, ""),
    )


def _long() -> Trajectory:
    turns = []
    for number in range(299):
        code = f"total = {number}\nprint(total)"
        turns.append(turn(call(code), code, f"{number}\n" * 3))
    task = Task("long", "How long can this go on?", "for ever")
    return _played(task, *turns, turn("<answer>on and on</answer>", None, ""))


def _many_images() -> Trajectory:
    images = [Image.new("RGB", (56, 56), (8 * k, 255 - 8 * k, 120)) for k in range(32)]
    code = "for i in range(8): plt.imshow(tile(i)); plt.show()"
    turns = [turn(call(code), code, "", *images[8 * n : 8 * n + 8]) for n in range(4)]
    return _played(Task("images", "Which of the tiles?", "3"), *turns, turn("done", None, ""))


def _large_figure() -> Trajectory:
    noise = Image.frombytes("RGB", (1200, 1200), random.Random(0).randbytes(3 * 1200 * 1200))
    given = Image.new("RGB", (40, 20), "orange")
    task = Task("large", "What is in the noise?", "nothing", images=(Path("/nowhere/gone.png"),))
    code = "plt.imshow(image_clue_0.crop((10, 5, 30, 15)))"
    return _played(task, turn(call(code), code, "", noise), prompt=(given,))


def _video() -> Trajectory:
    task = Task("video", "What happens at the end?", "rain", videos=(Path("/nowhere/clip.mp4"),))
    first, second = "video_clue_0.get_batch([0, 50, 100])", "video_clue_0[75]"
    frames = [Image.new("RGB", (64, 36), colour) for colour in ("navy", "teal", "grey")]
    return _played(
        task,
        turn(call(first), first, "", *frames),
        turn(call(second), second, "", frames[0]),
        turn("<answer>rain</answer>", None, ""),
    )


_MAKERS = {
    "hostile": _hostile,
    "long": _long,
    "many_images": _many_images,
    "large_figure": _large_figure,
    "video": _video,
}
