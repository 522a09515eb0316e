"""Answers of every kind against verdicts worked out by hand; none may raise or hang."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvision_rl.reward.options import parse_options
from pyvision_rl.reward.reward import RIGHT_FROM
from pyvision_rl.reward.rules import grade_answer, mean_relative_accuracy, route
from pyvision_rl.reward.text import clean

YES_NO = {"A": "yes", "B": "no"}
SIDES = {"A": "left of the dog", "B": "right of the dog", "C": "above it"}
LENGTHS = {"A": "$20 \\mathrm{~cm}$", "B": "4.5", "C": "$2 \\sqrt{3}$", "D": "14", "E": "C or D"}


@pytest.mark.parametrize(
    ("answer", "gold", "options", "right"),
    [
        ("B", "B", YES_NO, 1),
        ("(B)", "B", YES_NO, 1),
        ("b.", "B", YES_NO, 1),
        ("'B'", "B", YES_NO, 1),
        ("\\text{B}", "B", YES_NO, 1),
        ("**B**", "(B)", YES_NO, 1),
        ("B. no", "B", YES_NO, 1),
        ("(B) No.", "B", YES_NO, 1),
        ("no", "B", YES_NO, 1),
        ("B", "no", YES_NO, 1),
        ("B", "B. no", YES_NO, 1),
        ("The answer is (B).", "B", YES_NO, 1),
        ("Answer: B", "B", YES_NO, 1),
        ("Option b", "B", YES_NO, 1),
        ("The answer is $B$.", "B", YES_NO, 1),
        ("A", "B", YES_NO, 0),
        ("B. yes", "B", YES_NO, 0),
        ("yes", "B", YES_NO, 0),
        ("yes no", "B", YES_NO, 0),
        ("A. yes B. no", "B", YES_NO, 0),
        ("B. no A. yes", "B", YES_NO, 0),
        ("A or B", "B", YES_NO, 0),
        ("C", "B", YES_NO, 0),
        ("Right of the dog", "B", SIDES, 1),
        ("B. It is right of the dog", "B", SIDES, 1),
        ("dog", "B", SIDES, 0),
        ("B. left of the dog", "B", SIDES, 0),
        ("4.50", "B", LENGTHS, 1),
        ("\\sqrt{12}", "C", LENGTHS, 1),
        ("\\sqrt{13}", "C", LENGTHS, 0),
        ("C or D", "E", LENGTHS, 1),
        ("D. 14", "D", LENGTHS, 1),
        ("B. 14", "D", LENGTHS, 0),
        ("C", "C", {}, 1),
        ("C. because it is red", "C", {}, 1),
        ("C. I see a cat", "C", {}, 1),
        ("C. or D.", "C", {}, 0),
        ("The answer is A. yes", "A", YES_NO, 1),
        ("Option A: yes", "A", YES_NO, 1),
        ("The correct answer is (A) yes", "A", YES_NO, 1),
        ("The answer is A. no", "A", YES_NO, 0),
        ("B, no", "B", YES_NO, 1),
        ("B - no", "B", YES_NO, 1),
        ("A, no", "B", YES_NO, 0),
        ("A, yes", "A", YES_NO, 1),
        ("C, D", "C", {}, 0),
        ("C - D", "C", {}, 0),
        ("C-section", "C", {}, 0),
        ("A cat", "A", {"A": "a cat", "B": "a dog"}, 1),
        ("A dog", "B", {"A": "a cat", "B": "a dog"}, 1),
        ("C. D", "C", {}, 0),
        ("C: D", "C", {}, 0),
        ("A B C D", "C", {}, 0),
        ("D", "D", YES_NO, 1),
        ("D. because it is red", "D", YES_NO, 1),
        ("20", "A", LENGTHS, 0),
        ("yes", "A", {"A": "yes", "B": "yes"}, 0),
        ("B. left of the dog", "B", {"A": "left", "B": "left of the dog"}, 1),
        ("A. left of the dog", "A", {"A": "left", "B": "left of the dog"}, 0),
    ],
)
def test_choice(answer: str, gold: str, options: dict[str, str], right: int) -> None:
    assert route(gold, options) == "choice"
    assert grade_answer(answer, gold, options=options) == right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("5", "5", 1),
        ("{5}", "5", 1),
        ("$5$", "5", 1),
        ("\\boxed{5}", "5", 1),
        ("5.0", "5", 1),
        ("five", "5", 1),
        ("+5", "5", 1),
        ("5 lines", "5", 1),
        ("x = 5", "5", 1),
        ("The answer is 5.", "5", 1),
        ("There are 5 lines in the picture.", "5", 1),
        ("1,200", "1200", 1),
        ("1200", "1,200", 1),
        ("\u22125", "-5", 1),
        ("\uff10\uff0e\uff15", "1/2", 1),
        ("\\frac{1}{2}", "0.5", 1),
        ("23/3", "7.6667", 1),
        ("7.67", "7.6667", 0),
        ("3.14159", "3.14", 1),
        ("3.1", "3.14", 0),
        ("3.145", "3.14", 1),
        ("3.146", "3.14", 0),
        ("3.14", "3.1", 0),
        ("0.50005", "0.5", 1),
        ("0.50006", "0.5", 0),
        ("5.001", "5", 0),
        ("5.0001", "5", 0),
        ("50%", "50", 1),
        ("5 cm", "5 m", 0),
        ("5 cm", "5cm", 1),
        ("5", "5 cm", 1),
        ("60 degrees", "60°", 1),
        ("60^{\\circ}", "60°", 1),
        ("5 meters", "5 m", 1),
        ("50 percent", "50%", 1),
        ("y = -1", "x = -1", 0),
        ("x=-1", "x = -1", 1),
        ("-5", "5", 0),
        ("5 million", "5", 0),
        ("5 or 6", "5", 0),
        ("5, 6", "5", 0),
        ("4 5 6", "5", 0),
        ("not 5", "5", 0),
        ("more than 5", "5", 0),
        ("It is not 5 lines.", "5", 0),
        ("Are there 5 lines?", "5", 0),
        ("There are 5 of 7 lines.", "5", 0),
        ("the crop of image_clue_5 shows it", "5", 0),
        ("1/0", "5", 0),
        ("5²", "52", 0),
        ("5^2", "52", 0),
        ("\u0665", "5", 0),
        ("⑤", "5", 0),
        ("5e0", "5", 1),
        ("1e999999", "5", 0),
        ("10**10**10", "5", 0),
        ("9" * 999, "5", 0),
        ("5" + "0" * 999, "5", 0),
        ("5" + " " * 999, "5", 0),
        ("nan", "5", 0),
        ("inf", "5", 0),
        ("5_0", "50", 0),
        ("5 \\mathrm{~cm}", "5", 1),
        ("$5\\text{ cm}$", "5 cm", 1),
        ("5\\,\\text{cm}", "5 \\mathrm{~cm}", 1),
        ("5\\text{ m}", "5 cm", 0),
        ("5\\text{ or }6", "5", 0),
        ("25 \\text{ cm}^2", "25", 1),
        ("25 cm\u00b2", "25 cm^2", 1),
        ("25 square centimeters", "25 cm^2", 1),
        ("25 cm", "25 cm^2", 0),
        ("36 m/s^2", "36", 1),
        ("36 m/s", "36 km/h", 0),
        ("25\u00b0C", "25", 1),
        ("25^\\circ\\text{C}", "25 °C", 1),
        ("25 °F", "25 °C", 0),
        ("45\\degree", "45°", 1),
        ("\\$5.00", "$5", 1),
        ("1{,}234", "1234", 1),
        ("1\\,234", "1,234", 1),
        ("3 apples", "3 apple", 1),
        ("five apples", "5", 1),
        ("There are five apples.", "5", 1),
        ("twelve", "12", 1),
        ("The left one", "1", 0),
        ("two or three", "2", 0),
        ("two thirds", "2", 0),
        ("2 thirds", "2", 0),
        ("1 1/2", "1.5", 1),
        ("-1 1/2", "-3/2", 1),
        ("1 1/2", "0.5", 0),
        ("5x", "5", 0),
        ("5k", "5", 0),
        ("50%", "0.5", 1),
        ("0.5", "50%", 1),
        ("0.5%", "50%", 0),
        ("50 cm", "50%", 0),
        ("\\frac{23}{3}", "7.6667", 1),
        ("\\frac{22}{3}", "7.6667", 0),
        ("\\sqrt{2}", "1.414", 1),
        ("\\sqrt{2}", "1.42", 0),
        ("\\sqrt{2}i", "1.414", 0),
        ("\\frac{7}{2}\\text{ cm}", "3.5 cm", 1),
        ("\\frac{7}{2}\\text{ m}", "3.5 cm", 0),
        ("\\angle A = 30^\\circ", "30", 1),
        ("5 \\mathrm{~m} / \\mathrm{s}", "5 m/s", 1),
        ("twenty one", "20", 0),
        ("five six", "5", 0),
        ("5 six", "5", 0),
        ("not $5$", "5", 0),
        ("It is less than $5$.", "5", 0),
    ],
)
def test_number(answer: str, gold: str, right: int) -> None:
    assert route(gold) == "number"
    assert grade_answer(answer, gold) == right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("Yes", "Yes", 1),
        ("yes.", "Yes", 1),
        ("No, the circles do not touch.", "No", 1),
        ("The answer is no.", "No", 1),
        ("The answer is not no.", "No", 0),
        ("Answer: the White", "White", 1),
        ("So, the final answer is **White**.", "White", 1),
        ("The answer is white or black", "White", 0),
        ("answer", "answer", 1),
        ("Yes or no", "Yes", 0),
        ("Yes or maybe", "Yes", 0),
        ("!", "", 0),
        ("yes and no", "Yes", 0),
        ("Not sure", "No", 0),
        ("rows=6, columns=5", "rows={6} columns={5}", 1),
        ("rows={5} columns={6}", "rows={6} columns={5}", 0),
        ("the White", "White", 1),
        ("white or black", "White", 0),
        ("a", "a", 1),
        ("Wh\u0456te", "White", 0),
        ("3:45", "3:45", 1),
        ("1/15", "3:45", 0),
        ("2019-05-06", "2019-05-06", 1),
        ("2008", "2019-05-06", 0),
        ("A", "A. Einstein", 0),
        ("A. Einstein", "A. Einstein", 1),
    ],
)
def test_text(answer: str, gold: str, right: int) -> None:
    assert grade_answer(answer, gold, "text") == right
    assert grade_answer(answer, gold) == right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("1/2", "$\\frac{1}{2}$", 1),
        ("0.5", "\\frac{1}{2}", 1),
        ("\\dfrac12", "\\frac{1}{2}", 1),
        ("4\\pi", "$4 \\pi$", 1),
        ("The area is $4\\pi$", "$4 \\pi$", 1),
        ("$4\\pi$ or $5\\pi$", "$4 \\pi$", 0),
        ("2(\\sqrt{2}-1)", "2\\sqrt{2}-2", 1),
        ("(3, -4)", "(3,-4)", 1),
        ("(-4, 3)", "(3,-4)", 0),
        ("625 \\uparrow 626 \\uparrow 627", "$625 \\rightarrow 626 \\uparrow 627$", 0),
        ("2 \\vdots 6 \\vdots 9", "$2\\vdots6\\vdots6$", 0),
        ("2 \\vdots 6 \\vdots 6", "$2\\vdots6\\vdots6$", 1),
        ("0.\\overline{6}", "0.\\overline{3}", 0),
        ("0.\\overline{3}", "$0.\\overline{3}$", 1),
        ("\\pi d", "\\pi d n", 0),
        ("n d \\pi", "\\pi d n", 0),
        ("132 \\text{ Ps}, 133 \\text{ Qs}", "$133~\\text{Ps}, 132~\\text{Qs}$", 0),
        ("8\\pi cm", "8\\pi", 1),
        ("\\dfrac{\\alpha}{2}", "\\frac{1}{2}\\cdot\\alpha", 1),
        ("(3.0, -4)", "$(3,-4)$", 1),
        ("\\sqrt{41}", "\\sqrt{14}", 0),
        ("\\pi", "2\\pi", 0),
        ("$", "2\\pi", 0),
        ("$$$$", "2\\pi", 0),
        ("2\\pi, 3\\pi", "2\\pi", 0),
        ("2\\pi \\mathrm{~cm}", "2\\pi", 1),
        ("2\\pi \\text{ cm}^2", "2\\pi", 1),
        ("2\\pi \\text{ cm}^2", "2\\pi \\mathrm{cm}^{2}", 1),
        ("2\\pi \\text{ cm}", "2\\pi \\mathrm{~m}", 0),
        ("\\frac{1}{2}\\%", "\\frac{1}{2}", 0),
        ("2\u03c0", "2\\pi", 1),
        ("2 pi", "2\\pi", 1),
        ("2*pi", "2\\pi", 1),
        ("pi/2", "\\frac{\\pi}{2}", 1),
        ("2 sqrt(3)", "2\\sqrt{3}", 1),
        ("2\u221a3", "2\\sqrt{3}", 1),
        ("2\u221a(3+1)", "2\\sqrt{4}", 1),
        ("2 sqrt(2)", "2\\sqrt{3}", 0),
        ("2\\sqrt{3}", "2\u221a3", 1),
        ("\\{3, 1\\}", "\\{1, 3\\}", 1),
        ("\\{1, 2\\}", "\\{1, 3\\}", 0),
        ("\\{3, -4\\}", "(3,-4)", 0),
        ("[0, 1/2]", "[0,0.5]", 1),
        ("[0, 1/2)", "[0,0.5]", 0),
        ("(-\u221e, 3]", "(-\\infty,3]", 1),
        ("5", "5x", 0),
        ("x \\cdot 5", "5x", 1),
        ("The area is not $4\\pi$", "$4 \\pi$", 0),
    ],
)
def test_math(answer: str, gold: str, right: int) -> None:
    assert route(gold) == "math"
    assert grade_answer(answer, gold) == right


def official_mra(prediction: float, target: float) -> float:
    """VSI-Bench's scorer, written down again from its definition."""
    thresholds = np.linspace(0.5, 0.95, int((0.95 - 0.5) / 0.05 + 2))
    return float((abs(prediction - target) / target <= 1 - thresholds).mean())


