"""Published verdicts and gold answers of real benchmarks."""

import json
from pathlib import Path

import pytest

from pyvision_rl.data.readers import read_tasks
from pyvision_rl.reward.options import parse_options
from pyvision_rl.reward.reward import grade_task
from pyvision_rl.reward.rules import grade_answer, route
from pyvision_rl.reward.text import plain
from pyvision_rl.types import Task

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
MATHVISION = REAL_DATA / "mathvision"
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.exists(), reason="no ../shared/data beside the repository"
)
TAKEN_FOR_RIGHT = {
    "2199": "(15 + 2 sqrt 3) / 64 taken for sqrt 3 / 6",
    "2825": "(sqrt 3 / 49)^6 taken for 7^3 / (2^12 13^2)",
}
"""Mistakes of the official scorer."""
TAKEN_FOR_WRONG = {
    "1212": "4 cm^2 with its unit in braces, not taken for 4",
    "1386": "125/8 cm^2 likewise",
    "2940": "180 degrees likewise",
}


@needs_real_data
def test_mathvision_verdicts() -> None:
    lines = (MATHVISION / "test_answers.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    published = (MATHVISION / "official_outputs" / "Gemini-Pro-CoT.jsonl").read_text()
    differ, num_right = set(), 0
    for verdict in map(json.loads, published.splitlines()):
        row = rows[verdict["id"]]
        options: dict[str, str] = dict(zip("ABCDE", row["options"], strict=False))
        right = grade_answer(verdict["model_answer"], row["answer"], options=options) == 1
        num_right += right
        if right != verdict["correct"]:
            differ.add(verdict["id"])
    assert len(rows) == 3040
    assert differ == {*TAKEN_FOR_RIGHT, *TAKEN_FOR_WRONG}
    assert num_right == 436 - len(TAKEN_FOR_RIGHT) + len(TAKEN_FOR_WRONG)


@needs_real_data
def test_mathvision_options_are_themselves_and_no_other() -> None:
    lines = (MATHVISION / "test_answers.jsonl").read_text().splitlines()
    num_pairs = 0
    for row in list(map(json.loads, lines))[1::12]:
        # Letters alone stand for what is in the figure.
        options = {plain(option): option for option in row["options"] if len(option) > 1}
        for answer in options.values():
            right = [gold for gold in options.values() if grade_answer(answer, gold) == 1]
            assert right == [answer]
            num_pairs += len(options) - 1
    assert num_pairs > 1000


def dynamath_verdict(answer: str, gold: str, kind: str) -> bool:
    """DynaMath's rule: letters equal, numbers to 0.001, texts contained."""
    if kind == "float":
        return abs(float(answer) - float(gold)) <= 0.001
    return answer == gold if kind == "multiple choice" else answer.lower() in gold.lower()


@needs_real_data
def test_dynamath_answers_against_each_other() -> None:
    lines = (REAL_DATA / "dynamath" / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rules = {"float": "number", "multiple choice": "choice"}
    num_right = 0
    for row in rows:
        kind = row["answer_type"]
        options = parse_options(row["question"])
        assert route(row["answer"], options) == rules.get(kind, route(row["answer"], options))
        assert bool(options) == (kind == "multiple choice")
        task = Task("t", row["question"], row["answer"])
        for other in (other for other in rows if other["qid"] == row["qid"]):
            right = dynamath_verdict(other["answer"], row["answer"], kind)
            assert grade_task(task, other["answer"]) == right
            num_right += right
    assert len(rows) == 200
    assert 200 < num_right < 2000


@needs_real_data
def test_blind_answers_in_the_asked_format() -> None:
    tasks = read_tasks(REAL_DATA / "vlms_are_blind" / "test.json")
    golds = {task.answer for task in tasks}
    for task in tasks:
        assert grade_task(task, f"{{{task.answer}}}") == 1
        assert [gold for gold in golds if grade_task(task, gold)] == [task.answer]
