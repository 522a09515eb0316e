"""V* (Wu & Xie 2024): 191 searches in large photos, of two kinds.

The original json has the right option first, so its options are shuffled by a seed; in
test_questions.jsonl and in the tables they are mixed already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyvision_rl.data.rows import Row, iter_rows
from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.cells import ImageCells
from pyvision_rl.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Decoding,
    Metric,
    ScoredItem,
    Source,
)
from pyvision_rl.eval.benchmarks.metrics import label_metrics, mean_metric, scored
from pyvision_rl.eval.benchmarks.options import (
    by_letter,
    column_options,
    right_letter,
    shuffled,
    with_options,
)
from pyvision_rl.eval.benchmarks.scorers import LETTER, RULES
from pyvision_rl.eval.benchmarks.tables import iter_table, json_object, plain_columns, text_list
from pyvision_rl.reward.options import parse_options
from pyvision_rl.types import Task

CATEGORIES = ("direct_attributes", "relative_position")
QUESTIONS = "test_questions.jsonl"
PICTURES = (".jpg", ".jpeg", ".png", ".JPG", ".PNG")


def read(source: Source) -> list[BenchmarkItem]:
    """The items of test_questions.jsonl, of a table, or of the original folder of json files.

    A folder with both is read by `source.option_order`: "file" takes the json files as they are,
    the right option always first, which is for reproduction only. Raises InputError for a split of
    such a folder: it has none.
    """
    folder = source.path
    has_json = folder.is_dir() and any((folder / name).is_dir() for name in CATEGORIES)
    if has_json and source.split:
        raise InputError(f"{folder}: the original V* folder has no splits, so no {source.split!r}")
    if has_json and (source.option_order == "file" or not (folder / QUESTIONS).is_file()):
        return _from_folder(source)
    if has_json:
        cells = ImageCells(source.cache, source.root)
        rows = iter_rows(folder / QUESTIONS, source.limit or None)
        return [_from_row(row, cells) for row in rows]
    cells = ImageCells(source.cache, source.root)
    return [_from_row(row, cells) for row in iter_table(folder, source.split, source.limit)]


def _from_row(row: Row, cells: ImageCells) -> BenchmarkItem:
    """A row of a table with columns A-D, or one whose `text` holds question and options."""
    name = "text" if "text" in row.fields else "question"
    question, options = row.text(name), column_options(row)
    if options:
        question = with_options(question, options)
    else:
        options = parse_options(question)
        if not options:
            row.fail(name, question, "holds no options (A) (B) ... and there are no columns A, B")
    letter = right_letter(row, "label" if "label" in row.fields else "answer", options)
    number = str(row.fields.get("question_id", row.fields.get("index", row.index)))
    category = row.text("category")
    # question_id counts anew in each category.
    prefix = f"{category}/" if "question_id" in row.fields else ""
    task = Task(
        f"{prefix}{number}",
        question,
        letter,
        cells.read(row, "image"),
        source="vstar",
        ability=category,
    )
    row.raise_first()
    return BenchmarkItem(
        task, options, "choice", {"category": category}, columns=plain_columns(row)
    )


def _from_folder(source: Source) -> list[BenchmarkItem]:
    files = [file for name in CATEGORIES for file in sorted((source.path / name).glob("*.json"))]
    return [_from_json(file, source) for file in files[: source.limit or None]]


def _from_json(file: Path, source: Source) -> BenchmarkItem:
    row = Row(file, 0, None, json_object(file))
    texts = text_list(row, "options")
    if len(texts) < 2:
        row.fail("options", texts, "must be at least two texts, the right one first")
    question = row.text("question")
    row.raise_first()
    if source.option_order == "file":
        options, letter = by_letter(texts), "A"
    else:
        options, letter = shuffled(texts, 0, source.seed, "vstar", file.parent.name, file.stem)
    pictures = [file.with_suffix(suffix) for suffix in PICTURES]
    image = next((path for path in pictures if path.is_file()), None)
    if image is None:
        raise InputError(f"{file}: no image {file.stem}.jpg beside it")
    category = file.parent.name
    task = Task(
        f"{category}/{file.stem}",
        with_options(question, options),
        letter,
        (image,),
        source="vstar",
        ability=category,
    )
    return BenchmarkItem(task, options, "choice", {"category": category})


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """Accuracy over all items, which is not the mean of the two kinds, then per kind."""
    items = scored(items)
    return [mean_metric("accuracy", items), *label_metrics("accuracy", "category", items)]


VSTAR = Benchmark(
    name="vstar",
    title="V*",
    version="2",
    read=read,
    scorers={"paper": RULES, "official": LETTER, "vlmevalkit": LETTER},
    metrics=metrics,
    decoding=Decoding(temperature=0.01, num_samples=32),
)
