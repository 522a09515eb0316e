"""Groups of episodes: G tries at one task, side by side."""

from __future__ import annotations

import asyncio
import logging

from pyvision_rl.rollout.episode import Agent, Opening, open_task, run_episode
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.types import StopReason, Task, Trajectory

logger = logging.getLogger(__name__)


async def run_group(agent: Agent, task: Task, group_size: int, seed: int) -> tuple[Trajectory, ...]:
    """Play `group_size` episodes of a task at once; the first failing one cancels the others.

    A lost sandbox is tried again once, with the same seed; lost again, the trajectory stays in the
    group as SANDBOX_LOST and counts for nothing.
    """
    opening = open_task(agent, task)
    async with asyncio.TaskGroup() as episodes:
        runs = [
            episodes.create_task(_run_member(agent, opening, derive_seed(seed, index)))
            for index in range(group_size)
        ]
    return tuple(run.result() for run in runs)


async def _run_member(agent: Agent, opening: Opening, seed: int) -> Trajectory:
    trajectory = await run_episode(agent, opening, seed)
    if trajectory.stop is StopReason.SANDBOX_LOST:
        logger.warning("task %s: the sandbox was lost, trying again", opening.task.id)
        trajectory = await run_episode(agent, opening, seed)
    return trajectory
