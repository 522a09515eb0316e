"""MATH-Vision (Wang et al. 2024): 3,040 competition problems (testmini: 304), 16 subjects."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pyvision_rl.data.rows import PLACEHOLDER, Row
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
from pyvision_rl.eval.benchmarks.options import as_letter, by_letter, option_in, with_options
from pyvision_rl.eval.benchmarks.scorers import RULES
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns, text_list
from pyvision_rl.reward.rules import MAX_ANSWER_CHARS
from pyvision_rl.rollout.parse import unwrap_answer
from pyvision_rl.types import Task

BOX = "\\boxed{"
SAID = re.compile(
    r"(?i:answer (?:is|should be)|^answer)\s*:?\s*(.*?)(?:\.(?=\s|$)|$)", re.MULTILINE
)
LETTER = re.compile(r"^\(?([A-E])\)?\n|\s\(?([A-E])\)?\.$")
"""The first line, or the last word of the last sentence."""
NOISE = re.compile(
    r"\\(?:text|mbox|mathrm|left|right)(?![a-z])|\^?\{?\\circ\}?|\\[,;! ]|[\s$°]|\\?%"
    r"|(?:units|km|degrees)$"
)
WRAPPED = re.compile(r"[({]+([a-e])[)}]+")
IMAGE_MARK = re.compile(r"<image(\d+)>")
VLMEVALKIT_TOLERANCE = 1e-6
Close = Callable[[float, float], bool]


def read(source: Source) -> list[BenchmarkItem]:
    """The rows of test.jsonl or testmini.jsonl, of MathVision(_MINI).tsv, or of the Parquet."""
    cells = ImageCells(source.cache, source.root)
    return [_item(row, cells) for row in iter_table(source.path, source.split, source.limit)]


def _item(row: Row, cells: ImageCells) -> BenchmarkItem:
    texts = text_list(row, "choices" if "choices" in row.fields else "options")
    options = by_letter(texts)
    image = "decoded_image" if "decoded_image" in row.fields else "image"
    images = cells.read(row, image)
    question = row.text("question")
    # Options that are just letters stand in the figure: repeating them says nothing.
    if any(text not in ("", letter) for letter, text in options.items()):
        question = with_options(question, options)
    question = _without_marks(question, len(images))
    labels = {
        "subject": row.text("category" if "category" in row.fields else "subject"),
        "level": str(row.fields.get("level", "")),
    }
    number = row.fields.get("id", row.fields.get("index", row.index))
    task = Task(
        str(number),
        question,
        as_letter(row.text("answer"), options),
        images,
        source="mathvision",
        ability=labels["subject"],
    )
    row.raise_first()
    return BenchmarkItem(
        task, options, "choice" if options else "value", labels, columns=plain_columns(row)
    )


def _without_marks(question: str, num_images: int) -> str:
    """`<image2>` becomes the image's name in the runtime. In the released files one picture holds
    all the parts: then a single mark is left out, and several are written as `[image 2]`.
    """
    num_marks = len(set(IMAGE_MARK.findall(question)))

    def name(mark: re.Match[str]) -> str:
        if num_images > 1:
            return f"<image_clue_{int(mark[1]) - 1}>"
        return f"[image {mark[1]}]" if num_marks > 1 else ""

    text = PLACEHOLDER.sub("", IMAGE_MARK.sub(name, question))
    return re.sub(r" +\n", "\n", text).strip()


def grade(item: BenchmarkItem, response: Response, close: Close) -> float:
    """Right where the answer is the gold one (a letter, say) or the value of the gold option."""
    golds = [item.task.answer, item.options.get(item.task.answer, "")]
    said = [response.stated, final_answer(response.stated)]
    return float(any(is_equal(answer, gold, close) for answer in said for gold in golds))


def final_answer(text: str) -> str:
    """What a response comes to, as the authors read it, without units, and of an equation the right
    side: the letter that it begins or ends with, else the last box, else what it calls its answer,
    else all of it.
    """
    text = text.strip()
    if letters := LETTER.findall(text):
        text = "".join(letters[-1])
    elif BOX in text:
        text = unwrap_answer(text)
    elif said := SAID.findall(text):
        text = said[-1]
    if len(text) > MAX_ANSWER_CHARS:
        return ""
    text = re.split(r"=|≈|\\approx(?![a-z])", text.lower())[-1]
    return WRAPPED.sub(r"\1", NOISE.sub("", text)).rstrip(".").lstrip(":")


def is_equal(answer: str, gold: str, close: Close) -> bool:
    """Equal texts but for case, or close values; tuples go element by element."""
    answer, gold = answer.strip().lower(), gold.strip().lower()
    if not answer or not gold:
        return False
    if answer == gold:
        return True
    given, right = _elements(answer), _elements(gold)
    if len(given) != len(right):
        return False
    if len(right) > 1:
        return all(is_equal(*pair, close) for pair in zip(given, right, strict=True))
    values = latex_value(answer), latex_value(gold)
    return values[0] is not None and values[1] is not None and close(values[0], values[1])


def _elements(text: str) -> list[str]:
    """The parts of `(1, 2)`, or the text alone."""
    if text[0] in "([" and text[-1] in ")]" and "," in text:
        return [part.strip() for part in text[1:-1].split(",")]
    return [text]


def same_two_decimals(given: float, right: float) -> bool:
    """The authors' rule: equal when rounded to two decimals."""
    return round(given, 2) == round(right, 2)


def same_millionth(given: float, right: float) -> bool:
    """VLMEvalKit's rule: at most 1e-6 apart."""
    return abs(given - right) <= VLMEVALKIT_TOLERANCE


def grade_official(item: BenchmarkItem, response: Response) -> float:
    """`grade` by the authors' tolerance."""
    return grade(item, response, same_two_decimals)


def grade_vlmevalkit(item: BenchmarkItem, response: Response) -> float:
    """The option that the answer names, else `grade` by VLMEvalKit's tolerance; its extraction by
    a language model is not done.
    """
    if item.options and (letter := option_in(response.stated, item.options)):
        return float(letter == item.task.answer)
    return grade(item, response, same_millionth)


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """Accuracy over all, per level and per subject."""
    items = scored(items)
    levels = [m for m in label_metrics("accuracy/level", "level", items) if m.name[-1] != "/"]
    return [mean_metric("accuracy", items), *levels, *label_metrics("accuracy", "subject", items)]


MATHVISION = Benchmark(
    name="mathvision",
    title="MATH-Vision",
    version="3",
    read=read,
    scorers={
        "paper": RULES,
        "official": Scorer("letter or option's value, two decimals", grade_official),
        "vlmevalkit": Scorer("letter, words or value of the option, 1e-6", grade_vlmevalkit),
    },
    metrics=metrics,
)
