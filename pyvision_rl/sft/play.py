"""Scripted conversations, played in the real sandbox, as a file of cold-start traces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyvision_rl.data.needle import TraceTurn
from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.rollout.group import run_together
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.traces import TraceSource, write_traces
from pyvision_rl.types import StopReason, Task, Trajectory

_AT_ONCE = 32
_TRIES = 3
"""A loaded machine may stop a program that is fine."""


async def play_traces(
    folder: Path,
    tasks: Sequence[Task],
    scripts: Mapping[str, Sequence[TraceTurn]],
    codec: ChatCodec,
    pool: SandboxPool,
    rollout: RolloutConfig,
    seed: int,
) -> Path:
    """Play every task once as its script (by task id) says, and write the traces.

    Raises PyVisionError where a script does not reach its answer, or a program of it fails.
    """
    texts = {task_id: [turn.text for turn in script] for task_id, script in scripts.items()}
    agent = Agent(play_texts(codec, texts), codec, pool, rollout)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def play(task: Task) -> TraceSource:
        async with slots:
            trajectory = await _play(agent, task, seed)
        return TraceSource(trajectory, tuple(turn.hidden for turn in scripts[task.id]))

    return write_traces(folder, await run_together(map(play, tasks)))


async def _play(agent: Agent, task: Task, seed: int) -> Trajectory:
    ended = ""
    for _ in range(_TRIES):
        played = await run_episode(agent, open_task(agent, task), seed)
        num_failed = played.num_tool_calls - played.num_ok_tool_calls
        if played.stop is StopReason.ANSWERED and not num_failed:
            return played
        ended = f"{played.stop} with {num_failed} failed programs"
    raise PyVisionError(f"task {task.id}: its script ended as {ended}")
