"""What an evaluation found: accuracy with its interval, and how the agent got there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from pyvision_rl.eval.intervals import mean_ci95
from pyvision_rl.eval.store import Finished, ItemRecord, SampleRecord
from pyvision_rl.runs.folder import Json
from pyvision_rl.types import Group, Task

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
    """Figures over all tasks and per kind (`Task.ability`); `num_skipped` tasks are in none of
    them, because their files could no longer be read, and `num_lost` trajectories, because their
    sandbox failed.
    """

    overall: Figures
    by_kind: dict[str, Figures]
    num_skipped: int = 0
    num_lost: int = 0

    def as_dict(self) -> dict[str, Json]:
        """The form of summary.json: the overall figures with `by_kind` beside them."""
        kinds: dict[str, Json] = {kind: asdict(f) for kind, f in self.by_kind.items()}
        left_out = {"num_skipped": self.num_skipped, "num_lost": self.num_lost}
        return {**asdict(self.overall), **left_out, "by_kind": kinds}

    def metrics(self) -> dict[str, float]:
        """Flat numbers for the metrics of a run: `eval/accuracy`, `eval/accuracy/easy` ...; tasks
        without a kind are in the overall ones only.
        """
        flat = {"data/skipped": float(self.num_skipped)}
        named = {kind: figures for kind, figures in self.by_kind.items() if kind}
        for suffix, figures in {**named, "": self.overall}.items():
            for name in METRICS:
                flat[f"eval/{name}" + (f"/{suffix}" if suffix else "")] = getattr(figures, name)
        return flat


def make_report(groups: Sequence[Group]) -> Report:
    """Count what groups of played tasks show. Trajectories of a lost sandbox are left out."""
    return report_items([(group.task, Finished(group, 0.0, {}).record(0)) for group in groups])


def report_items(items: Sequence[tuple[Task, ItemRecord]], num_skipped: int = 0) -> Report:
    """The same of tasks and what was kept of playing them."""
    kinds: dict[str, list[ItemRecord]] = {}
    for task, record in items:
        kinds.setdefault(task.ability, []).append(record)
    by_kind = {kind: _figures(kinds[kind]) for kind in sorted(kinds)}
    num_lost = sum(sample.lost for _, record in items for sample in record.samples)
    return Report(_figures([record for _, record in items]), by_kind, num_skipped, num_lost)


def _figures(records: Sequence[ItemRecord]) -> Figures:
    counted = [
        [pair for pair in zip(r.samples, r.accuracies, strict=True) if not pair[0].lost]
        for r in records
    ]
    accuracies = [_mean([accuracy for _, accuracy in pairs]) for pairs in counted if pairs]
    played = [sample for pairs in counted for sample, _ in pairs]
    return Figures(
        num_tasks=len(accuracies),
        accuracy=_mean(accuracies),
        accuracy_ci95=mean_ci95(accuracies),
        tool_calls_mean=_mean([s.num_tool_calls for s in played]),
        zero_call_share=_mean([s.num_tool_calls == 0 for s in played]),
        turns_mean=_mean([s.num_turns for s in played]),
        completion_tokens_mean=_mean([s.num_completion_tokens for s in played]),
        visual_tokens_mean=_mean([s.num_visual_tokens for s in played]),
        visual_tokens_given_mean=_mean(
            [s.num_visual_tokens - s.num_visual_tokens_shown for s in played]
        ),
        visual_tokens_shown_mean=_mean([s.num_visual_tokens_shown for s in played]),
        stops=_stops(played),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _stops(played: Iterable[SampleRecord]) -> dict[str, int]:
    counts = Counter(sample.stop.value for sample in played)
    return dict(sorted(counts.items()))
