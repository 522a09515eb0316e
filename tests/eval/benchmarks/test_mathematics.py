"""DynaMath, MathVerse, MATH-Vision and We-Math: golden tables and every special rule."""

import csv
import json
import math
import re
from pathlib import Path

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.dynamath import DYNAMATH, as_float, short_answer
from pyvision_rl.eval.benchmarks.item import (
    BenchmarkItem,
    Response,
    ScoredItem,
    pick_scorer,
    read_items,
)
from pyvision_rl.eval.benchmarks.latex import latex_value
from pyvision_rl.eval.benchmarks.mathverse import MATHVERSE
from pyvision_rl.eval.benchmarks.mathvision import MATHVISION
from pyvision_rl.eval.benchmarks.options import by_letter
from pyvision_rl.eval.benchmarks.wemath import WEMATH, split_options
from pyvision_rl.eval.export import write_vlmevalkit
from pyvision_rl.eval.store import ItemRecord, SampleRecord
from pyvision_rl.types import StopReason, Task
from tests.eval.benchmarks.files import (
    as_json,
    base64_png,
    item,
    parquet,
    picture,
    png,
    said,
    scored,
    source,
    tsv,
    values,
)

REAL_DATA = Path(__file__).parents[4] / "shared" / "data"
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.exists(), reason="no ../shared/data beside the repository"
)


@needs_real_data
@pytest.mark.parametrize(
    ("table", "average", "worst"),
    [("GPT4o-result.csv", 0.6333, 0.3473), ("Qwen2-7B-result.csv", 0.4214, 0.1377)],
)
def test_dynamath_against_the_published_tables(table, average, worst):
    with (REAL_DATA / "dynamath" / "official_results" / table).open() as lines:
        table = csv.DictReader(lines)
        rows = [row for row in table if re.fullmatch(r"Q\d+", row["Question ID"])]
    entries = [
        scored(
            item("1", id=f"{row['Question ID']}v{v}", cluster=row["Question ID"], member=str(v)),
            float(row[f"Variant {v}"] == "correct"),
        )
        for row in rows
        for v in range(1, 11)
    ]
    found = {metric.name: metric for metric in DYNAMATH.metrics(entries)}
    assert (found["accuracy"].count, found["worst_case"].count) == (5010, 501)
    assert found["accuracy"].value == pytest.approx(average, abs=5e-5)
    assert found["worst_case"].value == pytest.approx(worst, abs=5e-5)
    assert found["robustness"].value == pytest.approx(worst / average, abs=3e-4)
    # 501 questions, not 5,010 independent ones: the interval is wider than +-1.33 points.
    low, high = found["accuracy"].ci95
    assert 0.03 < (high - low) / 2 < 0.04


def test_dynamath_worst_case_per_sample():
    # seed a: right in both variants in sample 0 only; seed b: the second sample was lost
    entries = [
        scored(item("1", id="a1", cluster="a"), 1.0, 1.0),
        scored(item("2", id="a2", cluster="a"), 1.0, 0.0),
        scored(item("3", id="b1", cluster="b"), 0.0, None),
    ]
    assert values(DYNAMATH.metrics(entries))["worst_case"] == 0.25


def test_dynamath_seed_with_a_lost_variant_is_not_all_right():
    entries = [
        scored(item("1", id="a1", cluster="a"), 1.0),
        scored(item("2", id="a2", cluster="a"), None),
        scored(item("3", id="b1", cluster="b"), 0.0),
    ]
    found = {metric.name: metric for metric in DYNAMATH.metrics(entries)}
    assert (found["worst_case"].value, found["worst_case"].count) == (0.0, 1)
    assert (found["accuracy"].value, found["accuracy"].count) == (0.5, 2)


@pytest.mark.parametrize(
    ("kind", "gold", "answer", "official", "vlmevalkit", "paper"),
    [
        ("float", "3.5", "3.501", 1, 1, 1),
        ("float", "3.5", "3.5011", 0, 0, 0),
        ("float", "2.0944", "2.094", 1, 1, 1),
        ("float", "6.2832", "2pi", 1, 1, 1),
        ("float", "6.2832", "2π", 1, 1, 1),
        ("float", "1.5708", "\\frac{\\pi}{2}", 1, 1, 1),
        ("float", "5", "5 cm", 1, 1, 1),
        ("float", "1234", "1,234", 1, 1, 1),
        ("float", "0.5", "x = 1/2", 1, 1, 1),
        ("float", "5", "The answer is 5.", 1, 1, 1),
        ("float", "5", '{"solution": "x", "short answer": "5"}', 1, 1, 1),
        ("float", "5", "five", 1, 1, 1),
        ("float", "3", "3 / 4", 1, 1, 0),  # what follows a space is a unit to the authors
        ("float", "5", "about 1e999", 0, 0, 0),
        ("float", "5", "", 0, 0, 0),
        ("multiple choice", "B", "b", 1, 1, 1),
        ("multiple choice", "B", "A", 0, 0, 0),
        ("multiple choice", "B", "B because it is larger", 1, 1, 0),
        # The gold text in the answer, or the answer in the gold text.
        ("text", "July and August", "july", 0, 1, 0),
        ("text", "May", "The hottest month is May", 1, 0, 0),
        ("text", "5:0", "5:00", 1, 0, 0),
        ("text", "even", "Even", 0, 1, 1),  # the authors' case counts
        ("text", "even", "e", 0, 0, 0),
        ("text", "even", "uneven", 1, 0, 0),  # as for the authors
        ("text", "even", "", 0, 0, 0),
        ("text", "even", "odd", 0, 0, 0),
    ],
)
def test_dynamath_rules(kind, gold, answer, official, vlmevalkit, paper):
    entry = item(gold, answer_type=kind)
    grades = {name: s.grade(entry, said(answer)) for name, s in DYNAMATH.scorers.items()}
    assert grades == {"official": official, "vlmevalkit": vlmevalkit, "paper": paper}


