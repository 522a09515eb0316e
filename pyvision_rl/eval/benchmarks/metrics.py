"""Means over items and groups of items, each with a 95 % confidence interval."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from pyvision_rl.eval.benchmarks.item import Metric, ScoredItem
from pyvision_rl.eval.intervals import clustered_ci95, mean_ci95


def scored(items: Sequence[ScoredItem]) -> list[ScoredItem]:
    """The items that have a grade at all."""
    return [entry for entry in items if entry.counted]


def mean_metric(name: str, items: Sequence[ScoredItem]) -> Metric:
    """Mean over items; the interval counts items of a cluster as going together."""
    values = [entry.mean for entry in items]
    clusters = [entry.item.cluster or entry.item.id for entry in items]
    value = math.fsum(values) / len(values) if values else 0.0
    return Metric(name, value, clustered_ci95(values, clusters), len(values))


def value_metric(name: str, values: Sequence[float]) -> Metric:
    """Mean of values that are independent of each other."""
    value = math.fsum(values) / len(values) if values else 0.0
    return Metric(name, value, mean_ci95(values), len(values))


def label_metrics(name: str, label: str, items: Sequence[ScoredItem]) -> list[Metric]:
    """A mean for every value of a label: `accuracy/single`, `accuracy/cross`."""
    groups = by_label(label, items)
    return [mean_metric(f"{name}/{key}", groups[key]) for key in sorted(groups)]


def by_label(label: str, items: Sequence[ScoredItem]) -> dict[str, list[ScoredItem]]:
    """The items of every value of a label."""
    return _grouped(items, lambda entry: entry.item.labels.get(label, ""))


def by_cluster(items: Sequence[ScoredItem]) -> dict[str, list[ScoredItem]]:
    """The items of every cluster."""
    return _grouped(items, lambda entry: entry.item.cluster)


def _grouped(
    items: Iterable[ScoredItem], key: Callable[[ScoredItem], str]
) -> dict[str, list[ScoredItem]]:
    groups: dict[str, list[ScoredItem]] = defaultdict(list)
    for entry in items:
        groups[key(entry)].append(entry)
    return dict(groups)


def sample_rows(members: Sequence[ScoredItem]) -> list[tuple[float, ...]]:
    """The grades of a cluster, sample by sample: the j-th row has the j-th grade of each member.

    Samples that a sandbox lost for any member are left out.
    """
    rows = zip(*(member.grades for member in members), strict=False)
    whole = [[grade for grade in row if grade is not None] for row in rows]
    return [tuple(row) for row in whole if len(row) == len(members)]


def all_right(members: Sequence[ScoredItem]) -> float | None:
    """Share of the samples in which every member of a cluster is right; None where none counts.

    Wants every member, also those without a grade: a sample that lacks one does not count.
    """
    rows = sample_rows(members)
    return sum(min(row) == 1 for row in rows) / len(rows) if rows else None
