"""A benchmark's result: its metrics, how the agent got there, and by which scorer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Metric,
    Protocol,
    ScoredItem,
    pick_scorer,
)
from pyvision_rl.eval.store import ItemRecord, SampleRecord
from pyvision_rl.runs.files import write_file
from pyvision_rl.runs.folder import Json

SCORES = "scores.jsonl"


@dataclass(frozen=True)
class BenchmarkResult:
    """What an evaluation found; `scorer` and `scorer_version` say how answers became numbers."""

    benchmark: str
    protocol: str
    scorer: str
    scorer_version: str
    headline: str
    num_items: int
    num_samples: int
    num_lost: int
    metrics: tuple[Metric, ...]
    behaviour: dict[str, float]
    stops: dict[str, int]
    cost: dict[str, float]

    @property
    def main(self) -> Metric:
        """The metric that papers report."""
        return next(metric for metric in self.metrics if metric.name == self.headline)

    def as_dict(self) -> dict[str, Json]:
        """The form of summary.json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The result for a person, the headline and its scorer first."""
        main = self.main
        lines = [
            f"{self.benchmark}  {main.name} {_percent(main)}  ({self.num_items} items x "
            f"{self.num_samples} samples, {self.num_lost} lost)",
            f"protocol {self.protocol}: {self.scorer}; scorer {self.scorer_version}",
        ]
        width = max(len(metric.name) for metric in self.metrics)
        lines += [
            f"  {metric.name:<{width}}  {_percent(metric)}  n = {metric.count}"
            for metric in self.metrics
        ]
        lines.append("  " + ", ".join(f"{k} {v:.2f}" for k, v in self.behaviour.items()))
        lines.append("  cost: " + ", ".join(f"{k} {v:,.6g}" for k, v in self.cost.items()))
        lines.append("  stops: " + ", ".join(f"{k} {v}" for k, v in self.stops.items()))
        return lines


def _percent(metric: Metric) -> str:
    low, high = metric.ci95
    return f"{100 * metric.value:6.2f} [{100 * low:.1f}, {100 * high:.1f}]"


class ItemScore(msgspec.Struct, frozen=True):
    """A line of scores.jsonl: an item's grades under the run's protocol, None for lost samples."""

    id: str
    cluster: str
    grades: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """Mean over the samples that count."""
        counted = [grade for grade in self.grades if grade is not None]
        return math.fsum(counted) / len(counted) if counted else None


def grade_items(
    benchmark: Benchmark,
    protocol: Protocol,
    items: Sequence[BenchmarkItem],
    records: Mapping[str, ItemRecord],
) -> list[ScoredItem]:
    """The items that are finished, each sample graded by the protocol's scorer."""
    grade = pick_scorer(benchmark, protocol).grade
    return [
        ScoredItem(
            item,
            tuple(
                None if sample.lost else grade(item, sample.response)
                for sample in records[item.id].samples
            ),
        )
        for item in items
        if item.id in records
    ]


def make_result(
    benchmark: Benchmark,
    protocol: Protocol,
    scored: Sequence[ScoredItem],
    records: Mapping[str, ItemRecord],
    judge: str = "",
    judge_cost: Mapping[str, float] | None = None,
) -> BenchmarkResult:
    """All numbers of a benchmark from its graded items; `judge` names the model that helped."""
    played = [records[entry.item.id] for entry in scored]
    samples = [sample for record in played for sample in record.samples]
    counted = [sample for sample in samples if not sample.lost]
    return BenchmarkResult(
        benchmark=benchmark.name,
        protocol=protocol,
        scorer=pick_scorer(benchmark, protocol).name + (f", judge {judge}" if judge else ""),
        scorer_version=f"{benchmark.name}-{benchmark.version}",
        headline=benchmark.headline,
        num_items=len(scored),
        num_samples=max((len(record.samples) for record in played), default=0),
        num_lost=len(samples) - len(counted),
        metrics=tuple(benchmark.metrics(scored)),
        behaviour=_behaviour(counted, played),
        stops=dict(sorted(Counter(sample.stop.value for sample in samples).items())),
        cost={**_cost(samples, played), **(judge_cost or {})},
    )


def _cost(samples: Sequence[SampleRecord], played: Sequence[ItemRecord]) -> dict[str, float]:
    """Sums over all samples: what a server bills, and the time that items took side by side."""
    return {
        "input_tokens": float(sum(sample.num_input_tokens for sample in samples)),
        "output_tokens": float(sum(sample.num_completion_tokens for sample in samples)),
        "item_seconds": sum(record.seconds for record in played),
    }


def _behaviour(counted: Sequence[SampleRecord], played: Sequence[ItemRecord]) -> dict[str, float]:
    """Means over samples, and the seconds that an item took from its start to its last sample."""
    num = max(len(counted), 1)
    return {
        "tool_calls_mean": sum(sample.num_tool_calls for sample in counted) / num,
        "failed_calls_mean": sum(s.num_tool_calls - s.num_ok_tool_calls for s in counted) / num,
        "zero_call_share": sum(sample.num_tool_calls == 0 for sample in counted) / num,
        "turns_mean": sum(sample.num_turns for sample in counted) / num,
        "visual_tokens_mean": sum(sample.num_visual_tokens for sample in counted) / num,
        "visual_tokens_shown_mean": sum(s.num_visual_tokens_shown for s in counted) / num,
        "completion_tokens_mean": sum(sample.num_completion_tokens for sample in counted) / num,
        "seconds_mean": sum(record.seconds for record in played) / max(len(played), 1),
    }


def write_scores(folder: Path, scored: Sequence[ScoredItem]) -> None:
    """Replace a run's scores.jsonl: what a paired comparison reads."""
    scores = (ItemScore(e.item.id, e.item.cluster or e.item.id, e.grades) for e in scored)
    write_file(folder / SCORES, b"".join(msgspec.json.encode(s) + b"\n" for s in scores))


def read_scores(folder: Path) -> list[ItemScore]:
    """The scores of a finished run; raises InputError where it has none."""
    path = folder / SCORES
    try:
        return [
            msgspec.json.decode(line, type=ItemScore) for line in path.read_bytes().splitlines()
        ]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder}: no finished evaluation there (no {SCORES})") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: not the scores of an evaluation ({error})") from error
