"""The evaluation of a benchmark: files in, every item played once, however often it is resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pyvision_rl.errors import ConfigError
from pyvision_rl.eval.benchmarks.cells import ImageCache
from pyvision_rl.eval.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    OptionOrder,
    Protocol,
    Source,
    pick_scorer,
    read_items,
)
from pyvision_rl.eval.benchmarks.registry import BENCHMARKS, BenchmarkName
from pyvision_rl.eval.evaluate import EvaluateConfig, OnTask, Progress, play_tasks
from pyvision_rl.eval.export import write_lmms_eval, write_vlmevalkit
from pyvision_rl.eval.judged import judge_misses
from pyvision_rl.eval.result import BenchmarkResult, grade_items, make_result, write_scores
from pyvision_rl.eval.store import ItemStore, sample_record
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.model.server_config import ServerConfig
from pyvision_rl.reward.grading import open_grader
from pyvision_rl.reward.judge_config import MAY_CHANGE as JUDGE_MAY_CHANGE
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.reward.reward import RewardConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import Agent, RolloutConfig
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.server_agent import open_any_agent
from pyvision_rl.rollout.setup import load_setup
from pyvision_rl.runs import PROMPT, SETUP, VIDEO_PROMPT, RunFolder
from pyvision_rl.runs.config import dump_config, resolve_model
from pyvision_rl.types import Group, Reward, Task, Trajectory

TEST_TOOL_CALLS = 30
"""The paper's tool calls at test time (Sec. 4.1)."""
MAY_CHANGE = (
    "protocol",
    "judge.model",
    "judge.prompt",
    "judge.cache",
    *JUDGE_MAY_CHANGE,
    "limit",
    "server",
    "max_episodes",
    "endpoint.max_in_flight",
    "endpoint.timeout_s",
    "endpoint.max_retries",
    "endpoint.backoff_s",
)
"""What a resumed evaluation may have otherwise: nothing of it changes a played item."""


def _test_agent() -> AgentConfig:
    return AgentConfig(rollout=RolloutConfig(max_tool_calls=TEST_TOOL_CALLS))


@dataclass(frozen=True)
class BenchmarkConfig:
    """A published benchmark, from the files that users download to its numbers."""

    benchmark: BenchmarkName
    """Which benchmark."""
    data: str
    """Its file, or its folder as downloaded."""
    out: str
    """Run folder; one that holds this very evaluation is resumed."""
    model: str = ""
    """Checkpoint folder, run folder or hub id; or give `server`."""
    server: str = ""
    """Address of an OpenAI-compatible server, up to and with /v1."""
    protocol: Protocol = "paper"
    """Whose scoring: paper, official, vlmevalkit, or strict."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """A language model that looks again at wrong answers in free text."""
    split: str = ""
    """Split of a folder with several; empty: all its files."""
    media_root: str = ""
    """Folder that relative images and videos start from; empty: the data's own."""
    image_cache: str = ""
    """Folder for images that were embedded in tables; empty: benchmark_images beside the run."""
    option_order: OptionOrder = "shuffled"
    """V* json has the right option first: shuffled by the seed, or left so for reproduction."""
    limit: int = 0
    """Play the first items only (whole groups where groups are scored); 0 is all."""
    seed: int = 0
    """Decides sampling, per item by its id, and the order of shuffled options."""
    num_samples: int | None = None
    """Trajectories per item (avg@k); unset: the paper's, 32 for V* and 1 elsewhere."""
    temperature: float | None = None
    """Sampling temperature; unset: the paper's, 0.01 for V* and video and 0.5 elsewhere."""
    top_k: int | None = None
    """Tokens to sample from, 0 is all; unset: the paper's, 20 for images other than V*."""
    tool: Literal["with", "without", "both"] = "with"
    """without: the same questions with no tool and the plain prompt, videos as evenly spaced frames
    (`agent.rollout.video`). both: one after the other, in two runs inside `out`, and how they
    differ."""
    max_episodes: int = 32
    """Episodes in flight at once, each with a sandbox of its own; at least those of one item."""
    policy: PolicyConfig = field(default_factory=lambda: PolicyConfig(model=""))
    """How `model` is loaded; its name is that of `model`."""
    endpoint: ServerConfig = field(default_factory=ServerConfig)
    """How `server` is asked; its url is that of `server`."""
    agent: AgentConfig = field(default_factory=_test_agent)
    """Engine, sandbox and limits; temperature and top_k are those above."""

    def __post_init__(self) -> None:
        if self.limit < 0 or self.max_episodes < 1:
            raise ConfigError("eval: limit must not be negative and max_episodes at least 1")
        if self.num_samples is not None and self.num_samples < 1:
            raise ConfigError(f"eval: num_samples is {self.num_samples}, must be at least 1")
        pick_scorer(BENCHMARKS[self.benchmark], self.protocol)


