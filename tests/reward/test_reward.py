"""Rewards of whole trajectories, worked out by hand from R = accuracy + coef * calls * [right]."""

import asyncio

import pytest

from pyvision_rl.errors import ConfigError
from pyvision_rl.reward.reward import RewardConfig, RuleGrader, score, score_by, score_group
from pyvision_rl.types import Completion, Observation, StopReason, Task, Trajectory, Turn


def observation(ok: bool = True, text: str = "") -> Observation:
    return Observation(token_ids=(1,), text=text, images=(), num_visual_tokens=0, ok=ok)


def turn(seen: Observation | None) -> Turn:
    return Turn(Completion(token_ids=(1,), logprobs=(0.0,), text="", finish="stop"), seen)


def trajectory(
    answer: str | None,
    *calls: bool,
    gold: str = "4",
    source: str = "",
    stop: StopReason = StopReason.ANSWERED,
) -> Trajectory:
    task = Task("t", "How many?", gold, source=source)
    turns = (*(turn(observation(ok)) for ok in calls), turn(None))
    return Trajectory(task, observation(), turns, stop, answer)


def test_tool_calls_of_a_right_answer_are_paid() -> None:
    reward = score(trajectory("4", True, True, False), RewardConfig())
    assert (reward.accuracy, reward.tool) == (1.0, 0.2)
    assert reward.thousandths == 1200
    paid = score(trajectory("4", True, True, False), RewardConfig(count_failed_calls=True))
    assert paid.thousandths == 1300
    assert score(trajectory("4"), RewardConfig()).thousandths == 1000
    assert score(trajectory("4", True), RewardConfig(tool_coef=0.0)).thousandths == 1000


def test_wrong_or_missing_answers_earn_nothing() -> None:
    for answer in ("5", "", None):
        assert score(trajectory(answer, True, True), RewardConfig()).total == 0
    lost = trajectory("4", True, stop=StopReason.SANDBOX_LOST)
    assert score(lost, RewardConfig()).total == 0


def test_partial_credit_is_right_from_one_half() -> None:
    config = RewardConfig()
    near = score(trajectory("3", True, gold="4", source="vsi_numerical"), config)
    assert (near.accuracy, near.tool) == (0.6, 0.1)
    far = score(trajectory("1", True, gold="2", source="vsi_numerical"), config)
    assert (far.accuracy, far.tool) == (0.1, 0.0)


def test_the_rule_can_be_fixed() -> None:
    assert score(trajectory("3", gold="4"), RewardConfig(rule="mra")).accuracy == 0.6
    assert score(trajectory("4.0", gold="4"), RewardConfig(rule="text")).accuracy == 0
    vsi = trajectory("3", gold="4", source="vsi_numerical")
    assert score(vsi, RewardConfig(rule="number")).accuracy == 0


def test_answers_in_observations_are_not_looked_at() -> None:
    fake = turn(observation(text="<answer>\n\\boxed{4}\n</answer>"))
    task = Task("t", "How many?", "4")
    silent = Trajectory(task, observation(), (fake,), StopReason.MAX_TURNS, None)
    assert score(silent, RewardConfig()).total == 0


def test_options_come_from_the_question() -> None:
    task = Task("t", "What is it? (A) a cat (B) a dog", "B")
    for answer, right in (("dog", 1), ("B", 1), ("cat", 0), ("A. cat", 0)):
        judged = Trajectory(task, observation(), (turn(None),), StopReason.ANSWERED, answer)
        assert score(judged, RewardConfig()).accuracy == right


def test_a_lost_sandbox_is_left_out_of_the_group() -> None:
    lost = trajectory(None, stop=StopReason.SANDBOX_LOST)
    members = (trajectory("4"), trajectory("5"), lost)
    group = score_group(lost.task, members, RewardConfig())
    assert group.reward_mean == 0.5


def test_a_grader_can_replace_the_rules() -> None:
    class Generous:
        async def grade(self, task: Task, answer: str) -> float:
            return 1.0

    config = RewardConfig()
    assert asyncio.run(score_by(Generous(), trajectory("5", True), config)).thousandths == 1100
    assert asyncio.run(score_by(Generous(), trajectory(None, True), config)).total == 0
    assert asyncio.run(score_by(RuleGrader(), trajectory("5", True), config)).total == 0
    lost = trajectory("4", True, stop=StopReason.SANDBOX_LOST)
    assert asyncio.run(score_by(Generous(), lost, config)).total == 0
    near = trajectory("3", True, gold="4")
    assert asyncio.run(score_by(RuleGrader("mra"), near, config)).accuracy == 0.6


@pytest.mark.parametrize("coef", [-0.1, float("nan"), 11.0])
def test_bad_coefficients_are_refused(coef: float) -> None:
    with pytest.raises(ConfigError, match="tool_coef = "):
        RewardConfig(tool_coef=coef)
