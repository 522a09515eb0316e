"""Playing tasks to see how good an agent is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyvision_rl.errors import ConfigError
from pyvision_rl.reward.reward import Grader, RewardConfig, RuleGrader, score_group_by
from pyvision_rl.rollout.episode import Agent
from pyvision_rl.rollout.group import run_group, run_together
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.types import Group, Task

OnTask = Callable[[int, int], None]
"""Called after every task with the number done and the number in all."""


@dataclass(frozen=True)
class EvaluateConfig:
    """How tasks are played for an evaluation."""

    num_samples: int = 1
    """Trajectories per task; accuracy is their mean (avg@k)."""
    max_tasks: int = 64
    """Tasks in flight at once; their images are in memory."""
    seed: int = 0
    """Decides sampling; each task's seed depends on its id, not on its place."""

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.max_tasks < 1:
            raise ConfigError("evaluate: num_samples and max_tasks must be at least 1")


async def evaluate(
    agent: Agent,
    tasks: Sequence[Task],
    reward: RewardConfig,
    config: EvaluateConfig,
    on_task: OnTask,
    grader: Grader | None = None,
) -> list[Group]:
    """Play every task `num_samples` times and score it, by the rules where no `grader` is given;
    groups come in the order of the tasks.
    """
    judge = grader or RuleGrader(reward.rule)
    slots = asyncio.Semaphore(config.max_tasks)
    done = 0

    async def play(task: Task) -> Group:
        nonlocal done
        async with slots:
            seed = derive_seed(config.seed, "eval", task.id)
            trajectories = await run_group(agent, task, config.num_samples, seed)
            group = await score_group_by(judge, task, trajectories, reward)
        done += 1
        on_task(done, len(tasks))
        return group

    return await run_together(map(play, tasks))