def resolve(config: BenchmarkConfig) -> BenchmarkConfig:
    """The configuration with every unset value filled in: what the run folder keeps."""
    decoding = BENCHMARKS[config.benchmark].decoding
    temperature = decoding.temperature if config.temperature is None else config.temperature
    top_k = decoding.top_k if config.top_k is None else config.top_k
    rollout = replace(config.agent.rollout, temperature=temperature, top_k=top_k)
    if config.tool == "without":
        frames = replace(rollout.video, context="uniform")
        rollout = replace(rollout, max_tool_calls=0, prompt="direct", video=frames)
    return replace(
        config,
        # A run folder's newest checkpoint may be another one when this run is resumed.
        model=resolve_model(config.model),
        num_samples=config.num_samples or decoding.num_samples,
        temperature=temperature,
        top_k=top_k,
        agent=replace(config.agent, rollout=rollout),
    )


def load_items(config: BenchmarkConfig) -> list[BenchmarkItem]:
    """The items to play, embedded images written to the cache."""
    source = Source(
        path=Path(config.data),
        cache=ImageCache(Path(config.image_cache or default_cache(config.out))),
        split=config.split,
        media_root=Path(config.media_root) if config.media_root else None,
        limit=config.limit,
        option_order=config.option_order,
        seed=config.seed,
    )
    items = read_items(BENCHMARKS[config.benchmark], source)
    seen: dict[str, int] = {}
    for at, item in enumerate(items):
        if item.id in seen:
            several = "; --split picks one of several splits" if Path(config.data).is_dir() else ""
            raise ConfigError(
                f"{config.data}: items {seen[item.id]} and {at} (counted from 0) are both called "
                f"{item.id!r}; ids must differ{several}"
            )
        seen[item.id] = at
    return items


def default_cache(out: str) -> Path:
    """Folder for embedded images, beside the run."""
    return Path(out).absolute().parent / "benchmark_images"


async def run_benchmark(
    config: BenchmarkConfig, on_item: OnTask, agent: Agent | None = None
) -> BenchmarkResult:
    """Play what is not played yet, then score everything; an `agent` that is open already is used.

    Finished items are kept at once. With all of them there, only the scoring is done: the protocol
    may change between calls, the rows of finished items may not. Raises PyVisionError; what was
    finished stays.
    """
    if config.tool == "both":
        raise ConfigError("run_benchmark: plays one run; ablate_tool plays both")
    config = resolve(config)
    items = load_items(config)
    benchmark = BENCHMARKS[config.benchmark]
    with RunFolder.create(
        Path(config.out), dump_config(config), resume=True, may_change=MAY_CHANGE
    ) as run:
        # Known again also where a run and the images beside it were moved together.
        store = ItemStore(run, config.benchmark, default_cache(config.out))
        store.check(item.task for item in items)
        left = [item for item in items if item.id not in store.done]
        progress = Progress(on_item, len(items) - len(left), len(items))
        if left:
            run.keep_text(PROMPT, load_template(config.agent.rollout.prompt))
            run.keep_text(VIDEO_PROMPT, load_template(config.agent.rollout.video.template))
            run.keep_text(SETUP, load_setup(config.agent.rollout.setup))
        if left and agent is not None:
            await _play(config, benchmark, replace_rollout(agent, config), left, store, progress)
        elif left:
            policy = replace(config.policy, model=config.model)
            server = replace(config.endpoint, url=config.server)
            async with open_any_agent(policy, server, config.agent) as opened:
                await _play(config, benchmark, opened, left, store, progress)
        return await _score(config, benchmark, items, store, run)


def replace_rollout(agent: Agent, config: BenchmarkConfig) -> Agent:
    """The agent with the decoding and limits of this evaluation."""
    return replace(agent, config=config.agent.rollout)


async def _play(
    config: BenchmarkConfig,
    benchmark: Benchmark,
    agent: Agent,
    items: Sequence[BenchmarkItem],
    store: ItemStore,
    progress: Progress,
) -> None:
    num_samples = config.num_samples or 1
    scorer = pick_scorer(benchmark, config.protocol)
    by_id = {item.id: item for item in items}

    async def finish(task: Task, trajectories: tuple[Trajectory, ...], seconds: float) -> None:
        item = by_id[task.id]
        responses = [sample_record(trajectory).response for trajectory in trajectories]
        grades = await asyncio.to_thread(lambda: [scorer.grade(item, r) for r in responses])
        rewards = tuple(Reward(grade, 0.0) for grade in grades)
        await store.add(Group(task, trajectories, rewards), seconds)

    max_tasks = max(1, config.max_episodes // num_samples)
    plan = EvaluateConfig(num_samples, max_tasks, config.seed)
    await play_tasks(agent, [item.task for item in items], plan, finish, progress)


async def _score(
    config: BenchmarkConfig,
    benchmark: Benchmark,
    items: Sequence[BenchmarkItem],
    store: ItemStore,
    run: RunFolder,
) -> BenchmarkResult:
    scored = grade_items(benchmark, config.protocol, items, store.records)
    cost: dict[str, float] = {}
    if config.judge.model:
        async with open_grader(RewardConfig(), config.judge, run.path) as judge:
            scored = await judge_misses(scored, store.records, judge)
            cost = judge.take_metrics()
    result = make_result(
        benchmark, config.protocol, scored, store.records, config.judge.model, cost
    )
    write_scores(run.path, scored)
    write_vlmevalkit(run.path / "predictions.tsv", scored, store.records)
    write_lmms_eval(run.path / f"samples_{benchmark.name}.jsonl", scored, store.records)
    run.write_summary(result.as_dict())
    return result
