"""Playing tasks to see how good an agent is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pyvision_rl.data.bad_rows import BadRows
from pyvision_rl.errors import ConfigError, MediaError
from pyvision_rl.reward.reward import Grader, RewardConfig, RuleGrader, score_group_by
from pyvision_rl.rollout.episode import Agent
from pyvision_rl.rollout.group import run_group, run_together
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.types import Group, Task, Trajectory

T = TypeVar("T")

OnTask = Callable[[int, int], None]
"""Called after every task with the number done and the number in all."""

Finish = Callable[[Task, tuple[Trajectory, ...], float], Awaitable[T]]
"""What becomes of a task's trajectories, which took so many seconds; the task is done after it."""


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


@dataclass
class Progress:
    """How many of the tasks are done."""

    on_task: OnTask
    done: int
    total: int

    def advance(self) -> None:
        """One more is."""
        self.done += 1
        self.on_task(self.done, self.total)


async def evaluate(
    agent: Agent,
    tasks: Sequence[Task],
    reward: RewardConfig,
    config: EvaluateConfig,
    on_task: OnTask,
    grader: Grader | None = None,
) -> list[Group]:
    """Play every task `num_samples` times and score it, by the rules where no `grader` is given;
    groups come in the order of the tasks, and are held in memory.
    """
    judge = grader or RuleGrader(reward.rule)

    async def finish(task: Task, trajectories: tuple[Trajectory, ...], seconds: float) -> Group:
        return await score_group_by(judge, task, trajectories, reward)

    progress = Progress(on_task, 0, len(tasks))
    played = await play_tasks(agent, tasks, config, finish, progress)
    return [group for group in played if group is not None]


async def play_tasks(
    agent: Agent,
    tasks: Sequence[Task],
    config: EvaluateConfig,
    finish: Finish[T],
    progress: Progress,
    bad_rows: BadRows | None = None,
) -> list[T | None]:
    """Play every task `num_samples` times; what `finish` made of each, in order.

    A task whose files cannot be read any more is skipped (None) where `bad_rows` counts it, and
    otherwise ends everything with its MediaError.
    """
    slots = asyncio.Semaphore(config.max_tasks)

    async def play(task: Task) -> T | None:
        result = None
        async with slots:
            start = time.monotonic()
            seed = derive_seed(config.seed, "eval", task.id)
            try:
                trajectories = await run_group(agent, task, config.num_samples, seed)
            except MediaError as error:
                if bad_rows is None:
                    raise
                bad_rows.skip(task, error)
            else:
                result = await finish(task, trajectories, time.monotonic() - start)
        progress.advance()
        return result

    return await run_together(map(play, tasks))
