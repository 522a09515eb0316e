"""DynaMath: the published tables, its rules and its layouts."""

import csv
import math
import re

import pytest

from pyvision_rl.eval.benchmarks.dynamath import DYNAMATH, as_float, short_answer
from pyvision_rl.eval.benchmarks.item import (
    Response,
    ScoredItem,
    read_items,
)
from pyvision_rl.eval.export import write_vlmevalkit
from pyvision_rl.eval.store import ItemRecord, SampleRecord
from pyvision_rl.types import StopReason
from tests.eval.benchmarks.files import (
    REAL_DATA,
    base64_png,
    item,
    needs_real_data,
    parquet,
    png,
    said,
    scored,
    source,
    tsv,
    values,
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
