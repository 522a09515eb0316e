"""Draws one recorded episode as a strip: what the policy saw, wrote and saw next.

    python scripts/draw_episode.py runs/quickstart/eval/rl-greedy docs/images/episode.png

takes the first right answer with the most looks (`--kind` narrows the choice).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL.Image import Image

from pyvision_rl.runs.records import read_groups, recorded_steps
from pyvision_rl.types import Trajectory

INK = "#1f2933"
PAPER = "#f5f7fa"
ACCENT = "#2563eb"


def choose(folder: Path, kind: str) -> Trajectory:
    """The first right trajectory of a kind with the most looks."""
    right = [
        trajectory
        for phase, step in recorded_steps(folder)
        for record in read_groups(folder, step, phase)
        for trajectory, reward in zip(record.group.trajectories, record.group.rewards, strict=True)
        if reward.accuracy == 1 and kind in ("", trajectory.task.ability)
    ]
    if not right:
        raise SystemExit(f"{folder}: no right answer of kind {kind!r}")
    return max(right, key=lambda trajectory: trajectory.num_tool_calls)


def draw_text(axes: Axes, title: str, text: str) -> None:
    """A card with a heading and monospaced text."""
    axes.set_facecolor(PAPER)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=9, color=ACCENT, fontweight="bold")
    axes.text(
        0.04,
        0.94,
        text,
        transform=axes.transAxes,
        va="top",
        fontsize=7.2,
        family="monospace",
        color=INK,
        linespacing=1.45,
    )


def draw_image(axes: Axes, title: str, image: Image, note: str) -> None:
    """An image at its own pixels with what it cost."""
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, loc="left", fontsize=9, color=ACCENT, fontweight="bold")
    axes.set_xlabel(note, fontsize=8, color=INK)


def short(completion: str) -> str:
    """A completion without its tags' line noise."""
    lines = [line for line in completion.splitlines() if line not in ("```python", "```")]
    return "\n".join(piece for line in lines for piece in wrapped(line, 38))


def wrapped(line: str, width: int) -> list[str]:
    """A line cut into pieces; all but the first are indented."""
    pieces = [line[:width]]
    rest = line[width:]
    while rest:
        pieces.append("    " + rest[: width - 4])
        rest = rest[width - 4 :]
    return pieces


def draw(trajectory: Trajectory) -> Figure:
    """One row of cards: view, then per turn the text and the figure it brought."""
    looks = [turn for turn in trajectory.turns if turn.observation and turn.observation.images]
    widths = [1.4, *[w for _ in looks for w in (1.75, 1.0)], 1.35]
    figure = Figure(figsize=(sum(widths) * 1.75, 2.75), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = iter(figure.subplots(1, len(widths), width_ratios=widths))
    view = trajectory.prompt.images[0]
    draw_image(
        next(axes),
        trajectory.task.question,
        view,
        f"what it is given\n{trajectory.prompt.num_visual_tokens} visual tokens",
    )
    for number, turn in enumerate(looks, start=1):
        assert turn.observation is not None
        draw_text(next(axes), f"turn {number}: it writes", short(turn.completion.text))
        draw_image(
            next(axes),
            "and sees",
            turn.observation.images[0],
            f"image_clue_{number}\n{turn.observation.num_visual_tokens} visual tokens",
        )
    last = trajectory.turns[-1]
    draw_text(next(axes), "it answers", short(last.completion.text))
    return figure


def main() -> None:
    """Draw the strip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of an evaluation")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--kind", default="", help="only this kind of task")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(choose(arguments.run, arguments.kind)).savefig(arguments.out, dpi=130)


if __name__ == "__main__":
    main()
