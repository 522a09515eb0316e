"""VSI-Bench (Yang et al. 2025): 5,130 questions about rooms seen in 288 videos, 8 tasks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pyvision_rl.data.rows import Row
from pyvision_rl.eval.benchmarks.item import (
    VIDEO_DECODING,
    Benchmark,
    BenchmarkItem,
    Metric,
    Response,
    ScoredItem,
    Scorer,
    Source,
)
from pyvision_rl.eval.benchmarks.metrics import by_label, mean_metric, scored
from pyvision_rl.eval.benchmarks.options import by_letter, with_options
from pyvision_rl.eval.benchmarks.scorers import grade_by_rules
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns, text_list
from pyvision_rl.eval.intervals import stratified_ci95
from pyvision_rl.reward.rules import MAX_ANSWER_CHARS, MRA_THRESHOLDS
from pyvision_rl.types import Task

DIRECTIONS = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
CHOICE_TYPES = (*DIRECTIONS, "object_rel_distance", "route_planning", "obj_appearance_order")
NUMBER_TYPES = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
)
NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")
PAPER_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))


def read(source: Source) -> list[BenchmarkItem]:
    """The rows of test-00000-of-00001.parquet, of a VSI-Bench.tsv, or of jsonl; the videos are
    `{dataset}/{scene_name}.mp4` below the media root.
    """
    return [_item(row, source) for row in iter_table(source.path, source.split, source.limit)]


def _item(row: Row, source: Source) -> BenchmarkItem:
    kind = row.text("question_type")
    if kind not in (*CHOICE_TYPES, *NUMBER_TYPES):
        allowed = ", ".join((*CHOICE_TYPES, *NUMBER_TYPES))
        row.fail("question_type", kind, f"must be one of {allowed}")
    name = "candidates" if "candidates" in row.fields else "options"
    options = by_letter(text_list(row, name)) if kind in CHOICE_TYPES else {}
    if kind in CHOICE_TYPES and not options:
        row.fail(name, "", f"missing; {kind} needs options")
    question = row.text("question")
    video = _video(row, source)
    task = Task(
        str(row.fields.get("id", row.fields.get("index", row.index))),
        with_options(question, options) if options else question,
        row.text("ground_truth" if "ground_truth" in row.fields else "answer"),
        videos=(video,),
        source="vsi",
        ability=kind,
    )
    row.raise_first()
    answer_type = "choice" if options else "number"
    return BenchmarkItem(
        task,
        options,
        answer_type,
        {"task": task_of(kind)},
        f"{video.parent.name}/{video.stem}",
        kind,
        columns=plain_columns(row),
    )


def _video(row: Row, source: Source) -> Path:
    if "video" in row.fields:
        name = row.text("video")
        path = source.root / name
        path = path if path.suffix else path.with_name(path.name + ".mp4")
    else:
        path = source.root / row.text("dataset") / f"{row.text('scene_name')}.mp4"
    if not path.is_file():
        row.fail("video", str(path), "no such file; media_root must hold the unpacked videos")
    return path


def task_of(kind: str) -> str:
    """The task that a question type belongs to: three types of direction are one task."""
    return "object_rel_direction" if kind in DIRECTIONS else kind


def first_word(text: str) -> str:
    """The first token without its full stop, as the authors read an answer."""
    return text.strip().split(" ")[0].rstrip(".").strip()


def relative_accuracy(
    answer: str, gold: str, thresholds: Sequence[float], hit: Callable[[float, float], bool]
) -> float:
    """Share of thresholds t with `hit(relative error, 1 - t)`; 0 for what is no number."""
    try:
        given, right = float(answer), float(gold)
    except ValueError:
        return 0.0
    if not math.isfinite(given):
        return 0.0
    if right == 0:
        return float(given == 0)
    error = abs(given - right) / abs(right)
    return sum(hit(error, 1 - threshold) for threshold in thresholds) / len(thresholds)


def grade_official(item: BenchmarkItem, response: Response) -> float:
    """First word: equal letter, or mean relative accuracy with `<=`."""
    answer, gold = first_word(response.stated), item.task.answer
    if item.answer_type == "choice":
        return float(answer.lower() == gold.lower())
    return relative_accuracy(answer, gold, MRA_THRESHOLDS, lambda error, limit: error <= limit)


def grade_paper(item: BenchmarkItem, response: Response) -> float:
    """The reward's rules for options; for numbers the first one in the answer block, with `<` and
    the thresholds 0.5 + 0.05 i of PyVision-RL's code.
    """
    if response.answer is None or item.answer_type == "choice":
        return grade_by_rules(item, response)
    number = NUMBER.search(response.answer[:MAX_ANSWER_CHARS])
    answer = number[0].replace(",", "") if number else ""
    return relative_accuracy(
        answer, item.task.answer, PAPER_THRESHOLDS, lambda error, limit: error < limit
    )


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """The mean of the task scores, not of the rows; the score of the direction task is the mean of
    its three types. Intervals count the questions about one video as going together.
    """
    items = scored(items)
    tasks = by_label("task", items)
    found = [_task_metric(name, _by_type(members)) for name, members in sorted(tasks.items())]
    overall = sum(metric.value for metric in found) / max(len(found), 1)
    parts = [_by_type(members) for members in tasks.values()]
    strata = [stratum for types in parts for stratum in types]
    weights = [1 / len(parts) / len(types) for types in parts for _ in types]
    return [Metric("accuracy", overall, _interval(strata, weights), len(items)), *found]


def _task_metric(name: str, types: Sequence[Sequence[ScoredItem]]) -> Metric:
    plain = [mean_metric(f"accuracy/{name}", members) for members in types]
    if len(plain) == 1:
        return plain[0]
    share = 1 / len(plain)
    interval = _interval(types, [share] * len(plain))
    score = sum(metric.value for metric in plain) * share
    return Metric(plain[0].name, score, interval, sum(metric.count for metric in plain))


def _interval(
    strata: Sequence[Sequence[ScoredItem]], weights: Sequence[float]
) -> tuple[float, float]:
    values = [[entry.mean for entry in stratum] for stratum in strata]
    videos = [[entry.item.cluster or entry.item.id for entry in stratum] for stratum in strata]
    return stratified_ci95(values, weights, videos)


def _by_type(members: Sequence[ScoredItem]) -> list[list[ScoredItem]]:
    kinds = sorted({entry.item.member for entry in members})
    return [[entry for entry in members if entry.item.member == kind] for kind in kinds]


OFFICIAL = Scorer("first word, MRA with <=", grade_official)

VSIBENCH = Benchmark(
    name="vsibench",
    title="VSI-Bench",
    version="2",
    read=read,
    scorers={
        "paper": Scorer("rules on the answer block, its first number, MRA with <", grade_paper),
        "official": OFFICIAL,
        "vlmevalkit": OFFICIAL,
    },
    metrics=metrics,
    decoding=VIDEO_DECODING,
)
