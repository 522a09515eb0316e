"""MathVerse and MATH-Vision: golden verdicts and every special rule."""

import json
import math
from pathlib import Path

import pytest

from pyvision_rl.eval.benchmarks.item import (
    BenchmarkItem,
    Response,
    pick_scorer,
    read_items,
)
from pyvision_rl.eval.benchmarks.latex import latex_value
from pyvision_rl.eval.benchmarks.mathverse import MATHVERSE
from pyvision_rl.eval.benchmarks.mathvision import MATHVISION
from pyvision_rl.eval.benchmarks.options import by_letter
from pyvision_rl.types import Task
from tests.eval.benchmarks.files import (
    REAL_DATA,
    as_json,
    base64_png,
    item,
    needs_real_data,
    picture,
    said,
    scored,
    source,
    tsv,
    values,
)

VERSE_ROW = {
    "sample_index": "1",
    "problem_index": "1",
    "problem_version": "Text Dominant",
    "question": "Find x.\nChoices:\nA:45°\nB:90°",
    "answer": "B",
    "question_type": "multi-choice",
    "metadata": {"subject": "Plane Geometry"},
    "image": "images/a.png",
}


def test_mathverse_versions_and_options_of_the_figure(tmp_path):
    picture(tmp_path / "images" / "a.png")
    rows = [
        VERSE_ROW,
        {**VERSE_ROW, "sample_index": "5", "problem_version": "Vision Only", "question": ""},
        {**VERSE_ROW, "sample_index": "6", "problem_version": "Text_Only", "image": ""},
    ]
    items = read_items(MATHVERSE, source(as_json(tmp_path / "testmini.json", rows)))
    assert [i.labels["version"] for i in items] == ["Text Dominant", "Vision Only"]
    assert items[1].options == {"A": "45°", "B": "90°"}
    assert items[1].cluster == items[0].cluster
    assert items[1].task.question
    # the option's value counts as its letter
    assert pick_scorer(MATHVERSE, "official").grade(items[0], said("90°")) == 1


def test_mathverse_tsv_metadata_is_python_text(tmp_path):
    row = {**VERSE_ROW, "index": 4, "metadata": "{'subject': 'Functions'}", "image": base64_png()}
    (one,) = read_items(MATHVERSE, source(tsv(tmp_path / "MathVerse_MINI.tsv", [row])))
    assert one.labels["subject"] == "Functions"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("L = 14 cm, or so.\n\nFinal answer: 14", 1),
        ("so L = 15.\n$\\boxed{14}$ is the length.\nDone.", 1),
        ("14 is too much.\nThe answer is 15.", 0),
    ],
)
def test_mathverse_without_an_answer_block(text, right):
    entry = item("14", answer_type="free-form")
    assert pick_scorer(MATHVERSE, "official").grade(entry, Response(None, text)) == right
    assert pick_scorer(MATHVERSE, "paper").grade(entry, Response(None, text)) == 0


def test_mathverse_is_the_mean_of_versions():
    versions = ["Text Dominant", "Text Dominant", "Vision Only"]
    entries = [
        scored(item(str(n), labels={"version": v, "subject": "s"}), g)
        for n, (v, g) in enumerate(zip(versions, (1.0, 0.0, 1.0), strict=True))
    ]
    found = values(MATHVERSE.metrics(entries))
    assert found["accuracy"] == 0.75
    assert found["accuracy/Vision Only"] == 1.0
    assert "accuracy/Text Lite" not in found


@needs_real_data
def test_mathvision_against_all_published_verdicts():
    folder = REAL_DATA / "mathvision"
    golds = {row["id"]: row for row in map(json.loads, (folder / "test_answers.jsonl").open())}
    official = pick_scorer(MATHVISION, "official")
    entries = []
    for verdict in map(json.loads, (folder / "official_outputs/Gemini-Pro-CoT.jsonl").open()):
        row = golds[verdict["id"]]
        labels = {"subject": row["subject"], "level": str(row["level"])}
        gold = BenchmarkItem(
            Task(row["id"], "?", row["answer"]), by_letter(row["options"]), labels=labels
        )
        grade = official.grade(gold, said(verdict["model_answer"]))
        assert bool(grade) == verdict["correct"], row["id"]
        # From the whole response too, as where a model gave no answer block.
        raw = official.grade(gold, Response(None, verdict["response"]))
        assert bool(raw) == verdict["correct"], row["id"]
        entries.append(scored(gold, grade))
    found = values(MATHVISION.metrics(entries))
    published = json.loads((folder / "official_outputs/Gemini-Pro-CoT_result.json").read_text())
    assert found["accuracy"] == 436 / 3040
    for level in "12345":
        right, total = published[f"-level{level}"].partition("=")[0].split("/")
        assert found[f"accuracy/level/{level}"] == pytest.approx(int(right) / int(total))
    right, total = published["counting"].partition("=")[0].split("/")
    assert found["accuracy/counting"] == pytest.approx(int(right) / int(total))


