"""Two or more results on the same items: paired tests, so that shared difficulty cancels out."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.eval.intervals import clustered_ci95
from pyvision_rl.eval.result import ItemScore, read_scores
from pyvision_rl.runs import RunReader
from pyvision_rl.runs.files import write_file

log = logging.getLogger(__name__)

NUM_RESAMPLES = 10_000
SCORING = ("protocol", "scorer", "scorer_version")
"""What two runs must have alike in their summaries, the judge in the scorer's name too."""


@dataclass(frozen=True)
class CompareConfig:
    """A paired comparison of finished evaluations on the same benchmark."""

    runs: list[str]
    """Run folders, two or more; the first is the one that others are compared with."""
    out: str = "comparison.png"
    """The figure."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise ConfigError(f"compare: {len(self.runs)} runs; give two or more")


@dataclass(frozen=True)
class Pair:
    """How a second run differs from a first on the items that both have.

    `difference` is that of mean accuracy per item, with a 95 % interval and p-value by bootstrap
    over clusters. `mcnemar_p` is the exact McNemar test, which takes items for independent; NaN
    where they go together in clusters, or grades are not single 0 or 1.
    """

    first: str
    second: str
    num_items: int
    difference: float
    ci95: tuple[float, float]
    bootstrap_p: float
    num_only_first: int
    num_only_second: int
    mcnemar_p: float

    def line(self) -> str:
        """One line for a person."""
        low, high = (100 * end for end in self.ci95)
        text = (
            f"{self.second} - {self.first}: {100 * self.difference:+.2f} points "
            f"[{low:+.2f}, {high:+.2f}], bootstrap p = {self.bootstrap_p:.4f}"
        )
        if not math.isnan(self.mcnemar_p):
            text += (
                f"; only right in {self.second} {self.num_only_second}, in {self.first} "
                f"{self.num_only_first}, McNemar p = {self.mcnemar_p:.4f}"
            )
        return f"{text}  (n = {self.num_items})"


def compare_runs(config: CompareConfig) -> list[Pair]:
    """Compare every run with each one before it and draw the figure.

    Raises InputError where a run has no scores, or two share no item or are of two benchmarks.
    """
    names = _names(config.runs)
    scores = {name: read_scores(Path(run)) for name, run in zip(names, config.runs, strict=True)}
    _check_same_benchmark(dict(zip(names, config.runs, strict=True)))
    pairs = [
        compare_scores(one, scores[one], other, scores[other], config.seed)
        for one, other in combinations(names, 2)
    ]
    write_file(Path(config.out), draw_comparison(scores, pairs))
    return pairs


def _check_same_benchmark(runs: Mapping[str, str]) -> None:
    """Ids are numbers in most benchmarks: runs of two would be paired at random."""
    first = ""
    of_first: Mapping[str, object] = {}
    for name, run in runs.items():
        summary = RunReader(Path(run)).summary() or {}
        of_run = {key: summary.get(key) for key in ("benchmark", *SCORING)}
        if not of_first:
            first, of_first = name, of_run
        elif of_run["benchmark"] != of_first["benchmark"]:
            raise InputError(
                f"{first} is a run of {of_first['benchmark']}, {name} of {of_run['benchmark']}; "
                "runs of one benchmark can be compared"
            )
        elif of_run != of_first:
            log.warning(
                "scored differently: %s by protocol %s (%s; %s), %s by %s (%s; %s)",
                *(first, *(of_first[key] for key in SCORING)),
                *(name, *(of_run[key] for key in SCORING)),
            )


def _names(runs: Sequence[str]) -> list[str]:
    """Folder names, or whole paths where those are the same."""
    names = [Path(run).name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)


def compare_scores(
    first: str,
    first_scores: Sequence[ItemScore],
    second: str,
    second_scores: Sequence[ItemScore],
    seed: int = 0,
) -> Pair:
    """The pair of two lists of scores, on the items that both have."""
    ones = {score.id: score for score in first_scores if score.mean is not None}
    others = {score.id: score for score in second_scores if score.mean is not None}
    shared = [name for name in ones if name in others]
    if not shared:
        raise InputError(f"{first} and {second}: have no item in common")
    before = [ones[name].mean or 0.0 for name in shared]
    after = [others[name].mean or 0.0 for name in shared]
    clusters = [ones[name].cluster for name in shared]
    change = np.subtract(after, before)
    low, high, p_value = paired_bootstrap(change, clusters, seed)
    only_first = sum(a == 1 and b == 0 for a, b in zip(before, after, strict=True))
    only_second = sum(a == 0 and b == 1 for a, b in zip(before, after, strict=True))
    may_pair = len(set(clusters)) == len(shared) and all(
        len(scores[name].grades) == 1 and scores[name].mean in (0, 1)
        for scores in (ones, others)
        for name in shared
    )
    return Pair(
        first=first,
        second=second,
        num_items=len(shared),
        difference=float(change.mean()),
        ci95=(low, high),
        bootstrap_p=p_value,
        num_only_first=only_first,
        num_only_second=only_second,
        mcnemar_p=mcnemar_p(only_first, only_second) if may_pair else math.nan,
    )


def paired_bootstrap(
    change: Sequence[float] | np.ndarray, clusters: Sequence[str], seed: int
) -> tuple[float, float, float]:
    """95 % interval of the mean change and its two-sided p-value, resampling whole clusters.

    The p-value is twice the smaller share of resampled means on either side of 0.
    """
    places: dict[str, int] = {}
    index = [places.setdefault(cluster, len(places)) for cluster in clusters]
    sums = np.bincount(index, weights=change)
    sizes = np.bincount(index).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty(NUM_RESAMPLES)
    for at in range(NUM_RESAMPLES):
        drawn = rng.integers(0, len(sums), len(sums))
        means[at] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, (0.025, 0.975))
    tail = min((means <= 0).mean(), (means >= 0).mean())
    return float(low), float(high), float(min(1.0, 2 * max(tail, 1 / NUM_RESAMPLES)))


def mcnemar_p(num_only_first: int, num_only_second: int) -> float:
    """Exact two-sided McNemar test: are the items that only one has right split evenly?"""
    num = num_only_first + num_only_second
    tail = sum(math.comb(num, k) for k in range(min(num_only_first, num_only_second) + 1))
    return min(1.0, 2 * tail / 2**num)


def draw_comparison(scores: Mapping[str, Sequence[ItemScore]], pairs: Sequence[Pair]) -> bytes:
    """A PNG: accuracy of each run on the left, differences on the right, all with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 0.5 * max(len(scores), len(pairs))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for at, (_, held) in enumerate(scores.items()):
        counted = [(score.mean, score.cluster) for score in held if score.mean is not None]
        values = [mean for mean, _ in counted]
        low, high = clustered_ci95(values, [cluster for _, cluster in counted])
        mean = math.fsum(values) / len(values)
        spread = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
        left.errorbar([mean], [at], xerr=spread, fmt="o", capsize=3)
    left.set_yticks(range(len(scores)), list(scores))
    left.set_xlabel("accuracy per item, 95 % interval")
    for at, pair in enumerate(pairs):
        reach = [
            [max(0.0, pair.difference - pair.ci95[0])],
            [max(0.0, pair.ci95[1] - pair.difference)],
        ]
        right.errorbar([pair.difference], [at], xerr=reach, fmt="s", color="black", capsize=3)
    right.axvline(0, color="grey", linewidth=0.8)
    right.set_yticks(range(len(pairs)), [f"{pair.second}\n- {pair.first}" for pair in pairs])
    right.set_xlabel("paired difference, 95 % interval")
    for axes in (left, right):
        axes.margins(y=0.3)
        axes.invert_yaxis()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
