"""Episodes on all machines: actors with a sandbox pool each, which play whole groups."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from transformers import AutoConfig

from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.distributed.mapping import model_path
from pyvision_rl.distributed.sampler import SamplerClient, VerlEngine
from pyvision_rl.errors import InputError, PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.loading import never_written
from pyvision_rl.rl.train import Play
from pyvision_rl.rollout.episode import Agent
from pyvision_rl.rollout.group import run_group
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.types import Task, Trajectory

MAX_DEATHS = 2
"""How often the player of a group may die; Ray starts it anew and hands it the group again."""


class Player:
    """One process that plays groups. All that may fail is done with the first group, so that it is
    raised there, and done again where the process is a new one."""

    def __init__(self, config: DistributedConfig, client: SamplerClient, folder: Path) -> None:
        """`folder` is what relative paths start from, on every machine the same."""
        self.config = config
        self.client = client
        self.folder = folder
        self._stack = AsyncExitStack()
        self._opened: Agent | None = None
        self._opening = asyncio.Lock()

    async def play(self, task: Task, seed: int) -> tuple[Trajectory, ...]:
        """A group of one task."""
        async with self._opening:
            agent = self._opened = self._opened or await self._open()
        return await run_group(agent, task, self.config.group_size, seed)

    async def close(self) -> None:
        """End the sandbox pool."""
        await self._stack.aclose()

    async def _open(self) -> Agent:
        go_to(self.folder)
        model = model_path(self.config)
        codec = ChatCodec.from_folder(model, self.config.policy.pixels)
        vocabulary = AutoConfig.from_pretrained(model).get_text_config().vocab_size
        engine = VerlEngine(self.client, codec, never_written(codec, vocabulary))
        sandbox = self.config.agent.sandbox
        share = max(1, len(os.sched_getaffinity(0)) // self.config.verl.players_per_node)
        pool = SandboxPool(replace(sandbox, max_running=sandbox.max_running or share))
        await self._stack.enter_async_context(pool)
        return Agent(engine, codec, pool, self.config.agent.rollout)


@asynccontextmanager
async def open_players(
    config: DistributedConfig, client: SamplerClient, folder: Path
) -> AsyncIterator[Play]:
    """Start players on every machine; what is yielded gives them groups in turn."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]
    # Held here, since a player that is restarted reads them again.
    held = [ray.put(config), ray.put(client)]
    players = [
        ray.remote(Player)
        .options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=MAX_DEATHS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
        )
        .remote(*held, folder)
        # Machine by machine, so that neighbours in the turn are on different ones.
        for _ in range(config.verl.players_per_node)
        for node in nodes
    ]
    turns = itertools.cycle(players)
    try:
        yield lambda task, seed: play_at(next(turns), task, seed)
    finally:
        await asyncio.gather(*(player.close.remote() for player in players), return_exceptions=True)


async def play_at(player: ActorHandle, task: Task, seed: int) -> tuple[Trajectory, ...]:
    """Play at one player. What an episode raises is raised as it was there."""
    try:
        return await player.play.remote(task, seed)
    except RayTaskError as error:
        raise error.cause from None
    except RayActorError as error:
        raise PyVisionError(f"task {task.id}: its player died {MAX_DEATHS + 1} times") from error


def go_to(folder: Path) -> None:
    """Make `folder` the one that relative paths start from."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: not a folder on {os.uname().nodename}; all machines must share it"
        ) from error
