"""What a benchmark is made of: items, answers to them, scorers with a name, metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pyvision_rl.errors import ConfigError
from pyvision_rl.eval.benchmarks.cells import ImageCache
from pyvision_rl.types import Task

Protocol = Literal["paper", "official", "vlmevalkit", "strict"]
"""paper: as PyVision-RL reports it. official: the benchmark's own scorer. vlmevalkit: that of the
harness most leaderboards use. strict: the official one without its known quirks, where it has
any."""
PROGRAM = re.compile(r"<code>.*?(?:</code>|\Z)", re.DOTALL)
OptionOrder = Literal["shuffled", "file"]


@dataclass(frozen=True)
class BenchmarkItem:
    """A task and what its metric needs.

    `labels` are what tables are made by (`{"category": "single", "cycle": "0"}`). Items of one
    `cluster` ask one thing in several ways (a seed question's variants, rotated options) or about
    one video: their scores go together, and `member` says which of them this is. `columns` are
    what else its row says, for tables that others score again.
    """

    task: Task
    options: Mapping[str, str] = field(default_factory=dict)
    answer_type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""
    member: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Name of the item in its benchmark."""
        return self.task.id


@dataclass(frozen=True)
class Response:
    """What an agent said: the content of its last answer block, if any, and its last words."""

    answer: str | None
    text: str

    @property
    def stated(self) -> str:
        """The answer block; the whole last text but for its program where a model gave none."""
        return PROGRAM.sub("", self.text) if self.answer is None else self.answer


@dataclass(frozen=True)
class Scorer:
    """A way to grade one response; `name` says in a few words what it does."""

    name: str
    grade: Callable[[BenchmarkItem, Response], float]


@dataclass(frozen=True)
class ScoredItem:
    """An item and the grades of its samples, in order; None for one that a sandbox lost."""

    item: BenchmarkItem
    grades: tuple[float | None, ...]

    @property
    def counted(self) -> tuple[float, ...]:
        """The grades that there are."""
        return tuple(grade for grade in self.grades if grade is not None)

    @property
    def mean(self) -> float:
        """Accuracy of the item over its samples (avg@k)."""
        return sum(self.counted) / len(self.counted)


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark, the mean of `count` items or groups, with its 95 % interval."""

    name: str
    value: float
    ci95: tuple[float, float]
    count: int


@dataclass(frozen=True)
class Source:
    """Where a benchmark's files are and how to read them.

    `path` is a file, or a folder as downloaded. `split` picks the files of one split. Relative
    media start from `media_root`. `limit` stops after so many rows; 0 is all.
    """

    path: Path
    cache: ImageCache
    split: str = ""
    media_root: Path | None = None
    limit: int = 0
    option_order: OptionOrder = "shuffled"
    seed: int = 0

    @property
    def root(self) -> Path:
        """Folder of relative media."""
        if self.media_root is not None:
            return self.media_root
        return self.path if self.path.is_dir() else self.path.parent

    def unlimited(self) -> Source:
        """The same files with all their rows."""
        return replace(self, limit=0)


@dataclass(frozen=True)
class Decoding:
    """The paper's test settings (Sec. 4.1)."""

    temperature: float
    top_k: int = 0
    num_samples: int = 1


IMAGE_DECODING = Decoding(temperature=0.5, top_k=20)
VIDEO_DECODING = Decoding(temperature=0.01)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: how its files are read, answers graded and numbers made.

    `version` changes whenever a score may. `headline` is the metric that papers report.
    """

    name: str
    title: str
    version: str
    read: Callable[[Source], list[BenchmarkItem]]
    scorers: Mapping[Protocol, Scorer]
    metrics: Callable[[Sequence[ScoredItem]], list[Metric]]
    headline: str = "accuracy"
    decoding: Decoding = IMAGE_DECODING
    whole_clusters: bool = False
    """Whether a limit must keep the items of a cluster together."""


def pick_scorer(benchmark: Benchmark, protocol: Protocol) -> Scorer:
    """The scorer of a protocol. Raises ConfigError where the benchmark has none of that name."""
    if protocol not in benchmark.scorers:
        known = ", ".join(benchmark.scorers)
        raise ConfigError(f"{benchmark.title} has no protocol {protocol!r}; there are {known}")
    return benchmark.scorers[protocol]


def read_items(benchmark: Benchmark, source: Source) -> list[BenchmarkItem]:
    """The items of a benchmark's files, the first `source.limit` or, where groups are scored, the
    first whole groups that fit into it (at least one).

    Raises InputError naming file, row and field; ConfigError where no item is there.
    """
    whole = source.limit and benchmark.whole_clusters
    items = benchmark.read(source.unlimited() if whole else source)
    if not items:
        raise ConfigError(f"{source.path}: holds no item of {benchmark.title}")
    return first_clusters(items, source.limit) if whole else items


def first_clusters(items: Sequence[BenchmarkItem], limit: int) -> list[BenchmarkItem]:
    """The first clusters, in the order of their first items, as long as they have room."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.cluster] = sizes.get(item.cluster, 0) + 1
    kept: set[str] = set()
    room = limit
    for cluster, size in sizes.items():
        if kept and size > room:
            break
        kept.add(cluster)
        room -= size
    return [item for item in items if item.cluster in kept]
