"""The evaluation stage: a checkpoint and tasks in, a report and records in a run folder out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyvision_rl.data.bad_rows import BadRows
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.eval.evaluate import EvaluateConfig, OnTask, Progress, play_tasks
from pyvision_rl.eval.report import Report, report_items
from pyvision_rl.eval.store import ItemStore
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.reward.declared import check_rules
from pyvision_rl.reward.grading import StageGrader, open_grader
from pyvision_rl.reward.judge_config import MAY_CHANGE as JUDGE_MAY_CHANGE
from pyvision_rl.reward.judge_config import JudgeConfig, JudgeStats
from pyvision_rl.reward.reward import RewardConfig, score_group_by
from pyvision_rl.rollout.agent import AgentConfig, open_agent
from pyvision_rl.rollout.episode import Agent
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.setup import load_setup
from pyvision_rl.runs import PROMPT, SETUP, VIDEO_PROMPT, RunFolder
from pyvision_rl.runs.config import dump_config, resolve_model
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.types import Task, Trajectory

MAY_CHANGE = ("limit", "max_bad_rows", "evaluate.max_tasks", "judge.cache", *JUDGE_MAY_CHANGE)
"""What a resumed evaluation may have otherwise: nothing of it changes a played task."""


@dataclass(frozen=True)
class EvalConfig:
    """Accuracy of a policy on tasks, and how it got there."""

    policy: PolicyConfig
    """The checkpoint to evaluate."""
    data: str
    """Task file (json, jsonl or Parquet)."""
    out: str
    """Run folder; one that holds this very evaluation is resumed."""
    image_root: str = ""
    """Folder that relative media paths start from; empty: the task file's own."""
    limit: int = 0
    """Play the first tasks only; 0 is all."""
    max_bad_rows: int = 16
    """Tasks that are skipped where a file that was there at the start cannot be read any more; one
    more ends the evaluation. Counted anew at each start."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Engine, sandbox, limits and sampling."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """How answers are graded."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """A language model that judges free-text answers which the rules find wrong."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Samples per task and the seed."""

    def __post_init__(self) -> None:
        if self.limit < 0 or self.max_bad_rows < 0:
            raise ConfigError(
                f"eval: limit is {self.limit} and max_bad_rows {self.max_bad_rows}; neither may "
                "be negative"
            )


async def run_eval(config: EvalConfig, on_task: OnTask, pool: SandboxPool | None = None) -> Report:
    """Play what is not played yet, and record it; the report is written to summary.json too.

    Finished tasks are kept at once, so that a call after a kill goes on where it stood. A `pool`
    that runs already is used instead of one of its own.
    """
    tasks = read_tasks(
        config.data, image_root=config.image_root or None, limit=config.limit or None
    )
    if not tasks:
        raise InputError(f"{config.data}: has no rows")
    check_rules(tasks, config.reward.rule, has_judge=bool(config.judge.model))
    # A run folder's newest checkpoint may be another one when this evaluation is resumed.
    policy = replace(config.policy, model=resolve_model(config.policy.model))
    config = replace(config, policy=policy)
    rollout = config.agent.rollout
    template, video_template = load_template(rollout.prompt), load_template(rollout.video.template)
    setup = load_setup(rollout.setup)
    with RunFolder.create(
        Path(config.out), dump_config(config), resume=True, may_change=MAY_CHANGE
    ) as run:
        run.keep_text(PROMPT, template)
        run.keep_text(VIDEO_PROMPT, video_template)
        run.keep_text(SETUP, setup)
        store = ItemStore(run, "eval")
        store.check(tasks)
        left = [task for task in tasks if task.id not in store.done]
        if left:
            async with (
                open_grader(config.reward, config.judge, run.path) as grader,
                open_agent(Policy.load(policy), config.agent, pool) as agent,
            ):
                progress = Progress(on_task, len(tasks) - len(left), len(tasks))
                await _play(config, agent, grader, left, store, progress)
        return _finish(config, tasks, store, run)


async def _play(
    config: EvalConfig,
    agent: Agent,
    grader: StageGrader,
    tasks: Sequence[Task],
    store: ItemStore,
    progress: Progress,
) -> None:
    async def finish(task: Task, trajectories: tuple[Trajectory, ...], seconds: float) -> None:
        group = await score_group_by(grader, task, trajectories, config.reward)
        await store.add(group, seconds, grader.take_metrics())

    bad_rows = BadRows(config.max_bad_rows)
    await play_tasks(agent, tasks, config.evaluate, finish, progress, bad_rows)


def _finish(config: EvalConfig, tasks: Sequence[Task], store: ItemStore, run: RunFolder) -> Report:
    """The report over all starts of the run; whatever has no record was skipped."""
    items = [(task, store.records[task.id]) for task in tasks if task.id in store.records]
    if not items:
        raise InputError(f"{config.data}: the files of none of its {len(tasks)} tasks can be read")
    report = report_items(items, num_skipped=len(tasks) - len(items))
    judged = JudgeStats().metrics(config.judge) if config.judge.model else {}
    for key in judged:
        judged[key] = math.fsum(record.judged.get(key, 0.0) for _, record in items)
    run.drop_metrics()
    run.log(0, report.metrics() | judged)
    cost = {key.removeprefix("judge/"): number for key, number in judged.items()}
    run.write_summary({**report.as_dict(), "judge": cost} if cost else report.as_dict())
    return report
