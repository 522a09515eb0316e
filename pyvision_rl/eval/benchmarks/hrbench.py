"""HR-Bench 4K and 8K (Wang et al. 2024): 200 questions, each with its options in 4 rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import islice

from pyvision_rl.data.rows import Row
from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.cells import ImageCells
from pyvision_rl.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Metric,
    ScoredItem,
    Source,
)
from pyvision_rl.eval.benchmarks.metrics import (
    all_right,
    by_cluster,
    by_label,
    label_metrics,
    mean_metric,
    scored,
    value_metric,
)
from pyvision_rl.eval.benchmarks.options import column_options, right_letter, with_options
from pyvision_rl.eval.benchmarks.scorers import LETTER, RULES
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns, table_files
from pyvision_rl.types import Task

NUM_CYCLES = 4


def read(source: Source, size: str) -> list[BenchmarkItem]:
    """The rows of hr_bench_{size}.tsv or .parquet; a folder as downloaded holds both sizes.

    Raises InputError where the files are of the other size only.
    """
    files = table_files(source.path, source.split)
    own = [file for file in files if size in file.name.lower()]
    others = [file for file in files if _other(size) in file.name.lower()]
    if others and not own:
        raise InputError(f"{others[0]}: is of HR-Bench {_other(size).upper()}, not {size.upper()}")
    cells = ImageCells(source.cache, source.root)
    rows = (row for file in own or files for row in iter_table(file))
    return [_item(row, cells) for row in islice(rows, source.limit or None)]


def _other(size: str) -> str:
    return "8k" if size == "4k" else "4k"


def _item(row: Row, cells: ImageCells) -> BenchmarkItem:
    question, options = row.text("question"), column_options(row)
    letter = right_letter(row, "answer", options)
    category, cycle = row.text("category"), row.text("cycle_category")
    if category not in ("single", "cross"):
        row.fail("category", category, "must be 'single' or 'cross'")
    images = cells.read(row, "image")
    task = Task(
        row.text("index", str(row.index)),
        with_options(question, options),
        letter,
        images,
        source="hrbench",
        ability=category,
    )
    row.raise_first()
    labels = {"category": category, "cycle": cycle}
    cluster = " ".join([question, *(path.name for path in images)])
    return BenchmarkItem(
        task, options, "choice", labels, cluster, cycle, columns=plain_columns(row)
    )


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """Accuracy in each of the 4 cycles, averaged, over all items and per category.

    `all_rotations_right` is an extra that nobody reports: questions right in all 4 rotations.
    """
    rows = [m for m in by_cluster(items).values() if len(m) == NUM_CYCLES]
    shares = [share for share in map(all_right, rows) if share is not None]
    items = scored(items)
    kinds = by_label("category", items)
    means = [_cycle_mean("accuracy", items)]
    means += [_cycle_mean(f"accuracy/{kind}", kinds[kind]) for kind in sorted(kinds)]
    cycles = label_metrics("accuracy/cycle", "cycle", items)
    return [*means, *cycles, value_metric("all_rotations_right", shares)]


def _cycle_mean(name: str, items: Sequence[ScoredItem]) -> Metric:
    """The mean over cycles of each cycle's accuracy; the interval is that of the plain mean."""
    plain = mean_metric(name, items)
    cycles = by_label("cycle", items).values()
    means = [math.fsum(entry.mean for entry in cycle) / len(cycle) for cycle in cycles]
    return Metric(name, math.fsum(means) / max(len(means), 1), plain.ci95, plain.count)


def _benchmark(size: str) -> Benchmark:
    return Benchmark(
        name=f"hrbench{size}",
        title=f"HR-Bench {size.upper()}",
        version="2",
        read=partial(read, size=size),
        scorers={"paper": RULES, "official": LETTER, "vlmevalkit": LETTER},
        metrics=metrics,
    )


HRBENCH_4K = _benchmark("4k")
HRBENCH_8K = _benchmark("8k")