def test_mra_is_the_official_one() -> None:
    assert mean_relative_accuracy("9", "10") == 0.9
    assert mean_relative_accuracy("3", "4") == 0.6
    assert mean_relative_accuracy("1", "2") == 0.1
    for target in range(1, 41):
        for prediction in range(90):
            mine = mean_relative_accuracy(str(prediction), str(target))
            assert mine == pytest.approx(official_mra(prediction, target), abs=1e-12)


def test_mra_of_odd_answers() -> None:
    assert mean_relative_accuracy("none", "10") == 0
    assert mean_relative_accuracy("0", "0") == 1
    assert mean_relative_accuracy("-9", "-10") == 0.9
    assert mean_relative_accuracy("0.01", "0") == 0
    assert mean_relative_accuracy("1e999", "10") == 0
    assert mean_relative_accuracy("1e999", "1e-999") == 0
    assert mean_relative_accuracy("ten", "10 meters") == 1
    assert mean_relative_accuracy("10 or 11", "10") == 0


@pytest.mark.parametrize(
    ("answer", "overlap"),
    [
        ("[1, 4, 7]", 1),
        ("7, 4 and 1", 1),
        ("{1 4 7}", 1),
        ("[1, 4]", 2 / 3),
        ("[1, 4, 9]", 2 / 4),
        ("1", 1 / 3),
        ("[2, 3]", 0),
        ("1 to 9", 0),
        ("", 0),
        (", ".join(map(str, range(1, 31))), 3 / 30),
    ],
)
def test_sets_of_numbers_by_overlap(answer: str, overlap: float) -> None:
    assert route("[1, 4, 7]", source="tir-bench") == "set"
    assert grade_answer(answer, "[1, 4, 7]", "set") == overlap


