"""TIR-Bench's task rules and VSI-Bench's mean of tasks, worked out by hand."""

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.item import Response, pick_scorer, read_items
from pyvision_rl.eval.benchmarks.tirbench import TIRBENCH, nearest_letter
from pyvision_rl.eval.benchmarks.vsibench import VSIBENCH
from tests.eval.benchmarks.files import (
    as_json,
    item,
    jsonl,
    parquet,
    picture,
    said,
    scored,
    source,
    tsv,
    values,
)


@pytest.mark.parametrize(
    ("kind", "gold", "answer", "credit"),
    [
        ("word_search", "(3, 7)", "row 3, column 7", 1),
        ("word_search", "(3, 7)", "7, 3", 0),
        ("word_search", "(3, 7)", "It starts at (3, 7) and has 5 letters", 1),
        ("word_search", "(3, 7)", "", 0),
        ("spot_difference", "5", "5, 7", 0.5),
        ("spot_difference", "5", "none", 0),
        ("spot_difference", "1, 2, 3", "2, 3, 4", 0.5),
        ("spot_difference", "1, 2", "5", 0),
        ("jigsaw", "1 2 3 4", "[1, 2, 4, 3]", 0.5),
        ("jigsaw", "1 2 3 4", "[[1, 2], [4, 3]]", 0.5),
        ("jigsaw", "1 2 3 4", "The 4 tiles: 1, 2, 4, 3.", 0.5),
        # Too few or too many tiles are wrong as a whole.
        ("jigsaw", "1 2 3 4", "1 2", 0),
        ("jigsaw", "1 2 3 4", "1 2 3 4 5", 0),
        ("int", "12", "12", 1),
        ("int", "12", "12 or 13", 0),
        ("int", "12", "12.0", 1),
        ("int", "1234", "1,234", 1),
        ("float", "0.5", "1/2", 1),
        ("float", "0.5", "0.6", 0),
        ("text", "left", "Left.", 1),
        ("text", "left", "L", 0),
        ("text", "AC", "C, A", 1),
        ("text", "AC", "Answer: A and C", 1),
        ("text", "AC", "A", 0),
        ("text", "AC", "A, B, C", 0),
    ],
)
def test_tir_task_rules(kind, gold, answer, credit):
    for protocol in ("official", "strict"):
        scorer = pick_scorer(TIRBENCH, protocol)
        assert scorer.grade(item(gold, answer_type=kind), said(answer)) == credit


def test_tir_ocr_looks_for_the_gold_in_the_raw_response():
    gold = item("mobi", answer_type="ocr")
    official, strict = pick_scorer(TIRBENCH, "official"), pick_scorer(TIRBENCH, "strict")
    for text, exact, any_case in (("MOBILE", 0, 1), ("mobile", 1, 1), ("blank", 0, 0)):
        response = Response("mobi", f"The sign reads {text}")
        assert official.grade(gold, response) == exact
        assert strict.grade(gold, response) == any_case


@pytest.mark.parametrize(
    ("gold", "answer", "official", "strict"),
    [
        ("A", "A", 1, 1),
        ("B", "The answer is B", 1, 1),
        ("A", "", 1, 0),  # the quirk: nothing falls to the first letter
        ("A", "purple", 1, 0),
        ("B", "purple", 0, 0),
        ("B", "Blue", 1, 0),  # the nearest letter is the one in the text
        ("A", None, 1, 0),
        ("C", "round", 1, 1),  # the words of an option
        ("A", "round", 0, 0),
        ("B", "It is an oval.", 1, 1),
    ],
)
def test_tir_letters(gold, answer, official, strict):
    options = {"A": "square", "B": "oval", "C": "round"}
    entry = item(gold, answer_type="choice", options=options)
    response = Response(answer, answer or "")
    assert pick_scorer(TIRBENCH, "official").grade(entry, response) == official
    assert pick_scorer(TIRBENCH, "paper").grade(entry, response) == official
    assert pick_scorer(TIRBENCH, "strict").grade(entry, response) == strict


