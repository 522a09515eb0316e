"""No text that a policy may write makes a scorer raise, or leaves [0, 1]."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvision_rl.eval.benchmarks.item import BenchmarkItem, Response
from pyvision_rl.eval.benchmarks.registry import BENCHMARKS
from pyvision_rl.types import Task

LETTERS = {"A": "7", "B": "(1, 2)", "C": "\\frac{1}{2}"}
ITEMS = (
    ("B", LETTERS, "choice"),
    ("B", LETTERS, "multi-choice"),
    ("B", LETTERS, "multiple choice"),
    ("3.5", {}, "float"),
    ("3", {}, "number"),
    ("(1, 2)", {}, "value"),
    ("even", {}, "text"),
    ("even", {}, "free-form"),
    ("(3, 7)", {}, "word_search"),
    ("1, 2", {}, "spot_difference"),
    ("1 2 3", {}, "jigsaw"),
    ("mobi", {}, "ocr"),
    ("12", {}, "int"),
)
SCORERS = {
    scorer: f"{name}-{protocol}"
    for name, benchmark in BENCHMARKS.items()
    for protocol, scorer in benchmark.scorers.items()
}
HOSTILE = (
    "",
    " ",
    "{" * 100_000 + "}" * 100_000,
    "9" * 10_000,
    "1e999",
    "-inf",
    "nan",
    "(" * 5_000 + "," + ")" * 5_000,
    "2^" * 200 + "2",
    "\\frac" * 150,
    "\x00",
    "\ud800",
    "A " * 50_000,
    '{"short answer": {"a": 1}}',
)


def grades(scorer, text):
    for answer in (text, None):
        for gold, options, kind in ITEMS:
            item = BenchmarkItem(Task("t", "?", gold), options, kind)
            yield scorer.grade(item, Response(answer, text))


@pytest.mark.parametrize("scorer", SCORERS, ids=SCORERS.values())
def test_hostile_texts(scorer):
    for text in HOSTILE:
        assert all(0 <= grade <= 1 for grade in grades(scorer, text))


@given(st.text(alphabet="ABC0123456789.,()[]{}\\ ^/-+e fracsqrt\n", max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text(text):
    for scorer, name in SCORERS.items():
        # The reward's rules, which start a worker process, have tests of their own.
        if not (name.endswith("-paper") and scorer.name.startswith("rules")):
            assert all(0 <= grade <= 1 for grade in grades(scorer, text))
