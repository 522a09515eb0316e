"""Which rule grades a task: the one that its row declares, the run's, or the one that fits; and
rules of the user's own beside the built-in ones.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from math import nan
from typing import get_args

from pyvision_rl.data.readers import RULE_NAMES
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.reward.options import parse_options
from pyvision_rl.reward.rules import MAX_ANSWER_CHARS, Rule, can_grade, grade_answer, route
from pyvision_rl.types import Task

OwnRule = Callable[[Task, str], float]
"""A rule of the user's: task and answer in, accuracy from 0 to 1 out. Called from threads."""

_BUILT_IN: dict[str, Rule] = {rule: rule for rule in get_args(Rule)}
_own: dict[str, OwnRule] = {}
NO_JUDGE = "needs a judge: set judge.model"


def register_rule(name: str, grade: OwnRule) -> None:
    """Make a rule of one's own known as `name`, for the rows of data files and for `reward.rule`.

    It is not asked about empty answers and those of 1,000 characters or more: no rule takes them
    for right. Raises ConfigError for a name that is taken.
    """
    if not name.isidentifier() or name in RULE_NAMES:
        taken = ", ".join(sorted(RULE_NAMES))
        raise ConfigError(f"rule {name!r}: must be a new name such as box_iou; taken are {taken}")
    _own[name] = grade
    RULE_NAMES.add(name)


def own_rules() -> Mapping[str, OwnRule]:
    """The rules that were registered, for a process that is to know them too."""
    return dict(_own)


def declared_rule(task: Task, default: str = "auto") -> str:
    """The rule that the task's row declares, else `default`."""
    return default if task.rule == "auto" else task.rule


def check_rules(tasks: Iterable[Task], default: str, has_judge: bool) -> None:
    """Find a task that cannot be graded before anything is played: one for a judge where none is
    set, or one whose rule needs a number that its answer has not. Raises InputError for the first.
    """
    for task in tasks:
        name = declared_rule(task, default)
        if name == "judge" and not has_judge:
            raise InputError(f"task {task.id}: its rule 'judge' {NO_JUDGE}")
        if name in _BUILT_IN and not can_grade(_BUILT_IN[name], task.answer):
            raise InputError(
                f"task {task.id}: its rule {name!r} needs numbers, its answer is {task.answer!r}"
            )


def grade_task(task: Task, answer: str, default: str = "auto") -> float:
    """Accuracy of an answer by the rule of the task's row, else by `default`; where that is "auto",
    by the rule that `route` finds. Options are read from the task's question.

    Raises InputError for a rule that cannot grade: an unknown one, "judge" where none is set, an
    own one that raises or gives no number from 0 to 1.
    """
    name = declared_rule(task, default)
    if own := _own.get(name):
        return _grade_own(name, own, task, answer)
    if name not in _BUILT_IN:
        why = NO_JUDGE if name == "judge" else "is not known"
        raise InputError(f"task {task.id}: its rule {name!r} {why}")
    rule, options = _BUILT_IN[name], parse_options(task.question)
    if rule == "auto":
        rule = route(task.answer, options, task.source)
    return grade_answer(answer, task.answer, rule, options)


def _grade_own(name: str, own: OwnRule, task: Task, answer: str) -> float:
    if not answer.strip() or len(answer) >= MAX_ANSWER_CHARS:
        return 0.0
    try:
        accuracy = own(task, answer)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"task {task.id}: rule {name!r} failed in {place.filename}, line {place.lineno}: {said}"
        ) from error
    try:
        number = float(accuracy)
    except (TypeError, ValueError):
        number = nan
    if not 0 <= number <= 1:
        raise InputError(f"task {task.id}: rule {name!r} gave {accuracy}; must be from 0 to 1")
    return number
