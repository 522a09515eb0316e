"""Traces from a teacher: a model behind a server solves tasks in our sandbox, with our protocol,
and what it did well becomes cold-start data (paper Sec. 4.1 used GPT-4.1).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyvision_rl.data.bad_rows import BadRows
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.errors import ConfigError, MediaError
from pyvision_rl.model.server_config import ServerConfig
from pyvision_rl.model.server_engine import ServerEngine, TokenUsage
from pyvision_rl.reward.declared import check_rules
from pyvision_rl.reward.grading import StageGrader, open_grader
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.reward.reward import RewardConfig, score_by
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import Agent, open_task
from pyvision_rl.rollout.group import run_group, run_together
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.rollout.server_agent import open_server_agent
from pyvision_rl.rollout.setup import load_setup
from pyvision_rl.runs import PROMPT, SETUP, VIDEO_PROMPT, RunFolder
from pyvision_rl.runs.config import dump_config
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.attempts import KEPT, AttemptStore, KeepConfig, outcome_of
from pyvision_rl.types import Task, Trajectory

OnTask = Callable[[int, int], None]
"""Called after every task with the number done and the number in all."""

STUDENT_PROMPT = "student_prompt.txt"

MAY_CHANGE = (
    "limit",
    "max_tries",
    "max_episodes",
    "max_bad_rows",
    "budget.max_usd",
    "server",
    "endpoint.max_in_flight",
    "endpoint.timeout_s",
    "endpoint.max_retries",
    "endpoint.backoff_s",
)
"""What a resumed synthesis may have otherwise: nothing of it changes a finished attempt."""


@dataclass(frozen=True)
class BudgetConfig:
    """What the teacher costs, and how much it may."""

    usd_per_million_input: float = 0.0
    """Price of input tokens."""
    usd_per_million_output: float = 0.0
    """Price of output tokens."""
    max_usd: float = 0.0
    """Once this much is spent no further attempt starts, those under way end; 0: no limit."""

    def __post_init__(self) -> None:
        prices = (self.usd_per_million_input, self.usd_per_million_output)
        if min(*prices, self.max_usd) < 0:
            raise ConfigError("budget: prices and max_usd must not be negative")
        if self.max_usd and not any(prices):
            raise ConfigError("budget: max_usd needs usd_per_million_input or _output")

    def usd(self, usage: TokenUsage) -> float:
        """Cost of tokens at the prices."""
        paid_in = usage.num_input * self.usd_per_million_input
        return (paid_in + usage.num_output * self.usd_per_million_output) / 1e6


@dataclass(frozen=True)
class SynthesizeConfig:
    """A teacher behind a server solves tasks; its good attempts become SFT data."""

    data: str
    """Task file (json, jsonl or Parquet)."""
    out: str
    """Run folder; one that holds this very synthesis is resumed. The data are in its `traces/`."""
    server: str
    """The teacher's address, up to and with /v1: any OpenAI-compatible chat server."""
    image_root: str = ""
    """Folder that relative media paths start from; empty: the task file's own."""
    limit: int = 0
    """Use the first tasks only; 0 is all."""
    seed: int = 0
    """Decides sampling, per task by its id."""
    max_tries: int = 1
    """Attempts at a task; no further one follows a kept one."""
    max_episodes: int = 16
    """Attempts under way at once, each with a sandbox of its own."""
    max_bad_rows: int = 16
    """Tasks that are skipped where a file that was there at the start cannot be read any more; one
    more ends the synthesis. Counted anew at each start."""
    student_prompt: str = ""
    """Prompt template that the traces begin with, where it is not the teacher's own."""
    keep: KeepConfig = field(default_factory=KeepConfig)
    """Which attempts become traces."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """Prices and the limit of what is spent."""
    endpoint: ServerConfig = field(default_factory=ServerConfig)
    """How `server` is asked, the teacher's model name included; its url is that of `server`."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Sandbox, prompt, limits and sampling; a server has no use for `engine`."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """How answers are checked; only its rule counts."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """A language model that judges free-text answers which the rules find wrong."""

    def __post_init__(self) -> None:
        if min(self.limit, self.max_bad_rows) < 0 or min(self.max_tries, self.max_episodes) < 1:
            raise ConfigError(
                "synthesize: limit and max_bad_rows must not be negative, max_tries and "
                "max_episodes at least 1"
            )
        if self.endpoint.api != "chat":
            raise ConfigError("synthesize: a teacher is asked by endpoint.api chat")


@dataclass(frozen=True)
class Synthesis:
    """What was made, over all starts of the run."""

    path: Path
    num_tasks: int
    num_done: int
    num_skipped: int
    outcomes: Counter[str]
    usage: TokenUsage
    usd: float

    def lines(self) -> list[str]:
        """For a person: what was kept and why the rest was not, and the costs."""
        total = self.outcomes.total()
        counts = sorted(self.outcomes.items(), key=lambda count: (-count[1], count[0]))
        why = ", ".join(f"{num} {name}" for name, num in counts)
        lines = [
            f"tasks     {self.num_done} of {self.num_tasks} done",
            f"attempts  {total}: {why or 'none'}",
            f"tokens    {self.usage.num_input} in, {self.usage.num_output} out, {self.usd:.2f} USD",
            f"traces    {self.path}",
        ]
        if self.num_skipped:
            lines.append(f"skipped   {self.num_skipped} tasks whose files could not be read")
        if self.num_done + self.num_skipped < self.num_tasks:
            lines.append("the budget is spent; raise budget.max_usd and start again to go on")
        return lines

    def summary(self) -> dict[str, float | dict[str, int]]:
        """The same for summary.json."""
        return {
            "num_tasks": self.num_tasks,
            "num_done": self.num_done,
            "num_skipped": self.num_skipped,
            "num_kept": self.outcomes[KEPT],
            "outcomes": dict(self.outcomes),
            "num_input_tokens": self.usage.num_input,
            "num_output_tokens": self.usage.num_output,
            "usd": self.usd,
        }