def test_rule_goes_by_source() -> None:
    assert route("5", source="vsi_numerical") == "mra"
    assert route("5", source="VSI-Bench") == "mra"
    assert route("5", source="longvila_rule_verifiable") == "mra"
    assert route("A", source="vsi") == "choice"
    assert route("5", {"A": "5", "B": "6"}, source="vsi") == "choice"
    assert route("5", source="deepeyes") == "number"
    # of numbers in TIR-Bench only lists are sets
    assert route("5", source="tir-bench") == "number"
    # a small letter is no option where there is none
    assert route("a") == "text"
    assert route("a", YES_NO) == "choice"


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Is purple greater? Choices: (A) yes (B) no", YES_NO),
        ("Is it?\nA. yes\nB. no\nAnswer with the letter.", YES_NO),
        ("Is it?\nA) yes;\nB) no", YES_NO),
        ("Is it? Options: A: yes, B: no", YES_NO),
        ("Is (A) below (B)? (A) yes (B) no", YES_NO),
        ("Which?\nA. I. Newton\nB. A. Einstein", {"A": "I. Newton", "B": "A. Einstein"}),
        ("How far is A. Einstein from B?", {}),
        ("How many letters?", {}),
        ("", {}),
    ],
)
def test_options_are_read_from_the_question(question: str, options: dict[str, str]) -> None:
    assert parse_options(question) == options


