"""How the policy does on unseen tasks while it learns to imitate: does it keep to the format, and
is it right?
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean

from pyvision_rl.data.readers import read_tasks
from pyvision_rl.errors import ConfigError, MediaError
from pyvision_rl.model.policy import Policy
from pyvision_rl.reward.declared import check_rules
from pyvision_rl.reward.reward import RewardConfig, score_group
from pyvision_rl.rollout.agent import AgentConfig, open_agent
from pyvision_rl.rollout.group import run_group, run_together
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.types import Group, StopReason, Task, Trajectory

logger = logging.getLogger(__name__)

MALFORMED = frozenset({StopReason.NO_ACTION, StopReason.MAX_TOKENS})
"""Endings of a trajectory in which a turn was neither a program nor an answer, or never ended."""


@dataclass(frozen=True)
class UnseenConfig:
    """Tasks that are played during the cold start."""

    data: str = ""
    """Task file; empty: nothing is played."""
    image_root: str = ""
    """Folder that relative media paths start from; empty: the task file's own."""
    limit: int = 64
    """Play the first tasks only; 0 is all."""
    every: int = 0
    """Steps between two times; the last step always has one, and with 0 it alone."""
    max_tasks: int = 32
    """Tasks in flight at once."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Engine, sandbox, prompt and limits."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """How answers are graded."""

    def __post_init__(self) -> None:
        if self.limit < 0 or self.every < 0 or self.max_tasks < 1:
            raise ConfigError("unseen: limit and every must not be negative, max_tasks at least 1")


class Unseen:
    """The tasks, read once. Raises InputError at once for what could not be played later."""

    def __init__(self, config: UnseenConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.tasks: Sequence[Task] = ()
        if config.data:
            root, limit = config.image_root or None, config.limit or None
            self.tasks = read_tasks(config.data, image_root=root, limit=limit)
            check_rules(self.tasks, config.reward.rule, has_judge=False)
            load_template(config.agent.rollout.prompt)

    def is_due(self, step: int, last: int) -> bool:
        """Whether the tasks are played after `step`."""
        every = self.config.every
        return bool(self.tasks) and (step == last or (every > 0 and step % every == 0))

    def play(self, policy: Policy) -> dict[str, float]:
        """Metrics `eval/...` of one trajectory a task; the same seeds each time. A task whose media
        cannot be read any more is left out, with a warning.

        In a thread of its own: the caller may itself be called from an event loop.
        """
        with ThreadPoolExecutor(1) as thread:
            groups = thread.submit(asyncio.run, self._play(policy)).result()
        return unseen_metrics(groups)

    async def _play(self, policy: Policy) -> list[Group]:
        slots = asyncio.Semaphore(self.config.max_tasks)
        async with open_agent(policy, self.config.agent) as agent:

            async def play(task: Task) -> Group | None:
                async with slots:
                    seed = derive_seed(self.seed, "unseen", task.id)
                    try:
                        trajectories = await run_group(agent, task, 1, seed)
                    except MediaError as error:
                        logger.warning("task %s is not played: %s", task.id, error)
                        return None
                return await asyncio.to_thread(score_group, task, trajectories, self.config.reward)

            groups = await run_together(map(play, self.tasks))
        return [group for group in groups if group is not None]


def unseen_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the trajectories; none of lost sandboxes, which say nothing of the policy.

    `eval/format` is the share whose every turn was a program or an answer.
    """
    played = [(g.trajectories[index], g.rewards[index]) for g in groups for index in g.counted]
    if not played:
        return {}
    trajectories: list[Trajectory] = [trajectory for trajectory, _ in played]
    return {
        "eval/accuracy": fmean(reward.accuracy for _, reward in played),
        "eval/format": fmean(t.stop not in MALFORMED for t in trajectories),
        "eval/tool_calls_mean": fmean(t.num_tool_calls for t in trajectories),
        "eval/zero_call_share": fmean(t.num_tool_calls == 0 for t in trajectories),
    }