async def run_synthesize(
    config: SynthesizeConfig, on_task: OnTask, pool: SandboxPool | None = None
) -> Synthesis:
    """Try the tasks that are not done yet; traces and summary are of all starts of the run.

    A finished attempt is kept at once: a kill loses those under way. A `pool` that runs already is
    used instead of one of its own. Raises PyVisionError where the teacher cannot be asked.
    """
    tasks = read_tasks(
        config.data, image_root=config.image_root or None, limit=config.limit or None
    )
    check_rules(tasks, config.reward.rule, has_judge=bool(config.judge.model))
    server = replace(config.endpoint, url=config.server)
    with RunFolder.create(
        Path(config.out), dump_config(config), resume=True, may_change=MAY_CHANGE
    ) as run:
        store = AttemptStore(run)
        bad_rows = BadRows(config.max_bad_rows)
        try:
            if any(not is_done(config, store, task) for task in tasks):
                # Templates that cannot be used are found before anything is paid for.
                rollout = config.agent.rollout
                run.keep_text(PROMPT, load_template(rollout.prompt))
                run.keep_text(VIDEO_PROMPT, load_template(rollout.video.template))
                run.keep_text(SETUP, load_setup(rollout.setup))
                if config.student_prompt:
                    run.keep_text(STUDENT_PROMPT, load_template(config.student_prompt))
                async with (
                    open_server_agent(server, config.agent, pool) as agent,
                    open_grader(config.reward, config.judge, run.path) as grader,
                ):
                    await _Teaching(config, agent, grader, store, bad_rows, on_task).run(tasks)
        finally:
            result = _result(config, store, bad_rows, tasks)
            run.write_summary(result.summary())
    return result


def is_done(config: SynthesizeConfig, store: AttemptStore, task: Task) -> bool:
    """Whether a task has its trace, or all its attempts."""
    attempts = store.of(task)
    return len(attempts) >= config.max_tries or any(a.outcome == KEPT for a in attempts)


def _result(
    config: SynthesizeConfig, store: AttemptStore, bad_rows: BadRows, tasks: Sequence[Task]
) -> Synthesis:
    return Synthesis(
        path=store.write_traces(tasks),
        num_tasks=len(tasks),
        num_done=sum(is_done(config, store, task) for task in tasks),
        num_skipped=len(bad_rows.ids),
        outcomes=store.outcomes,
        usage=store.usage,
        usd=config.budget.usd(store.usage),
    )


class _Teaching:
    """Tasks on their way through the teacher."""

    def __init__(
        self,
        config: SynthesizeConfig,
        agent: Agent,
        grader: StageGrader,
        store: AttemptStore,
        bad_rows: BadRows,
        on_task: OnTask,
    ) -> None:
        self.config = config
        self.agent = agent
        self.grader = grader
        self.store = store
        self.bad_rows = bad_rows
        self.on_task = on_task
        self.under_way: dict[int, TokenUsage] = {}
        self.writing = asyncio.Lock()
        rollout, prompt = agent.config, config.student_prompt
        if prompt:
            rollout = replace(rollout, prompt=prompt, video=replace(rollout.video, prompt=prompt))
        self.student = replace(agent, config=rollout)

    async def run(self, tasks: Sequence[Task]) -> None:
        left = [task for task in tasks if not is_done(self.config, self.store, task)]
        done = len(tasks) - len(left)
        queue = iter(left)

        async def work(queue: Iterator[Task]) -> None:
            nonlocal done
            for task in queue:
                while not is_done(self.config, self.store, task):
                    if self._is_spent():
                        return
                    try:
                        await self._try(task)
                    except MediaError as error:
                        self.bad_rows.skip(task, error)
                        break
                done += 1
                self.on_task(done, len(tasks))

        await run_together(work(queue) for _ in range(min(self.config.max_episodes, len(left))))

    def _is_spent(self) -> bool:
        budget = self.config.budget
        spent = budget.usd(self.store.usage) + sum(map(budget.usd, self.under_way.values()))
        return 0 < budget.max_usd <= spent

    async def _try(self, task: Task) -> None:
        """One attempt, from the first request to the line that says it is finished.

        Raises MediaError where the task's media cannot be read any more.
        """
        usage = TokenUsage()
        self.under_way[id(usage)] = usage
        seed = derive_seed(self.config.seed, "synthesize", task.id, len(self.store.of(task)))
        try:
            (trajectory,) = await run_group(self._metered(usage), task, 1, seed)
            reward = await score_by(self.grader, trajectory, self.config.reward)
            outcome = outcome_of(trajectory, reward.accuracy, self.config.keep)
            trace = self._as_student(trajectory) if outcome == KEPT else None
            async with self.writing:
                record = (task, trajectory, reward.accuracy, outcome, usage, trace)
                await asyncio.to_thread(self.store.add, *record)
        finally:
            del self.under_way[id(usage)]

    def _metered(self, usage: TokenUsage) -> Agent:
        """The agent with its tokens counted apart from those of other attempts."""
        engine = self.agent.engine
        assert isinstance(engine, ServerEngine), "endpoint.api is chat"
        return replace(self.agent, engine=replace(engine, usage=usage))

    def _as_student(self, trajectory: Trajectory) -> Trajectory:
        if not self.config.student_prompt:
            return trajectory
        return replace(trajectory, prompt=open_task(self.student, trajectory.task).prompt)
