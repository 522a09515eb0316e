"""Rules that a row declares, and rules of the user's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from pyvision_rl.data.readers import RULE_NAMES
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.reward import RewardConfig, declared, grade_task, register_rule, score_group
from pyvision_rl.reward.declared import check_rules, own_rules
from pyvision_rl.reward.rules import Rule
from pyvision_rl.types import Completion, Observation, StopReason, Task, Trajectory, Turn


@pytest.fixture
def _forget_own_rules() -> Iterator[None]:
    before = set(RULE_NAMES)
    yield
    for name in RULE_NAMES - before:
        RULE_NAMES.discard(name)
        declared._own.pop(name)


def task(answer: str, rule: str = "auto", source: str = "", question: str = "?") -> Task:
    return Task("t", question, answer, source=source, rule=rule)


def accuracies(played: Task, *answers: str | None, default: str = "auto") -> list[float]:
    """What `score_group` pays for answers, each after one tool call that ran."""
    prompt = Observation((1,), "", (), 0)
    turns = (
        Turn(Completion((1,), (0.0,), "", "stop"), prompt),
        Turn(Completion((1,), (0.0,), "", "stop"), None),
    )
    members = [Trajectory(played, prompt, turns, StopReason.ANSWERED, text) for text in answers]
    group = score_group(played, members, RewardConfig(rule=default))
    for reward in group.rewards:
        assert reward.tool == (0.1 if reward.accuracy >= 0.5 else 0.0)
    return [reward.accuracy for reward in group.rewards]


def test_every_built_in_rule_can_be_declared() -> None:
    assert {*get_args(Rule), "judge"} == RULE_NAMES


def test_the_row_goes_before_the_run_and_the_run_before_the_route() -> None:
    assert accuracies(task("4"), "3") == [0.0]
    assert accuracies(task("4"), "3", default="mra") == [0.6]
    assert accuracies(task("4", "mra"), "3", default="number") == [0.6]
    assert accuracies(task("4", "number", source="vsi_numerical"), "3", "4.0") == [0.0, 1.0]
    assert accuracies(task("4", "text"), "4.0", "4") == [0.0, 1.0]


def test_the_sets_of_tir_bench_through_score_group() -> None:
    """Gold {2, 5, 9}: two of three is 2/3; {2, 5, 9, 11} is 3/4; all four corners of a guess."""
    for played in (task("2, 5, 9", source="tirbench"), task("[2, 5, 9]", "set")):
        given = ("9 5 2", "2, 5", "2, 5, 9, 11", "[2]", "7", "2, 5, many", "", None)
        expected = [1.0, 2 / 3, 0.75, 1 / 3, 0.0, 0.0, 0.0, 0.0]
        assert accuracies(played, *given) == expected


def test_the_places_of_tir_benchs_jigsaw_through_score_group() -> None:
    """Gold 3 1 4 2: two tiles in place are 0.5; a list that is longer is several guesses."""
    played = task("3 1 4 2", "sequence")
    given = ("3, 1, 4, 2", "3 1 2 4", "1 3 2 4", "3 1", "3 1 4 2 3 1 2 4", "three")
    assert accuracies(played, *given) == [1.0, 0.5, 0.0, 0.5, 0.0, 0.0]


@pytest.mark.usefixtures("_forget_own_rules")
def test_a_rule_of_ones_own() -> None:
    def within_one(asked: Task, answer: str) -> float:
        return 1.0 if abs(int(answer) - int(asked.answer)) <= 1 else 0.25

    register_rule("within_one", within_one)
    assert accuracies(task("4", "within_one"), "5", "7", "", "1" * 1000) == [1.0, 0.25, 0.0, 0.0]
    assert accuracies(task("4"), "3", default="within_one") == [1.0]
    for taken in ("within_one", "auto", "judge", "", "two words"):
        with pytest.raises(ConfigError, match=f"^rule '{taken}': must be a new name such as"):
            register_rule(taken, within_one)


@pytest.mark.usefixtures("_forget_own_rules")
@pytest.mark.parametrize("given", [1.1, -0.1, float("nan"), None, "right"])
def test_what_an_own_rule_gives_is_checked(given: Any) -> None:
    register_rule("odd", lambda asked, answer: given)
    with pytest.raises(InputError, match=r"^task t: rule 'odd' gave .*; must be from 0 to 1$"):
        grade_task(task("4", "odd"), "4")


@pytest.mark.usefixtures("_forget_own_rules")
def test_an_own_rule_that_raises_is_one_line() -> None:
    def broken(asked: Task, answer: str) -> float:
        raise ZeroDivisionError("no area\nat all")

    register_rule("broken", broken)
    with pytest.raises(
        InputError, match=r"^task t: rule 'broken' failed in .*line \d+: Z"
    ) as raised:
        grade_task(task("4", "broken"), "4")
    assert str(raised.value).endswith(": ZeroDivisionError: no area at all")
    assert Path(__file__).name in str(raised.value)
    assert own_rules()["broken"] is broken


def test_tasks_that_no_answer_can_solve_are_found_at_once() -> None:
    fine = [task("4", "mra"), task("4 m", "mra"), task("[1, 2]", "set"), task("red", "number")]
    check_rules([*fine, task("2 1", "sequence"), task("x", "judge")], "auto", has_judge=True)
    with pytest.raises(InputError, match=r"^task t: its rule 'judge' needs a judge: set judge"):
        check_rules([*fine, task("x", "judge")], "auto", has_judge=False)
    with pytest.raises(InputError, match="its rule 'judge' needs a judge"):
        check_rules([task("x")], "judge", has_judge=False)
    for rule, gold in (("mra", "far"), ("set", "1 to 4"), ("sequence", "left")):
        message = f"^task t: its rule '{rule}' needs numbers, its answer is '{gold}'$"
        with pytest.raises(InputError, match=message):
            check_rules([*fine, task(gold, rule)], "auto", has_judge=True)
        with pytest.raises(InputError, match=message):
            check_rules([task(gold)], rule, has_judge=True)


def test_rules_that_cannot_grade() -> None:
    with pytest.raises(InputError, match=r"^task t: its rule 'judge' needs a judge"):
        grade_task(task("4", "judge"), "4")
    with pytest.raises(InputError, match=r"^task t: its rule 'iou' is not known"):
        grade_task(task("4", "iou"), "4")
    with pytest.raises(ConfigError, match=r"^reward.rule: 'iou', there are auto, choice, judge"):
        RewardConfig(rule="iou")
