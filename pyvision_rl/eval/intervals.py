"""95 % confidence intervals of a mean over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z = 1.959963984540054
_UNKNOWN = (0.0, 1.0)
_SAME = 1e-9
_MAX_VARIANCE = 0.25
"""Of a value between 0 and 1."""


def mean_ci95(values: Sequence[float]) -> tuple[float, float]:
    """Interval of the mean of per-task accuracies in [0, 1].

    Wilson's interval where every value is 0 or 1: it stays honest near both ends, where a normal
    interval shrinks to a point. Otherwise (avg@k, graded answers) the normal one, cut to [0, 1];
    one such value alone says nothing of its spread, and several equal ones take Wilson's too, the
    widest that there can be.
    """
    count = len(values)
    if count == 0:
        return _UNKNOWN
    mean = math.fsum(values) / count
    if all(value in (0.0, 1.0) for value in values) or (count > 1 and _are_equal(values)):
        centre = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
        spread = math.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
        half = _Z * spread / (1 + _Z**2 / count)
    else:
        if count == 1:
            return _UNKNOWN
        variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
        centre, half = mean, _Z * math.sqrt(variance / count)
    return (max(0.0, centre - half), min(1.0, centre + half))


def clustered_ci95(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """Interval of a mean whose values go together within clusters (variants of one question).

    The variance is that of the sums of residuals over clusters. Where every cluster is all right
    or all wrong, or all have the same mean, which makes that variance useless, each cluster counts
    as one value of Wilson's.
    """
    members: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(value)
    means = [math.fsum(group) / len(group) for group in members.values()]
    count = len(members)
    is_all_or_nothing = all(mean in (0.0, 1.0) for mean in means)
    if count == len(values) or is_all_or_nothing or _are_equal(means):
        return mean_ci95(means)
    mean = math.fsum(values) / len(values)
    sums = (math.fsum(group) - len(group) * mean for group in members.values())
    spread = math.fsum(value**2 for value in sums) * count / (count - 1)
    half = _Z * math.sqrt(spread) / len(values)
    return (max(0.0, mean - half), min(1.0, mean + half))


def stratified_ci95(
    strata: Sequence[Sequence[float]],
    weights: Sequence[float],
    clusters: Sequence[Sequence[str]] = (),
) -> tuple[float, float]:
    """Interval of a weighted sum of the means of sets of values in [0, 1].

    A set of one value, which says nothing of its spread, counts with the largest there can be, one
    that is all right or all wrong as if two more values were right and two wrong (Agresti-Coull).
    `clusters` names, value by value, what goes together across the sets (questions about one
    video): the variance is then at least that of the clusters.
    """
    if not strata:
        return _UNKNOWN
    centre = variance = 0.0
    for values, weight in zip(strata, weights, strict=True):
        centre += weight * math.fsum(values) / len(values)
        variance += weight**2 * _variance(values) / len(values)
    if clusters:
        variance = max(variance, _between_clusters(strata, weights, clusters))
    half = _Z * math.sqrt(variance)
    return (max(0.0, centre - half), min(1.0, centre + half))


def _between_clusters(
    strata: Sequence[Sequence[float]], weights: Sequence[float], clusters: Sequence[Sequence[str]]
) -> float:
    """Variance of the weighted sum from what each cluster adds to it."""
    sums: dict[str, float] = {}
    for values, weight, names in zip(strata, weights, clusters, strict=True):
        mean = math.fsum(values) / len(values)
        for value, name in zip(values, names, strict=True):
            sums[name] = sums.get(name, 0.0) + weight * (value - mean) / len(values)
    if len(sums) == 1:
        return 1.0
    return math.fsum(value**2 for value in sums.values()) * len(sums) / (len(sums) - 1)


def _variance(values: Sequence[float]) -> float:
    """Of one value of a set."""
    if len(values) == 1:
        return _MAX_VARIANCE
    mean = math.fsum(values) / len(values)
    if mean in (0.0, 1.0):
        share = (math.fsum(values) + 2) / (len(values) + 4)
        return share * (1 - share)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _are_equal(values: Sequence[float]) -> bool:
    return max(values) - min(values) < _SAME
