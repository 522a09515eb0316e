"""MathVerse testmini (Zhang et al. 2024): 788 problems, each in 5 versions that move text into the
figure; a sixth, text only, is apart.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

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
from pyvision_rl.eval.benchmarks.metrics import by_label, label_metrics, mean_metric, scored
from pyvision_rl.eval.benchmarks.options import as_letter, option_in
from pyvision_rl.eval.benchmarks.scorers import RULES
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns
from pyvision_rl.reward.options import parse_options
from pyvision_rl.reward.rules import grade_answer
from pyvision_rl.rollout.parse import unwrap_answer
from pyvision_rl.types import Task

VERSIONS = (
    "Text Dominant",
    "Text Lite",
    "Vision Intensive",
    "Vision Dominant",
    "Vision Only",
)
TEXT_ONLY = "Text Only"
QUESTION_TYPES = ("multi-choice", "free-form")
LETTERS = "ABCDEF"
IN_FIGURE = "Answer the question that is written in the image."


def read(source: Source) -> list[BenchmarkItem]:
    """The rows of testmini.json, of a MathVerse_MINI*.tsv or of the Hugging Face table.

    Rows of the text-only version, which have no image, are left out. The options of a question
    that stands in the figure are those of its problem's other versions.
    """
    cells = ImageCells(source.cache, source.root)
    rows = [row for row in iter_table(source.path, source.split) if _version(row) != TEXT_ONLY]
    options: dict[str, dict[str, str]] = {}
    for row in rows:
        found = parse_options(str(row.fields.get("question_for_eval") or _question(row)))
        if found:
            options.setdefault(row.text("problem_index"), found)
    chosen = rows[: source.limit or None]
    return [_item(row, cells, options) for row in chosen]


def _version(row: Row) -> str:
    return row.text("problem_version").replace("_", " ").replace("-", " ").title()


def _question(row: Row) -> str:
    return str(row.fields.get("question") or "").strip() or IN_FIGURE


def _item(row: Row, cells: ImageCells, options: Mapping[str, dict[str, str]]) -> BenchmarkItem:
    version, kind = _version(row), row.text("question_type")
    problem = row.text("problem_index")
    if version not in VERSIONS:
        row.fail("problem_version", version, f"must be one of {', '.join(VERSIONS)}")
    if kind not in QUESTION_TYPES:
        row.fail("question_type", kind, f"must be one of {', '.join(QUESTION_TYPES)}")
    number = row.fields.get("sample_index", row.fields.get("index", row.index))
    subject = str(_metadata(row).get("subject", ""))
    own = options.get(problem, {}) if kind == "multi-choice" else {}
    task = Task(
        str(number),
        _question(row),
        as_letter(row.text("answer"), own or (LETTERS if kind == "multi-choice" else "")),
        cells.read(row, "image"),
        source="mathverse",
        ability=version,
    )
    row.raise_first()
    return BenchmarkItem(
        task,
        own,
        kind,
        {"version": version, "subject": subject},
        problem,
        columns=plain_columns(row),
    )


def _metadata(row: Row) -> Mapping[str, object]:
    """An object, or one written as Python text in the TSV."""
    value = row.fields.get("metadata")
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            row.fail("metadata", value, "must be an object")
    return value if isinstance(value, Mapping) else {}


def grade(item: BenchmarkItem, response: Response) -> float:
    """Exact text or letter first, then equal numbers and formulas. Without an answer block, the
    last box counts, else the last line.
    """
    gold, said = item.task.answer, response.stated.strip()
    if response.answer is None:
        said = (unwrap_answer(said) if "\\boxed{" in said else said).rpartition("\n")[2]
    if said == gold:
        return 1.0
    if item.answer_type == "multi-choice" and len(gold) == 1:
        letters = item.options or dict.fromkeys(LETTERS, "")
        if option_in(response.stated, letters) == gold:
            return 1.0
        return grade_answer(said, gold, "choice", item.options)
    return grade_answer(said, gold)


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """The mean of the versions' accuracies, then each version: a table with some of the versions
    only (a MathVerse_MINI_Vision_Only.tsv) shows which ones it is about.
    """
    items = scored(items)
    versions = by_label("version", items)
    plain = mean_metric("accuracy", items)
    means = [mean_metric("", members).value for members in versions.values()]
    overall = Metric("accuracy", sum(means) / max(len(means), 1), plain.ci95, plain.count)
    per_version = [
        mean_metric(f"accuracy/{name}", versions[name]) for name in VERSIONS if name in versions
    ]
    return [overall, *per_version, *label_metrics("accuracy", "subject", items)]


EXACT = Scorer("exact, then letter, number or formula, no judge", grade)

MATHVERSE = Benchmark(
    name="mathverse",
    title="MathVerse testmini",
    version="3",
    read=read,
    scorers={"paper": RULES, "official": EXACT, "vlmevalkit": EXACT},
    metrics=metrics,
)
