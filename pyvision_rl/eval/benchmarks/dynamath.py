"""DynaMath (Zou et al. 2025): 501 seed questions in 10 variants each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence

from pyvision_rl.data.rows import Row
from pyvision_rl.eval.benchmarks.cells import ImageCells
from pyvision_rl.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Metric,
    Response,
    ScoredItem,
    Scorer,
    Source,
)
from pyvision_rl.eval.benchmarks.metrics import (
    all_right,
    by_cluster,
    label_metrics,
    mean_metric,
    scored,
    value_metric,
)
from pyvision_rl.eval.benchmarks.scorers import RULES
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns
from pyvision_rl.reward.rules import grade_answer
from pyvision_rl.reward.text import parse_options
from pyvision_rl.types import Task

TOLERANCE = 0.001
ANSWER_TYPES = ("float", "multiple choice", "text")
VARIANT_SPLIT = re.compile(r"sample_variant(\d+)")


def read(source: Source) -> list[BenchmarkItem]:
    """The rows of DynaMath.tsv, of the Hugging Face splits sample_variant1 .. 10 (a folder reads
    all of them), or of json with the same columns.
    """
    cells = ImageCells(source.cache, source.root)
    items: list[BenchmarkItem] = []
    counts: dict[str, int] = {}
    for row in _rows(source):
        name = "qid" if "qid" in row.fields else "id"
        seed = row.text(name)
        counts[seed] = counts.get(seed, 0) + 1
        items.append(_item(row, cells, seed, counts[seed]))
    return items


def _rows(source: Source) -> Iterator[Row]:
    for row in iter_table(source.path, source.split, source.limit):
        if "id" not in row.fields and "key" in row.fields:
            row.fields = {**row.fields, "id": row.fields["key"]}
        yield row


def _item(row: Row, cells: ImageCells, seed: str, count: int) -> BenchmarkItem:
    """One variant; its number is `varid`, else the split's, else how often the seed came so far."""
    split = VARIANT_SPLIT.search(row.file.name)
    variant = str(row.fields.get("varid", split[1] if split else count))
    question, kind = row.text("question"), row.text("answer_type")
    if kind not in ANSWER_TYPES:
        row.fail("answer_type", kind, f"must be one of {', '.join(ANSWER_TYPES)}")
    level = "knowledge_level" if "knowledge_level" in row.fields else "level"
    labels = {"subject": row.text("subject"), "level": row.text(level)}
    task = Task(
        f"q{seed}v{variant}",
        question,
        row.text("ground_truth" if "ground_truth" in row.fields else "answer"),
        cells.read(row, "decoded_image" if "decoded_image" in row.fields else "image"),
        source="dynamath",
        ability=labels["subject"],
    )
    row.raise_first()
    options = parse_options(question) if kind == "multiple choice" else {}
    return BenchmarkItem(task, options, kind, labels, seed, variant, columns=plain_columns(row))


def grade(item: BenchmarkItem, response: Response) -> float:
    """The authors' rule: floats to 0.001, letters equal, texts contained in the gold one.

    Containment takes whole words only, so that neither an empty answer nor a letter passes.
    """
    answer, gold = short_answer(response.stated), item.task.answer
    if item.answer_type == "float":
        given, right = as_float(answer), as_float(gold)
        if given is None or right is None:
            return 0.0
        return float(abs(given - right) <= TOLERANCE)
    if item.answer_type == "multiple choice":
        return grade_answer(answer, gold, "choice", item.options)
    words, gold = answer.strip().lower(), gold.lower()
    if not words or len(words) > len(gold):
        return 0.0
    return float(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", gold) is not None)


def short_answer(text: str) -> str:
    """The "short answer" of the json object that the authors' prompt asks for, else the text."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        value = None
    found = value.get("short answer") if isinstance(value, dict) else None
    return str(found) if found is not None else text


def as_float(text: str) -> float | None:
    """The number of an answer: `5`, `1.2 cm` (what follows a space is a unit), `2pi`, `2π`."""
    bare = text.strip().strip("$").replace("π", "pi").replace("\\pi", "pi").partition(" ")[0]
    head, is_pi, tail = bare.partition("pi")
    try:
        if not is_pi:
            return float(bare)
        factor = float({"": "1", "-": "-1"}.get(head.rstrip("*"), head.rstrip("*")))
        below = float(tail.removeprefix("/")) if tail else 1.0
        return factor * math.pi / below if below else None
    except ValueError:
        return None


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """Average over all variants; worst case: seeds with every variant right; robustness, their
    ratio. The worst case is over the seeds in the data, grouped by their own id.
    """
    # A variant that was lost leaves its seed's sample undecided: the others do not make it right.
    shares = [all_right(members) for members in by_cluster(items).values()]
    items = scored(items)
    average = mean_metric("accuracy", items)
    worst = value_metric("worst_case", [share for share in shares if share is not None])
    ratio = worst.value / average.value if average.value else 0.0
    bounds = [end / average.value if average.value else 0.0 for end in worst.ci95]
    robustness = Metric("robustness", ratio, (bounds[0], min(1.0, bounds[1])), worst.count)
    tables = [
        *label_metrics("accuracy", "subject", items),
        *label_metrics("accuracy", "level", items),
    ]
    return [average, worst, robustness, *tables]


OFFICIAL = Scorer("floats to 0.001, letters, text contained in whole words", grade)

DYNAMATH = Benchmark(
    name="dynamath",
    title="DynaMath",
    version="1",
    read=read,
    scorers={"paper": RULES, "official": OFFICIAL, "vlmevalkit": OFFICIAL},
    metrics=metrics,
    whole_clusters=True,
)
