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
