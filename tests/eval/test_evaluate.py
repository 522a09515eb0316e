"""Tasks played for an evaluation: by whom they are sampled depends on nothing but their id."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

from pyvision_rl.eval.evaluate import EvaluateConfig, evaluate
from pyvision_rl.model.scripted import ScriptedEngine
from pyvision_rl.reward.reward import RewardConfig
from pyvision_rl.rollout.episode import Agent, RolloutConfig
from pyvision_rl.sandbox import CellResult
from pyvision_rl.types import Group, Task

TASKS = [Task(name, "Which digit?", "7") for name in ("a", "b", "c")]


class NoPool:
    """Runtimes for episodes that call no tool."""

    @asynccontextmanager
    async def runtime(self, *, images, videos, seed):
        yield self

    async def run(self, code: str) -> CellResult:
        raise AssertionError(code)


def played(codec, tasks: list[Task], config: EvaluateConfig) -> list[Group]:
    """Task b gets a wrong answer."""
    engine = ScriptedEngine(codec, lambda c: f"<answer>{8 if c.id == 'b' else 7}</answer>")
    agent = Agent(engine, codec, NoPool(), RolloutConfig(prompt="brief", max_tool_calls=0))
    counts: list[tuple[int, int]] = []
    told = counts.append
    groups = asyncio.run(
        evaluate(agent, tasks, RewardConfig(), config, lambda done, of: told((done, of)))
    )
    assert counts == [(done, len(tasks)) for done in range(1, len(tasks) + 1)]
    return groups


def test_seeds_depend_on_the_task_and_the_sample_alone(codec):
    config = EvaluateConfig(num_samples=2, seed=3)
    groups = played(codec, TASKS, config)
    assert [group.task for group in groups] == TASKS
    assert [group.reward_mean for group in groups] == [1.0, 0.0, 1.0]

    def seeds(groups: list[Group]) -> dict[str, list[int]]:
        return {group.task.id: [t.seed for t in group.trajectories] for group in groups}

    first = seeds(groups)
    assert len({seed for members in first.values() for seed in members}) == 6
    # one at a time, in another order, without a
    assert seeds(played(codec, TASKS[:0:-1], replace(config, max_tasks=1))) == {
        name: first[name] for name in ("c", "b")
    }
    assert seeds(played(codec, TASKS, replace(config, seed=4))) != first
