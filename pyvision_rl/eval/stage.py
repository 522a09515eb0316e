"""The evaluation stage: a checkpoint and tasks in, a report and records in a run folder out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pyvision_rl.data.readers import read_tasks
from pyvision_rl.eval.evaluate import EvaluateConfig, OnTask, evaluate
from pyvision_rl.eval.report import Report, make_report
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.reward.grading import open_grader
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.reward.reward import RewardConfig
from pyvision_rl.rollout.agent import AgentConfig, open_agent
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.setup import load_setup
from pyvision_rl.runs import PROMPT, SETUP, VIDEO_PROMPT, GroupRecord, RunFolder
from pyvision_rl.runs.config import dump_config, resolve_model
from pyvision_rl.sandbox import SandboxPool


@dataclass(frozen=True)
class EvalConfig:
    """Accuracy of a policy on tasks, and how it got there."""

    policy: PolicyConfig
    """The checkpoint to evaluate."""
    data: str
    """Task file (json, jsonl or Parquet)."""
    out: str
    """Run folder, a new one."""
    image_root: str = ""
    """Folder that relative media paths start from; empty: the task file's own."""
    limit: int = 0
    """Play the first tasks only; 0 is all."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Engine, sandbox, limits and sampling."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """How answers are graded."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """A language model that judges free-text answers which the rules find wrong."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Samples per task and the seed."""


async def run_eval(config: EvalConfig, on_task: OnTask, pool: SandboxPool | None = None) -> Report:
    """Evaluate and record every trajectory; the report is written to summary.json too.

    A `pool` that runs already is used instead of one of its own.
    """
    tasks = read_tasks(
        config.data, image_root=config.image_root or None, limit=config.limit or None
    )
    rollout = config.agent.rollout
    template, video_template = load_template(rollout.prompt), load_template(rollout.video.template)
    setup = load_setup(rollout.setup)
    with RunFolder.create(Path(config.out), dump_config(config)) as run:
        run.keep_text(PROMPT, template)
        run.keep_text(VIDEO_PROMPT, video_template)
        run.keep_text(SETUP, setup)
        policy = Policy.load(replace(config.policy, model=resolve_model(config.policy.model)))
        async with (
            open_grader(config.reward, config.judge, run.path) as grader,
            open_agent(policy, config.agent, pool) as agent,
        ):
            groups = await evaluate(agent, tasks, config.reward, config.evaluate, on_task, grader)
            judged = grader.take_metrics()
        report = make_report(groups)
        run.write_groups(0, "eval", [GroupRecord(group) for group in groups])
        run.log(0, report.metrics() | judged)
        cost = {key.removeprefix("judge/"): number for key, number in judged.items()}
        run.write_summary({**report.as_dict(), "judge": cost} if cost else report.as_dict())
    return report
