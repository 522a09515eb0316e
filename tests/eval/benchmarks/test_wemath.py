"""We-Math: its four classes, its reading of answers and options."""

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.item import (
    Response,
    pick_scorer,
    read_items,
)
from pyvision_rl.eval.benchmarks.wemath import WEMATH, split_options
from tests.eval.benchmarks.files import (
    as_json,
    item,
    picture,
    said,
    scored,
    source,
    values,
)


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