def test_tir_without_an_answer_block_looks_at_the_last_text():
    entry = item("B", answer_type="choice", options={"A": "x", "B": "y"})
    response = Response(None, "I think the answer is B.")
    for protocol in ("official", "strict"):
        assert pick_scorer(TIRBENCH, protocol).grade(entry, response) == 1


def test_nearest_letter_by_edit_distance():
    # "XB" to "B": one deletion; to any other letter two edits
    assert nearest_letter("XB") == "B"
    assert nearest_letter("") == "A"


def test_tir_rows_as_released(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "data" / name)
    rows = [
        {
            "id": 7,
            "task": "jigsaw",
            "answer": "[4, 1, 3, 2]",
            "meta_data": {"difficulty": 2},
            "prompt": "In what order?",
            "image_1": "data/a.png",
        },
        {
            "id": 11,
            "task": "refcoco",
            "answer": "B",
            "meta_data": {},
            "prompt": "Which value is the closest?\nA: 65%\nB: 73%",
            "image_1": "data/b.png",
            "image_2": None,
        },
    ]
    jigsaw, share = read_items(TIRBENCH, source(as_json(tmp_path / "TIR-Bench.json", rows)))
    assert (jigsaw.id, jigsaw.answer_type, share.id) == ("7", "jigsaw", "11")
    official = pick_scorer(TIRBENCH, "official")
    assert official.grade(jigsaw, said("4, 1, 2, 3")) == 0.5
    assert [official.grade(share, said(text)) for text in ("B", "73%", "65%")] == [1, 1, 0]


def test_tir_rows(tmp_path):
    for name in ("60.jpg", "1.jpg", "2.jpg"):
        picture(tmp_path / "images" / name)
    rows: dict[str, dict[str, object]] = {
        "a": {"task": "ocr", "prompt": "Read.", "answer": "wrong", "image_1": "images/60.jpg"},
        "b": {
            "category": "Spot Difference",
            "prompt": "Where?",
            "answer": [1, 2],
            "image_1": "images/1.jpg",
            "image_2": "images/2.jpg",
        },
        "c": {"task": "color", "prompt": "Q? A. x B. y", "answer": "B", "image_1": "images/1.jpg"},
    }
    ocr, spots, choice = read_items(TIRBENCH, source(as_json(tmp_path / "tir.json", rows)))
    assert ocr.task.answer == "mobi"
    assert (spots.id, spots.answer_type, len(spots.task.images)) == ("b", "spot_difference", 2)
    assert spots.task.answer == "1, 2"
    assert (choice.answer_type, choice.options) == ("choice", {"A": "x", "B": "y"})
    # A count is a number; a list of one difference is a list.
    for answer, kind in ((5, "int"), ("5", "int"), ([5], "spot_difference")):
        rows["b"]["answer"] = answer
        _, spots, _ = read_items(TIRBENCH, source(as_json(tmp_path / "tir.json", rows)))
        assert (spots.task.answer, spots.answer_type) == ("5", kind)
    rows["c"].pop("image_1")
    with pytest.raises(InputError, match=r"image_1.*missing"):
        read_items(TIRBENCH, source(as_json(tmp_path / "tir.json", rows)))


@pytest.mark.parametrize(
    ("gold", "answer", "official", "paper"),
    [
        # |3-4|/4 = 0.25 <= 1-t for t = .5 .. .75: 6 of 10; strictly below: 5
        ("4", "3", 0.6, 0.5),
        ("2", "1", 0.1, 0.0),
        ("10", "9", 0.9, 0.8),
        ("4", "4", 1.0, 1.0),
        ("4", "4.", 1.0, 1.0),
        ("4", "4 chairs", 1.0, 1.0),
        ("4", "about 4.0 m", 0.0, 1.0),  # the first word only, or the first number
        ("1200", "1,200", 0.0, 1.0),
        ("4", "9", 0.0, 0.0),
        ("4", "many", 0.0, 0.0),
        ("4", "", 0.0, 0.0),
        ("4", "nan", 0.0, 0.0),
    ],
)
def test_vsi_relative_accuracy(gold, answer, official, paper):
    entry = item(gold, answer_type="number")
    assert pick_scorer(VSIBENCH, "official").grade(entry, said(answer)) == pytest.approx(official)
    assert pick_scorer(VSIBENCH, "paper").grade(entry, said(answer)) == pytest.approx(paper)


