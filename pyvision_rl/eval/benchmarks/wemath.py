"""We-Math testmini (Qiao et al. 2024): 525 problems of two or three steps, each step asked alone
too; the score tells knowing the steps from putting them together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    by_cluster,
    mean_metric,
    sample_rows,
    scored,
    value_metric,
)
from pyvision_rl.eval.benchmarks.options import (
    by_letter,
    column_options,
    right_letter,
    with_options,
)
from pyvision_rl.eval.benchmarks.scorers import RULES
from pyvision_rl.eval.benchmarks.tables import iter_table, plain_columns
from pyvision_rl.types import Task

KEY = re.compile(r"([23])steps_([123]|multi)")
LETTERS = "ABCDEFGH"
OPTION_STARTS = tuple(
    {letter: re.compile(rf"{before}{letter}[.:]\s*") for letter in LETTERS}
    for before in (r"(?:^|[;\n])\s*", r"(?<=[\s,])")
)
"""Options begin after a semicolon; in some of the released rows after a blank only."""
MULTI = "multi"


def read(source: Source) -> list[BenchmarkItem]:
    """The rows of testmini.json, WeMath.tsv or the Hugging Face table; a problem's rows share
    `ID` and differ in `key`. Raises InputError where a problem lacks a step.
    """
    cells = ImageCells(source.cache, source.root)
    rows = list(iter_table(source.path, source.split, source.limit))
    items = [_item(row, cells) for row in rows]
    whole = {"2": {"1", "2", MULTI}, "3": {"1", "2", "3", MULTI}}
    seen: dict[str, set[str]] = {}
    for item in items:
        seen.setdefault(item.cluster, set()).add(item.member)
    for row, item in zip(rows, items, strict=True):
        if seen[item.cluster] != whole[item.labels["steps"]]:
            found = ", ".join(sorted(seen[item.cluster]))
            row.fail("ID", item.cluster, f"must have every step and 'multi', has only {found}")
            row.raise_first()
    return items


def _item(row: Row, cells: ImageCells) -> BenchmarkItem:
    key = KEY.fullmatch(row.text("key"))
    if key is None:
        row.fail("key", row.fields.get("key"), "must be like 2steps_1 or 3steps_multi")
    options = column_options(row) or split_options(row.text("option"))
    group, letter = row.text("ID"), right_letter(row, "answer", options)
    image = "image_path" if "image_path" in row.fields else "image"
    task = Task(
        f"{group}/{row.fields.get('key', '')}",
        with_options(row.text("question"), options),
        letter,
        cells.read(row, image),
        source="wemath",
        ability=str(row.fields.get("key", "")),
    )
    row.raise_first()
    steps, member = key.groups() if key else ("", "")
    labels = {"steps": steps, "key": task.ability}
    return BenchmarkItem(task, options, "choice", labels, group, member, columns=plain_columns(row))


def split_options(text: str) -> dict[str, str]:
    """The options of `A. 6;B. 8;C. 10;D. No correct answer`, all in one text."""
    marks: list[re.Match[str]] = []
    for letter in LETTERS:
        end = marks[-1].end() if marks else 0
        found = (starts[letter].search(text, end) for starts in OPTION_STARTS)
        mark = next((mark for mark in found if mark), None)
        if mark is None:
            break
        marks.append(mark)
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=False)]
    return by_letter([part.strip(" ;\n") for part in parts])


def grade_official(item: BenchmarkItem, response: Response) -> float:
    """What follows the last "Answer" must begin with the letter, as the authors read a response;
    quotes, brackets and the like before it do not count.
    """
    match = re.match(rf"\W*([{LETTERS}])", response.stated.rpartition("Answer")[2])
    return float(match is not None and match[1] == item.task.answer)


@dataclass(frozen=True)
class Verdict:
    """A problem by its steps asked alone and the whole asked at once (paper's four classes).

    Mastery (CM) and rote memory (RM) have a strict and a loose reading: with a right whole, strict
    mastery asks for every step, loose for one; what is not mastery is rote.
    """

    steps: tuple[bool, ...]
    whole: bool

    @property
    def insufficient_knowledge(self) -> bool:
        """IK: some step and the whole wrong."""
        return not self.whole and not all(self.steps)

    @property
    def inadequate_generalization(self) -> bool:
        """IG: every step right, the whole wrong."""
        return not self.whole and all(self.steps)

    def mastery(self, strict: bool) -> bool:
        """CM."""
        return self.whole and (all(self.steps) if strict else any(self.steps))

    def rote(self, strict: bool) -> bool:
        """RM."""
        return self.whole and not self.mastery(strict)

    def score(self, strict: bool) -> float:
        """What the problem adds: 1 for mastery, one half for inadequate generalization."""
        return 0.5 * self.inadequate_generalization + self.mastery(strict)


def verdicts(members: Sequence[ScoredItem]) -> list[Verdict]:
    """The verdict of each sample of a problem that was played whole."""
    order = [entry.item.member for entry in members]
    at = order.index(MULTI)
    return [
        Verdict(tuple(grade == 1 for place, grade in enumerate(row) if place != at), row[at] == 1)
        for row in sample_rows(members)
    ]


def metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    """Strict and loose score over the problems there are (525 in the full set), the classes, the
    rote rate RM / (CM + RM), and the accuracies of one-step, two-step and three-step questions.
    """
    # With what was lost: a problem that lacks a part has no verdict.
    problems = [verdicts(members) for members in by_cluster(items).values()]
    problems = [samples for samples in problems if samples]
    found: list[Metric] = []
    for name, strict in (("strict", True), ("loose", False)):
        found.append(
            value_metric(
                f"score/{name}", _share(problems, [v.score(strict) for p in problems for v in p])
            )
        )
    for name, strict in (("strict", True), ("loose", False)):
        mastered = _share(problems, [v.mastery(strict) for p in problems for v in p])
        rote = _share(problems, [v.rote(strict) for p in problems for v in p])
        found += [value_metric(f"CM/{name}", mastered), value_metric(f"RM/{name}", rote)]
        found.append(_rote_rate(f"rote_rate/{name}", mastered, rote))
    flat = [v for p in problems for v in p]
    found.append(value_metric("IK", _share(problems, [v.insufficient_knowledge for v in flat])))
    found.append(value_metric("IG", _share(problems, [v.inadequate_generalization for v in flat])))
    return [*found, *_step_metrics(scored(items))]


def _share(problems: Sequence[Sequence[Verdict]], values: Sequence[float]) -> list[float]:
    """Per problem the mean over its samples of values that are given flat."""
    ends = iter(values)
    return [sum(float(next(ends)) for _ in samples) / len(samples) for samples in problems]


def _rote_rate(name: str, mastered: Sequence[float], rote: Sequence[float]) -> Metric:
    """RM / (CM + RM) with the interval of a share of the problems whose whole is right."""
    right = sum(mastered) + sum(rote)
    values = [1.0] * round(sum(rote)) + [0.0] * round(sum(mastered))
    plain = value_metric(name, values)
    return Metric(name, sum(rote) / right if right else 0.0, plain.ci95, len(values))


def _step_metrics(items: Sequence[ScoredItem]) -> list[Metric]:
    groups: Mapping[str, list[ScoredItem]] = {
        "S1": [entry for entry in items if entry.item.member != MULTI],
        "S2": [entry for entry in items if entry.item.labels["key"] == "2steps_multi"],
        "S3": [entry for entry in items if entry.item.labels["key"] == "3steps_multi"],
    }
    found = [mean_metric(f"accuracy/{name}", group) for name, group in groups.items() if group]
    return [*found, mean_metric("accuracy", items)]


LAST_ANSWER = Scorer('letter right after the last "Answer"', grade_official)

WEMATH = Benchmark(
    name="wemath",
    title="We-Math testmini",
    version="2",
    read=read,
    scorers={"paper": RULES, "official": LAST_ANSWER, "vlmevalkit": LAST_ANSWER},
    metrics=metrics,
    headline="score/strict",
    whole_clusters=True,
)