def test_dynamath_without_an_answer_block_looks_at_the_last_line():
    response = Response(None, "There are 3 rows.\n\nThe answer is 5.\n")
    entry = item("5", answer_type="float")
    grades = {name: s.grade(entry, response) for name, s in DYNAMATH.scorers.items()}
    assert grades == {"official": 1, "vlmevalkit": 1, "paper": 0}


def test_dynamath_numbers():
    assert as_float("-pi/2") == pytest.approx(-math.pi / 2)
    assert as_float("pi/0") is None
    assert short_answer('text {"short answer": 4}') == "4"
    assert short_answer("{broken") == "{broken"


DYNA_ROW = {
    "question": "Q?",
    "answer": "1",
    "answer_type": "float",
    "subject": "algebra",
    "knowledge_level": "high school",
}


def test_dynamath_seed_is_qid_not_index(tmp_path):
    rows = [
        {**DYNA_ROW, "index": at, "qid": at % 2, "varid": 1 + at // 2, "image": base64_png()}
        for at in range(4)
    ]
    path = tsv(tmp_path / "DynaMath.tsv", rows)
    items = read_items(DYNAMATH, source(path))
    assert [(i.id, i.cluster) for i in items] == [
        ("q0v1", "0"),
        ("q1v1", "1"),
        ("q0v2", "0"),
        ("q1v2", "1"),
    ]
    assert [i.id for i in read_items(DYNAMATH, source(path, limit=3))] == ["q0v1", "q0v2"]


def test_predictions_keep_the_columns_that_other_harnesses_score_by(tmp_path):
    """VLMEvalKit's DynaMath groups by qid and varid and grades by answer_type, under its index."""
    row = {"index": 17, "qid": 3, "varid": 2, "question": "?", "answer": "1.5"}
    row |= {"answer_type": "float", "subject": "algebra", "knowledge_level": "high school"}
    path = tsv(tmp_path / "DynaMath.tsv", [{**row, "image": base64_png()}])
    (one,) = read_items(DYNAMATH, source(path))
    sample = SampleRecord("2", "2", StopReason.ANSWERED, 1, 0, 0, 0, 1)
    records = {one.id: ItemRecord(one.id, 0, 1.0, (sample,))}
    write_vlmevalkit(tmp_path / "p.tsv", [ScoredItem(one, (0.0,))], records)
    with (tmp_path / "p.tsv").open(newline="") as file:
        (written,) = csv.DictReader(file, delimiter="\t")
    expected = {name: str(value) for name, value in row.items()}
    assert written == expected | {"prediction": "2", "accuracy": "0.0", "level": "high school"}


def test_dynamath_hugging_face_splits(tmp_path):
    row = {**DYNA_ROW, "id": "17", "ground_truth": "2", "image": "images/x.png"}
    del row["answer"]
    for variant in (1, 2, 10):
        held = {**row, "decoded_image": {"bytes": png(), "path": "x.png"}}
        parquet(tmp_path / "data" / f"sample_variant{variant}-00000-of-00001.parquet", [held])
    assert {i.id for i in read_items(DYNAMATH, source(tmp_path))} == {"q17v1", "q17v2", "q17v10"}
    one = read_items(DYNAMATH, source(tmp_path, split="sample_variant2"))
    assert [(i.id, i.task.answer) for i in one] == [("q17v2", "2")]


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


def problem(name, steps, *grades):
    """The rows of a We-Math problem: its steps alone, then the whole."""
    members = [*(str(n + 1) for n in range(steps)), "multi"]
    return [
        scored(
            item(
                "A",
                id=f"{name}{m}",
                cluster=name,
                member=m,
                labels={"steps": str(steps), "key": f"{steps}steps_{m}"},
            ),
            None if g is None else float(g),
        )
        for m, g in zip(members, grades, strict=True)
    ]


def test_wemath_strict_and_loose_over_the_groups_there_are():
    entries = [
        *problem("mastered", 2, 1, 1, 1),
        *problem("ik", 2, 1, 0, 0),
        *problem("ig", 3, 1, 1, 1, 0),
        *problem("one step wrong", 3, 1, 0, 1, 1),  # strict: rote; loose: mastered
        *problem("all steps wrong", 2, 0, 0, 1),  # rote either way
    ]
    found = values(WEMATH.metrics(entries))
    # strict: CM 1, RM 2, IG 1, IK 1 of 5: (0.5 * 1 + 1) / 5; loose: CM 2, RM 1
    assert found["score/strict"] == pytest.approx(0.3)
    assert found["score/loose"] == pytest.approx(0.5)
    assert (found["CM/strict"], found["RM/strict"]) == (0.2, 0.4)
    assert (found["CM/loose"], found["RM/loose"]) == (0.4, 0.2)
    assert (found["IK"], found["IG"]) == (0.2, 0.2)
    assert found["rote_rate/strict"] == pytest.approx(2 / 3)
    assert found["rote_rate/loose"] == pytest.approx(1 / 3)
    # the authors' own formula: (n - 0.5 IG - RM - IK) / n
    assert found["score/strict"] == pytest.approx((5 - 0.5 - 2 - 1) / 5)
    # one-step questions: 2 + 1 + 3 + 2 + 0 of 12; two-step 2 of 3; three-step 1 of 2
    assert found["accuracy/S1"] == pytest.approx(8 / 12)
    assert (found["accuracy/S2"], found["accuracy/S3"]) == (pytest.approx(2 / 3), 0.5)
    assert WEMATH.headline == "score/strict"


@pytest.mark.parametrize("grades", [(1, 1, None), (1, None, 1)])
def test_wemath_problem_with_a_lost_part_has_no_verdict(grades):
    entries = [*problem("lost", 2, *grades), *problem("ik", 2, 1, 0, 0)]
    found = {metric.name: metric for metric in WEMATH.metrics(entries)}
    assert (found["score/strict"].value, found["score/strict"].count) == (0.0, 1)
    assert found["IK"].value == 1.0
    # What was played still counts for the accuracies: 3 right of 5.
    assert (found["accuracy"].value, found["accuracy"].count) == (0.6, 5)


def test_wemath_answer_is_the_letter_right_after_the_last_answer():
    official = pick_scorer(WEMATH, "official")
    gold = item("C", options=dict.fromkeys("ABCD", ""))
    text = "Answer: A? No. Answer: 'C', not D"
    assert official.grade(gold, Response(None, text)) == 1
    assert official.grade(gold, said("C")) == 1
    assert official.grade(gold, said("6")) == 0
    # A letter inside a word is no answer, unless the text begins with it, as for the authors.
    assert official.grade(gold, Response(None, "To find the Circle's area")) == 0
    assert official.grade(gold, said("Both")) == 0
    assert official.grade(gold, said("(C)")) == 1
    assert pick_scorer(WEMATH, "paper").grade(gold, Response(None, text)) == 0


def wemath_rows(**changes):
    row = {
        "ID": "2steps_17",
        "question": "Area?",
        "option": "A. 6; 7;B. 8;C. 10;D. 12;E. No correct answer",
        "answer": "A",
        "image_path": "a.png",
        "question number": 1,
    }
    return [{**row, "key": f"2steps_{part}", **changes} for part in ("1", "2", "multi")]


def test_wemath_groups_by_id_and_options_in_one_text(tmp_path):
    picture(tmp_path / "a.png")
    items = read_items(WEMATH, source(as_json(tmp_path / "testmini.json", wemath_rows())))
    assert {i.cluster for i in items} == {"2steps_17"}
    assert [i.member for i in items] == ["1", "2", "multi"]
    assert items[0].options == {
        "A": "6; 7",
        "B": "8",
        "C": "10",
        "D": "12",
        "E": "No correct answer",
    }


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A. 1\nB. 2", ["1", "2"]),
        # As released: options that only a blank parts from each other.
        ("A. 4 B. 3 C. 2; D. No correct answer", ["4", "3", "2", "No correct answer"]),
        ("A. 4;B. 3 C. 2", ["4", "3", "2"]),
        ("A. F;    B. D;    C. B; D. E; E. No", ["F", "D", "B", "E", "No"]),
        ("A. Turn to B.; B. Stay; C. No", ["Turn to B.", "Stay", "No"]),
        ("A. 30, 50, 40.; B. (2, 0) ;C. 54π, 18π", ["30, 50, 40.", "(2, 0)", "54π, 18π"]),
    ],
)
def test_wemath_options_in_one_text(text, options):
    assert split_options(text) == dict(zip("ABCDE", options, strict=False))


def test_wemath_problem_without_a_step(tmp_path):
    picture(tmp_path / "a.png")
    path = as_json(tmp_path / "testmini.json", wemath_rows()[:2])
    with pytest.raises(InputError, match="must have every step and 'multi', has only 1, 2"):
        read_items(WEMATH, source(path))
    path = as_json(tmp_path / "testmini.json", wemath_rows(key="4steps_1"))
    with pytest.raises(InputError, match="must be like 2steps_1"):
        read_items(WEMATH, source(path))
