"""Played trajectories as a cold-start data file in the released SFT layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyvision_rl.data.rows import write_rows
from pyvision_rl.types import Trajectory

TRACES_FILE = "traces.json"


@dataclass(frozen=True)
class TraceSource:
    """A trajectory to imitate and, per turn, the characters of its text that are not to be learned.

    A span [start, end) that no reader of the trace could know, a guessed digit for example, would
    teach the policy to guess.
    """

    trajectory: Trajectory
    hidden: tuple[tuple[tuple[int, int], ...], ...] = ()


def write_traces(folder: Path, traces: Sequence[TraceSource]) -> Path:
    """Write `traces.json` and the shown images beside it; returns the file.

    Given images and videos are named where they lie, relative to the folder; frames that a context
    was given are written beside the shown images. The file appears last and whole.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = [trace_row(folder, f"trace_{index:06d}", trace) for index, trace in enumerate(traces)]
    path = folder / TRACES_FILE
    write_rows(path, rows)
    return path


def trace_row(folder: Path, name: str, trace: TraceSource) -> dict[str, object]:
    """A trajectory as a row of a trace file in `folder`; its shown images are written to the
    folder's `images/`, their names starting with `name`.
    """
    trajectory = trace.trajectory
    images = _given_images(folder, name, trajectory)
    conversations = [{"role": "user", "content": trajectory.prompt.text}]
    excluded: list[list[int]] = []
    for number, turn in enumerate(trajectory.turns):
        spans = trace.hidden[number] if number < len(trace.hidden) else ()
        excluded += [[len(conversations), start, end] for start, end in spans]
        conversations.append({"role": "assistant", "content": turn.completion.text})
        if turn.observation is not None:
            conversations.append({"role": "user", "content": turn.observation.text})
            for image in turn.observation.images:
                file = f"images/{name}_{len(images)}.png"
                image.save(folder / file, compress_level=1)
                images.append(file)
    videos = [_seen_from(folder, path) for path in trajectory.task.videos]
    row: dict[str, object] = {
        "conversations": conversations,
        "images": images,
        **({"videos": videos} if videos else {}),
        "source_dataset": trajectory.task.source,
    }
    return {**row, "loss_exclude": excluded} if excluded else row


def _given_images(folder: Path, name: str, trajectory: Trajectory) -> list[str]:
    """Paths of what the prompt shows: the task's own images, and frames as files of their own."""
    task, given = trajectory.task, trajectory.prompt.images
    images: list[str] = []
    if not task.videos:
        return [_seen_from(folder, path) for path in task.images] if given else []
    for image in given:
        images.append(f"images/{name}_{len(images)}.png")
        image.save(folder / images[-1], compress_level=1)
    return images


def _seen_from(folder: Path, path: Path) -> str:
    """The path relative to the folder; either may lie behind a link, where `..` leads elsewhere."""
    return os.path.relpath(path.parent.resolve() / path.name, folder.resolve())