def test_clean_unwraps_only_what_wraps_all() -> None:
    assert clean("\\boxed{'$\\frac{1}{2}$'}") == "\\frac{1}{2}"
    assert clean("{a} and {b}") == "{a} and {b}"
    assert clean("$a$ or $b$") == "$a$ or $b$"
    assert clean("'" * 50) == clean("'" * 50)


QUESTION = "Which is it, 5 or 6? (A) five (B) six (C) seven (D) eight"
HOSTILE = [
    "",
    "   ",
    "'",
    "\\boxed{}",
    "{}",
    "()",
    ".",
    "A, B, C, D",
    "ABCD",
    "A/B/C/D",
    "(A)(B)(C)(D)",
    "A or B",
    "A. B. C. D.",
    "all of them",
    "any",
    QUESTION,
    "(A) five (B) six (C) seven (D) eight",
    "<answer>B</answer>",
    "</answer>",
    "\u0412",  # a Cyrillic letter that looks like B
    "\u200bB\u200b or A",
    "\ud800",
    "\0",
    "x" * 1000,
    "B" * 999,
    "B " * 499,
    "{" * 999,
    "\\frac{" * 150,
    "^" * 100,
    "9^9^9^9^9^9",
    "\\sqrt{" * 30 + "2" + "}" * 30,
    "1e999999",
    "10**10**10",
    "-",
    "%",
    "=",
    "1/0",
    "\\frac{1}{0}",
    "None",
    "1,2,3,4,5,6,7,8,9,10",
]


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_score_nothing(answer: str) -> None:
    options = parse_options(QUESTION)
    for gold in ("A", "B", "C", "D", "six"):
        assert grade_answer(answer, gold, options=options) == 0
        assert grade_answer(answer, gold) == 0
    for gold in ("5", "0.25", "x = 2", "White", "No", "\\frac{1}{3}", "(1,2)"):
        assert grade_answer(answer, gold) == 0
        assert grade_answer(answer, gold, "mra") == 0
        assert grade_answer(answer, gold, "set") < RIGHT_FROM
    for gold in ("3 1 4 2", "5", "B"):
        assert grade_answer(answer, gold, "sequence") == 0


@pytest.mark.parametrize("end", ["", "x", "= ?"])
def test_a_long_row_of_differences_is_graded_at_once(end: str) -> None:
    # 2**40 ways to share the blanks out would never be tried in the time of a test run.
    answer = "1 - " * 40 + end
    assert route(answer) in ("math", "text")
    assert grade_answer(answer, "5") == 0


@given(st.text(), st.text(), st.dictionaries(st.sampled_from("ABCD"), st.text()))
def test_any_text_gets_a_grade(answer: str, gold: str, options: dict[str, str]) -> None:
    for rule in ("choice", "number", "text", "mra", "set", "sequence"):
        assert 0 <= grade_answer(answer, gold, rule, options) <= 1


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_whole_numbers_are_right_only_when_equal(given_number: int, gold: int) -> None:
    assert grade_answer(str(given_number), str(gold)) == (given_number == gold)
    assert grade_answer(f"{gold:,}", str(gold)) == 1


@given(st.text("ABCD ,./()or", max_size=12))
def test_at_most_one_letter_is_right(answer: str) -> None:
    assert sum(grade_answer(answer, letter) for letter in "ABCD") <= 1