def test_the_two_mra_differ_in_few_small_counts():
    official, paper = (pick_scorer(VSIBENCH, name) for name in ("official", "paper"))
    pairs = [
        (item(str(gold), answer_type="number"), said(str(count)))
        for gold in range(1, 11)
        for count in range(21)
    ]
    differ = sum(official.grade(*pair) != pytest.approx(paper.grade(*pair)) for pair in pairs)
    assert (differ, len(pairs)) == (20, 210)


def test_vsi_letters_are_the_first_word():
    entry = item("B", answer_type="choice", options={"A": "x", "B": "y"})
    official = pick_scorer(VSIBENCH, "official")
    assert [official.grade(entry, said(text)) for text in ("b.", "B. y", "y", "A")] == [1, 1, 0, 0]


def test_vsi_options_by_the_rules_under_the_papers_protocol():
    entry = item("B", answer_type="choice", options={"A": "left", "B": "right"})
    paper = pick_scorer(VSIBENCH, "paper")
    texts = {"B": 1, "(B)": 1, "right": 1, "B. right": 1, "The answer is B": 1, "left": 0, "A": 0}
    assert {text: paper.grade(entry, said(text)) for text in texts} == texts
    assert paper.grade(entry, Response(None, "B")) == 0


def test_vsi_overall_is_the_mean_of_tasks_with_directions_as_one():
    def entry(number, kind, task, grade):
        return scored(item(str(number), labels={"task": task}, member=kind), grade)

    direction = "object_rel_direction"
    entries = [
        entry(1, f"{direction}_easy", direction, 1.0),
        entry(2, f"{direction}_easy", direction, 1.0),
        entry(3, f"{direction}_medium", direction, 0.0),
        entry(4, f"{direction}_hard", direction, 0.0),
        entry(5, "object_counting", "object_counting", 0.6),
        entry(6, "route_planning", "route_planning", 0.0),
    ]
    found = values(VSIBENCH.metrics(entries))
    assert found[f"accuracy/{direction}"] == pytest.approx(1 / 3)
    # (1/3 + 0.6 + 0) / 3; the mean of the rows would be 0.433
    assert found["accuracy"] == pytest.approx((1 / 3 + 0.6) / 3)


VSI_ROW = {
    "id": 7,
    "dataset": "scannet",
    "scene_name": "scene0000",
    "question_type": "object_rel_direction_hard",
    "question": "Where is the lamp?",
    "ground_truth": "B",
    "options": ["A. left", "B. right"],
}


def test_vsi_files(tmp_path):
    (tmp_path / "scannet").mkdir()
    video = tmp_path / "scannet" / "scene0000.mp4"
    video.write_bytes(b"x")
    number = {**VSI_ROW, "id": 8, "question_type": "object_counting", "options": None}
    path = parquet(tmp_path / "test-00000-of-00001.parquet", [VSI_ROW, number])
    choice, count = read_items(VSIBENCH, source(path))
    assert choice.task.videos == (video,)
    assert choice.options == {"A": "left", "B": "right"}
    assert choice.labels["task"] == "object_rel_direction"
    assert choice.cluster == count.cluster == "scannet/scene0000"
    assert (count.answer_type, count.options) == ("number", {})
    easi = {
        "index": 3,
        "video": "scannet/scene0000.mp4",
        "question": "Where?",
        "question_type": "route_planning",
        "candidates": "['A. left', 'B. right']",
        "answer": "A",
    }
    (one,) = read_items(VSIBENCH, source(tsv(tmp_path / "VSI-Bench.tsv", [easi])))
    assert (one.id, one.task.question) == ("3", "Where?\nA. left\nB. right")


def test_vsi_errors(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", [VSI_ROW])
    with pytest.raises(InputError, match="no such file; media_root must hold the unpacked videos"):
        read_items(VSIBENCH, source(path))
    path = jsonl(tmp_path / "t.jsonl", [{**VSI_ROW, "question_type": "guess"}])
    with pytest.raises(InputError, match="question_type = 'guess': must be one of object_rel_dir"):
        read_items(VSIBENCH, source(path))
