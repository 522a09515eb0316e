"""DynaMath (Zou et al. 2025): 501 seed questions in 10 variants each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence

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
from pyvision_rl.eval.benchmarks.latex import latex_value
from pyvision_rl.eval.benchmarks.metrics import (
    all_right,
    by_cluster,
    label_metrics,
    mean_metric,
    scored,
    value_metric,
)
from pyvision_rl.eval.benchmarks.options import option_in
from pyvision_rl.eval.benchmarks.scorers import grade_by_rules
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns
from pyvision_rl.reward.options import parse_options
from pyvision_rl.reward.rules import MAX_ANSWER_CHARS, grade_answer
from pyvision_rl.reward.text import quantity
from pyvision_rl.types import Task

TOLERANCE = 0.001
LETTERS = "ABCDE"
MAX_FLOAT = 10**100
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


def grade_official(item: BenchmarkItem, response: Response) -> float:
    """The authors' rule: floats to 0.001, letters equal, texts that hold the gold one (`5:00` holds
    `5:0`).
    """
    return grade(item, response, lambda said, gold: gold in said)


def grade_vlmevalkit(item: BenchmarkItem, response: Response) -> float:
    """As `grade_official`, but texts are to be words of the gold one, whatever their case; neither
    an empty answer nor a letter is one.
    """
    return grade(item, response, lambda said, gold: _holds(gold.lower(), said.lower()))


def grade_paper(item: BenchmarkItem, response: Response) -> float:
    """The reward's rules on the answer block, with the benchmark's own tolerance for floats."""
    if item.answer_type == "float" and response.answer is not None:
        given, right = float_in(response.answer), as_float(item.task.answer)
        if given is not None and right is not None and abs(given - right) <= TOLERANCE:
            return 1.0
    return grade_by_rules(item, response)


def grade(item: BenchmarkItem, response: Response, fits: Callable[[str, str], bool]) -> float:
    """By the type of the answer; `fits` says whether a text is right. Without an answer block, the
    last line is taken, as the authors do where there is no json.
    """
    answer, gold = short_answer(response.stated), item.task.answer
    if response.answer is None:
        answer = answer.strip().rpartition("\n")[2]
    if item.answer_type == "float":
        given, right = as_float(answer), as_float(gold)
        given = float_in(answer) if given is None else given
        if given is None or right is None:
            return 0.0
        return float(abs(given - right) <= TOLERANCE)
    if item.answer_type == "multiple choice":
        chosen = option_in(answer, item.options or dict.fromkeys(LETTERS, ""))
        return float(chosen == gold) or grade_answer(answer, gold, "choice", item.options)
    return float(len(answer) < MAX_ANSWER_CHARS and fits(answer.strip(), gold))


def _holds(text: str, words: str) -> bool:
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


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
    """The number of an answer as the authors read it: `5`, `1.2 cm` (what follows a space is a
    unit), `2pi`, `2π`. None for any other text, which VLMEvalKit has read by a language model.
    """
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


def float_in(text: str) -> float | None:
    """The value of a formula, or the only number of a sentence."""
    value = latex_value(text)
    if value is None and (found := quantity(text, sentence=True)):
        value = float(found.value) if abs(found.value) < MAX_FLOAT else None
    return value


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


DYNAMATH = Benchmark(
    name="dynamath",
    title="DynaMath",
    version="2",
    read=read,
    scorers={
        "paper": Scorer("rules on the answer block, floats to 0.001", grade_paper),
        "official": Scorer(
            "floats to 0.001, letters, text that holds the gold one", grade_official
        ),
        "vlmevalkit": Scorer("floats to 0.001, letters, text in the gold one", grade_vlmevalkit),
    },
    metrics=metrics,
    whole_clusters=True,
)
