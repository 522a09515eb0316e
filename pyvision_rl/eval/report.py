"""What an evaluation found: accuracy with its interval, and how the agent got there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pyvision_rl.eval.intervals import mean_ci95
from pyvision_rl.runs.folder import Json
from pyvision_rl.types import Group, Trajectory

METRICS = (
    "accuracy",
    "tool_calls_mean",
    "zero_call_share",
    "visual_tokens_mean",
    "visual_tokens_shown_mean",
)
"""Figures that are curves of a run."""


@dataclass(frozen=True)
class Figures:
    """Means over the trajectories of a set of tasks; accuracy is first averaged within a task."""

    num_tasks: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    tool_calls_mean: float
    zero_call_share: float
    turns_mean: float
    completion_tokens_mean: float
    visual_tokens_mean: float
    visual_tokens_given_mean: float
    visual_tokens_shown_mean: float
    stops: dict[str, int]


@dataclass(frozen=True)
class Report:
    """Figures over all tasks and per kind (`Task.ability`)."""

    overall: Figures
    by_kind: dict[str, Figures]

    def as_dict(self) -> dict[str, Json]:
        """The form of summary.json: the overall figures with `by_kind` beside them."""
        kinds: dict[str, Json] = {kind: asdict(f) for kind, f in self.by_kind.items()}
        return {**asdict(self.overall), "by_kind": kinds}

    def metrics(self) -> dict[str, float]:
        """Flat numbers for the metrics of a run: `eval/accuracy`, `eval/accuracy/easy` ..."""
        flat = {}
        for suffix, figures in (("", self.overall), *self.by_kind.items()):
            for name in METRICS:
                flat[f"eval/{name}" + (f"/{suffix}" if suffix else "")] = getattr(figures, name)
        return flat


def make_report(groups: Sequence[Group]) -> Report:
    """Count what groups of played tasks show. Trajectories of a lost sandbox are left out."""
    kinds: dict[str, list[Group]] = {}
    for group in groups:
        kinds.setdefault(group.task.ability, []).append(group)
    by_kind = {kind: _figures(kinds[kind]) for kind in sorted(kinds)}
    return Report(_figures(groups), by_kind)


def _figures(groups: Sequence[Group]) -> Figures:
    counted = [(group, group.counted) for group in groups if group.counted]
    accuracies = [
        math.fsum(group.rewards[index].accuracy for index in indices) / len(indices)
        for group, indices in counted
    ]
    played = [group.trajectories[index] for group, indices in counted for index in indices]
    return Figures(
        num_tasks=len(counted),
        accuracy=_mean(accuracies),
        accuracy_ci95=mean_ci95(accuracies),
        tool_calls_mean=_mean([t.num_tool_calls for t in played]),
        zero_call_share=_mean([t.num_tool_calls == 0 for t in played]),
        turns_mean=_mean([len(t.turns) for t in played]),
        completion_tokens_mean=_mean([t.num_completion_tokens for t in played]),
        visual_tokens_mean=_mean([t.num_visual_tokens for t in played]),
        visual_tokens_given_mean=_mean([t.num_visual_tokens_given for t in played]),
        visual_tokens_shown_mean=_mean([t.num_visual_tokens_shown for t in played]),
        stops=_stops(played),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _stops(played: Sequence[Trajectory]) -> dict[str, int]:
    counts = Counter(trajectory.stop.value for trajectory in played)
    return dict(sorted(counts.items()))
