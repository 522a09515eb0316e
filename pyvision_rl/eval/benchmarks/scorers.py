"""Graders that several benchmarks share."""

from __future__ import annotations

from pyvision_rl.eval.benchmarks.item import BenchmarkItem, Response, Scorer
from pyvision_rl.eval.benchmarks.options import option_in
from pyvision_rl.reward.rules import grade_answer


def grade_by_rules(item: BenchmarkItem, response: Response) -> float:
    """The reward's rules on the answer block: letter, number, text or formula."""
    if response.answer is None:
        return 0.0
    rule = "choice" if item.options else "auto"
    return grade_answer(response.answer, item.task.answer, rule, item.options)


def grade_letter(item: BenchmarkItem, response: Response) -> float:
    """The option's letter, else its words, in the answer or, without one, in the last text."""
    return float(option_in(response.stated, item.options) == item.task.answer)


RULES = Scorer("rules on the answer block", grade_by_rules)
LETTER = Scorer("letter or words of an option found in the answer", grade_letter)