@pytest.mark.parametrize(
    ("gold", "answer", "official", "vlmevalkit"),
    [
        ("B", "b", 1, 1),
        ("B", "7.5", 1, 1),  # the value of option B
        ("0.333", "1/3", 1, 0),  # equal to two decimals only
        ("\\frac{3\\sqrt{2}}{2}", "3 \\sqrt{2} / 2", 1, 1),
        ("(1, 2.001)", "(1,2)", 1, 0),  # tuples element by element
        ("(1, 2)", "(2, 1)", 0, 0),
        ("4", "", 0, 0),
        ("4", "four", 0, 0),
    ],
)
def test_mathvision_tolerances(gold, answer, official, vlmevalkit):
    entry = item(gold, options={"A": "7", "B": "7.5"} if gold == "B" else {})
    assert pick_scorer(MATHVISION, "official").grade(entry, said(answer)) == official
    assert pick_scorer(MATHVISION, "vlmevalkit").grade(entry, said(answer)) == vlmevalkit


@pytest.mark.parametrize(
    ("gold", "answer", "official", "vlmevalkit"),
    [
        ("B", "(B)", 1, 1),
        ("B", "$\\text{(B)}$", 1, 1),
        ("B", "B. red", 0, 1),  # the authors' scorer wants the letter or the words
        ("B", "red", 1, 1),
        ("B", "The correct answer is (B).", 1, 1),
        ("B", "blue", 0, 0),
        ("60", "60°", 1, 1),
        ("60", "x = 60^{\\circ}", 1, 1),
        ("60", "So the answer is 60. It is no more.", 1, 1),
        ("60", "50, 60", 0, 0),
    ],
)
def test_mathvision_reads_the_answer_out_of_a_text(gold, answer, official, vlmevalkit):
    entry = item(gold, options={"A": "blue", "B": "red"} if gold == "B" else {})
    for response in (said(answer), Response(None, answer)):
        assert pick_scorer(MATHVISION, "official").grade(entry, response) == official
        assert pick_scorer(MATHVISION, "vlmevalkit").grade(entry, response) == vlmevalkit


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\frac12", 0.5),
        ("2\\frac{1}{4}(2)", 1.0),
        ("-2^2", -4.0),
        ("2^{-1}", 0.5),
        ("\\sqrt{16}\\pi", 4 * math.pi),
        ("1,234.5", 1234.5),
        ("9^9^9", None),
        ("x+1", None),
        ("1/0", None),
        ("((((1))))", 1.0),
        ("(" * 190, None),
        ("", None),
    ],
)
def test_latex_values(text, value):
    assert latex_value(text) == (value if value is None else pytest.approx(value))


@needs_real_data
def test_mathvision_testmini_is_read_whole():
    items = read_items(MATHVISION, source_of_real("mathvision/testmini.jsonl"))
    assert len(items) == 102
    assert not any("<image" in i.task.question for i in items)
    by_id = {i.id: i for i in items}
    assert by_id["4"].task.question == "How many different digits can you find in this picture?"
    assert "When the ant [image 1] walks from home [image 2]" in by_id["33"].task.question
    assert all(path.is_file() for i in items for path in i.task.images)


def source_of_real(name):
    from pyvision_rl.eval.benchmarks.cells import ImageCache
    from pyvision_rl.eval.benchmarks.item import Source

    return Source(REAL_DATA / name, ImageCache(Path("never-written")))


def test_mathvision_options_that_are_letters_stand_in_the_figure(tmp_path):
    row = {"index": 1, "question": "Which? <image1>", "answer": "B", "category": "logic"}
    rows = [
        {**row, "choices": "['A', 'B']", "image": base64_png()},
        {**row, "index": 2, "choices": "['x', 'y']", "image": "1"},
        {**row, "index": 3, "choices": "[]", "image": "1"},
        {**row, "index": 4, "choices": "['A)', 'B)']", "image": "1"},
    ]
    items = read_items(MATHVISION, source(tsv(tmp_path / "MathVision.tsv", rows)))
    questions = [i.task.question for i in items]
    assert questions == ["Which?", "Which?\nA. x\nB. y", "Which?", "Which?"]
    assert [bool(i.options) for i in items] == [True, True, False, True]
