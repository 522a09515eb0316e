"""Scripted conversations, played in the real sandbox, as a file of cold-start traces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyvision_rl.data.needle import TraceTurn
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.rollout.group import run_together
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.traces import TraceSource, write_traces
from pyvision_rl.types import Task

_AT_ONCE = 32


async def play_traces(
    folder: Path,
    tasks: Sequence[Task],
    scripts: Mapping[str, Sequence[TraceTurn]],
    codec: ChatCodec,
    pool: SandboxPool,
    rollout: RolloutConfig,
    seed: int,
) -> Path:
    """Play every task once as its script (by task id) says, and write the traces."""
    texts = {task_id: [turn.text for turn in script] for task_id, script in scripts.items()}
    agent = Agent(play_texts(codec, texts), codec, pool, rollout)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def play(task: Task) -> TraceSource:
        async with slots:
            trajectory = await run_episode(agent, open_task(agent, task), seed)
        return TraceSource(trajectory, tuple(turn.hidden for turn in scripts[task.id]))

    return write_traces(folder, await run_together(map(play, tasks)))
