"""The reward of a trajectory (paper Sec. 3.2): R = accuracy + coef * tool calls * [right]."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pyvision_rl.data.readers import RULE_NAMES
from pyvision_rl.errors import ConfigError
from pyvision_rl.reward.declared import grade_task
from pyvision_rl.types import Group, Reward, StopReason, Task, Trajectory

RIGHT_FROM = 0.5
"""Accuracy from which an answer counts as right: partial credit (MRA) earns the tool reward too."""


@dataclass(frozen=True)
class RewardConfig:
    """What a trajectory is paid for."""

    tool_coef: float = 0.1
    """Reward for each tool call of a right answer."""
    count_failed_calls: bool = False
    """Pay for calls that ended in an error too, as the paper's code does."""
    rule: str = "auto"
    """How answers are graded where a row declares no `rule`: auto (by the task's source, options
    and gold answer), choice, number, text, math, mra, set, sequence, judge, or a registered one."""

    def __post_init__(self) -> None:
        if not 0 <= self.tool_coef <= 10:
            raise ConfigError(f"tool_coef = {self.tool_coef}; must be between 0 and 10")
        if self.rule not in RULE_NAMES:
            known = ", ".join(sorted(RULE_NAMES))
            raise ConfigError(f"reward.rule: {self.rule!r}, there are {known}")


class Grader(Protocol):
    """Anything that says how right an answer is: rules, or a judge behind a server."""

    async def grade(self, task: Task, answer: str) -> float:
        """Accuracy in [0, 1]. Raises PyVisionError rather than guess."""
        ...


@dataclass(frozen=True)
class RuleGrader:
    """The rules as a `Grader`."""

    rule: str = "auto"

    async def grade(self, task: Task, answer: str) -> float:
        """Accuracy by the rules, in a thread: a hard formula may take seconds."""
        return await asyncio.to_thread(grade_task, task, answer, self.rule)

    def take_metrics(self) -> dict[str, float]:
        """None: rules cost nothing."""
        return {}


def score(trajectory: Trajectory, config: RewardConfig) -> Reward:
    """The reward of one trajectory by the rules; a hard formula may take seconds."""
    if trajectory.answer is None or trajectory.stop is StopReason.SANDBOX_LOST:
        return Reward(0.0, 0.0)
    return make_reward(
        trajectory, grade_task(trajectory.task, trajectory.answer, config.rule), config
    )


def score_group(task: Task, trajectories: Sequence[Trajectory], config: RewardConfig) -> Group:
    """The trajectories of one task with their rewards by the rules."""
    rewards = tuple(score(trajectory, config) for trajectory in trajectories)
    return Group(task, tuple(trajectories), rewards)


async def score_by(grader: Grader, trajectory: Trajectory, config: RewardConfig) -> Reward:
    """The reward of one trajectory whose answer `grader` judges."""
    if trajectory.answer is None or trajectory.stop is StopReason.SANDBOX_LOST:
        return Reward(0.0, 0.0)
    return make_reward(trajectory, await grader.grade(trajectory.task, trajectory.answer), config)


async def score_group_by(
    grader: Grader, task: Task, trajectories: Sequence[Trajectory], config: RewardConfig
) -> Group:
    """The trajectories of one task with their rewards, judged at the same time by `grader`."""
    rewards = await asyncio.gather(
        *(score_by(grader, trajectory, config) for trajectory in trajectories)
    )
    return Group(task, tuple(trajectories), tuple(rewards))


def make_reward(trajectory: Trajectory, accuracy: float, config: RewardConfig) -> Reward:
    """The reward for an accuracy: the tool part is paid only where the answer is right."""
    if accuracy < RIGHT_FROM:
        return Reward(accuracy, 0.0)
    paid = trajectory.num_tool_calls if config.count_failed_calls else trajectory.num_ok_tool_calls
    return Reward(accuracy, config.tool_coef * paid)
