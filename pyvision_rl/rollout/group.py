"""Groups of episodes: G tries at one task, side by side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import TypeVar

from pyvision_rl.rollout.episode import Agent, Opening, open_task, run_episode
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.rollout.shared_cells import SharedCells
from pyvision_rl.types import StopReason, Task, Trajectory

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def run_together(jobs: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Results in order; the first error cancels the other jobs and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as running:
            tasks = [running.create_task(job) for job in jobs]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group
    return [task.result() for task in tasks]


async def run_group(agent: Agent, task: Task, group_size: int, seed: int) -> tuple[Trajectory, ...]:
    """Play `group_size` episodes of a task at once; each has a seed of its own.

    A lost sandbox is tried again once, with the same seed; lost again, the trajectory stays in the
    group as SANDBOX_LOST and counts for nothing. Media are read here and now, not in a thread: who
    samples beside whom, where a barrier decides it, may not depend on how long that takes.
    """
    return await play_group(agent, open_task(agent, task), group_size, seed)


async def play_group(
    agent: Agent, opening: Opening, group_size: int, seed: int
) -> tuple[Trajectory, ...]:
    """As `run_group`, of a task that has been opened."""
    num_tokens, most = len(opening.prompt.token_ids), agent.config.max_tokens
    if num_tokens >= most:
        logger.warning(
            "task %s: its prompt has %d tokens, max_tokens is %d: it is not played",
            opening.task.id,
            num_tokens,
            most,
        )
    if agent.config.share_cells and group_size > 1:
        cells = SharedCells(agent.pool, derive_seed(seed, "runtime"), group_size)
        agent = replace(agent, pool=cells)
    members = (_run_member(agent, opening, derive_seed(seed, index)) for index in range(group_size))
    return tuple(await run_together(members))


async def _run_member(agent: Agent, opening: Opening, seed: int) -> Trajectory:
    trajectory = await run_episode(agent, opening, seed)
    if trajectory.stop is StopReason.SANDBOX_LOST:
        logger.warning("task %s: the sandbox was lost, trying again", opening.task.id)
        trajectory = await run_episode(agent, opening, seed)
    return trajectory
