"""95 % confidence intervals of a mean over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z = 1.959963984540054


def mean_ci95(values: Sequence[float]) -> tuple[float, float]:
    """Interval of the mean of per-task accuracies in [0, 1].

    Wilson's interval where every value is 0 or 1: it stays honest near both ends, where a normal
    interval shrinks to a point. Otherwise (avg@k, graded answers) the normal one, cut to [0, 1].
    """
    count = len(values)
    if count == 0:
        return (0.0, 1.0)
    mean = math.fsum(values) / count
    if all(value in (0.0, 1.0) for value in values):
        centre = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
        spread = math.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
        half = _Z * spread / (1 + _Z**2 / count)
    else:
        variance = math.fsum((value - mean) ** 2 for value in values) / max(count - 1, 1)
        centre, half = mean, _Z * math.sqrt(variance / count)
    return (max(0.0, centre - half), min(1.0, centre + half))


def clustered_ci95(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """Interval of a mean whose values go together within clusters (variants of one question).

    The variance is that of the sums of residuals over clusters. Where every cluster is all right
    or all wrong, which makes that variance useless, each cluster counts as one value of Wilson's.
    """
    members: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    means = [math.fsum(group) / len(group) for group in members.values()]
    if len(members) == len(values) or all(mean in (0.0, 1.0) for mean in means):
        return mean_ci95(means)
    mean = math.fsum(values) / len(values)
    count = len(members)
    sums = (math.fsum(group) - len(group) * mean for group in members.values())
    spread = math.fsum(value**2 for value in sums) * count / max(count - 1, 1)
    half = _Z * math.sqrt(spread) / len(values)
    return (max(0.0, mean - half), min(1.0, mean + half))


def stratified_ci95(
    strata: Sequence[Sequence[float]], weights: Sequence[float]
) -> tuple[float, float]:
    """Interval of a weighted sum of the means of independent sets of values in [0, 1]."""
    centre = variance = 0.0
    for values, weight in zip(strata, weights, strict=True):
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        centre += weight * mean
        variance += weight**2 * squares / max(len(values) - 1, 1) / len(values)
    half = _Z * math.sqrt(variance)
    return (max(0.0, centre - half), min(1.0, centre + half))
