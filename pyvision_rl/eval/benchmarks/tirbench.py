"""TIR-Bench (2025): 1,215 questions of 13 tasks for models that think with images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pyvision_rl.data.rows import Row, as_text
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
from pyvision_rl.eval.benchmarks.metrics import label_metrics, mean_metric, scored
from pyvision_rl.eval.benchmarks.options import option_in
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns
from pyvision_rl.reward.options import parse_options
from pyvision_rl.reward.rules import grade_answer
from pyvision_rl.types import Task

OCR_GOLD = {"60.jpg": "mobi", "62.jpg": "aires"}
"""Images whose gold text the authors' scorer replaces."""
LETTERS = "ABCDEFGHIJ"
INTEGER = re.compile(r"-?\d+")
PAIR = re.compile(r"\b(\d{1,18})\s*,\s*(\d{1,18})\b")
NUMBER_RUN = re.compile(r"[\d\s,\uff0c]+")
SEVERAL = re.compile(rf"(?<![a-z])[{LETTERS}](?![a-z])")
IDS = ("key", "id", "question_id")
MAX_DIGITS = 18
MAX_INTEGERS = 1000
SAME_FLOAT = 1e-6


def read(source: Source) -> list[BenchmarkItem]:
    """The rows of the released json, a list or an object by key, with `image_1`, `image_2`."""
    cells = ImageCells(source.cache, source.root)
    return [_item(row, cells) for row in iter_table(source.path, source.split, source.limit)]


def _item(row: Row, cells: ImageCells) -> BenchmarkItem:
    kind = row.text("task" if "task" in row.fields else "category").lower().replace(" ", "_")
    names = [name for name in ("image_1", "image_2", "image") if row.fields.get(name)]
    if not names:
        row.fail("image_1", "", f"missing; fields are {', '.join(sorted(row.fields))}")
    gold = _gold(row)
    prompt = row.text("prompt" if "prompt" in row.fields else "question")
    if names and kind == "ocr":
        picture = str(row.fields[names[0]]).rpartition("/")[2]
        gold = OCR_GOLD.get(picture, gold)
    number = next((row.fields[name] for name in IDS if name in row.fields), row.index)
    task = Task(
        str(number),
        prompt,
        gold,
        tuple(path for name in names for path in cells.read(row, name)),
        source="tirbench",
        ability=kind,
    )
    row.raise_first()
    options = parse_options(prompt) if gold.isalpha() and len(gold) == 1 else {}
    listed = isinstance(row.fields.get("answer"), list)
    return BenchmarkItem(
        task, options, _answer_type(kind, gold, listed), {"task": kind}, columns=plain_columns(row)
    )


def _gold(row: Row) -> str:
    value = row.fields.get("answer")
    if isinstance(value, list):
        return ", ".join(str(entry) for entry in value)
    text = as_text(row, "answer", value)
    return text.upper() if len(text) == 1 else text


def _answer_type(kind: str, gold: str, listed: bool) -> str:
    """Tasks with a rule of their own; the others, and counts, go by what the gold answer is."""
    is_count = INTEGER.fullmatch(gold) is not None and not listed
    if kind in ("ocr", "jigsaw") or (kind in ("word_search", "spot_difference") and not is_count):
        return kind
    if gold.isalpha():
        return "choice" if len(gold) == 1 else "text"
    return "int" if is_count else "float"


def grade_official(item: BenchmarkItem, response: Response) -> float:
    """The authors' scorer: text that is no option falls to the nearest letter by edit distance, so
    that an empty answer is taken for A; the text of a picture must have its case.
    """
    if item.answer_type == "ocr":
        return float(item.task.answer in response.text)
    if item.answer_type == "choice":
        chosen = option_in(response.stated, _options(item))
        return float((chosen or nearest_letter(response.stated)) == item.task.answer)
    return grade_strict(item, response)


def grade_strict(item: BenchmarkItem, response: Response) -> float:
    """The same rules, but what is no option is no answer, and case does not count."""
    gold, answer = item.task.answer, response.stated
    if item.answer_type == "ocr":
        return float(gold.casefold() in response.text.casefold())
    if not answer.strip():
        return 0.0
    if item.answer_type == "choice":
        return float(option_in(answer, _options(item)) == gold)
    if item.answer_type == "text":
        return float(_same_letters(answer, gold)) or grade_answer(answer, gold)
    return _grade_numbers(item.answer_type, answer, gold)


def _options(item: BenchmarkItem) -> Mapping[str, str]:
    return item.options or dict.fromkeys(LETTERS, "")


def _same_letters(answer: str, gold: str) -> bool:
    """Whether a gold of several options (`AC`) is met, in any order and however they are parted."""
    return set(gold) <= set(LETTERS) and sorted(SEVERAL.findall(answer)) == sorted(gold)


def _grade_numbers(kind: str, answer: str, gold: str) -> float:
    given, right = _integers(answer), _integers(gold)
    if kind == "word_search":
        return float(_pair(answer) == _pair(gold))
    if kind == "spot_difference":
        return len(set(given) & set(right)) / max(len(set(given) | set(right)), 1)
    if kind == "jigsaw":
        tiles = _tiles(answer, len(right))
        hits = sum(one == other for one, other in zip(tiles, right, strict=False))
        return hits / len(right) if right else 0.0
    if kind == "int":
        return float(given == right) or grade_answer(answer, gold, "number")
    values = latex_value(answer), latex_value(gold)
    if values[0] is not None and values[1] is not None:
        return float(abs(values[0] - values[1]) <= SAME_FLOAT)
    return grade_answer(answer, gold)


def _pair(text: str) -> tuple[int, ...]:
    """The first two numbers with a comma between them, else all the numbers."""
    match = PAIR.search(text)
    return tuple(map(int, match.groups())) if match else tuple(_integers(text))


def _tiles(answer: str, num: int) -> list[int]:
    """The first run of just so many numbers, else all numbers where they are so many; none where a
    tile lacks: for the authors such an answer is wrong as a whole.
    """
    for run in [*NUMBER_RUN.findall(answer), answer]:
        if len(numbers := _integers(run)) == num:
            return numbers
    return []


def _integers(text: str) -> list[int]:
    """The whole numbers of a text; overlong ones are none, so that no text takes long."""
    found = INTEGER.findall(text)[:MAX_INTEGERS]
    return [int(number) for number in found if len(number) <= MAX_DIGITS]


def nearest_letter(text: str) -> str:
    """The letter with the smallest Levenshtein distance, the first among equals."""
    # Against one character the distance is the length, less one where the text holds it.
    return min(LETTERS, key=lambda letter: max(len(text), 1) - (letter in text))


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """Mean credit over all items, then per task."""
    items = scored(items)
    return [mean_metric("accuracy", items), *label_metrics("accuracy", "task", items)]


OFFICIAL = Scorer("task rules, text that is no option is the nearest letter", grade_official)
STRICT = Scorer("task rules, an option must be given", grade_strict)

TIRBENCH = Benchmark(
    name="tirbench",
    title="TIR-Bench",
    version="3",
    read=read,
    scorers={
        "paper": OFFICIAL,
        "official": OFFICIAL,
        "strict": STRICT,
    },
    metrics=metrics,
)
