"""The whole pipeline on the embedded task: data, cold start, RL and evaluation in minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyvision_rl.console import console, report_table, say, stage
from pyvision_rl.data.needle import oracle_turns
from pyvision_rl.data.needle_files import (
    TEST_FILE,
    TRAIN_FILE,
    NeedleConfig,
    load_plans,
    write_needle,
)
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.eval.evaluate import evaluate
from pyvision_rl.eval.report import Report, make_report
from pyvision_rl.eval.stage import EvalConfig, run_eval
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.train import train
from pyvision_rl.rollout.episode import Agent
from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.config import dump_config
from pyvision_rl.runs.folder import Json
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.needle import NeedleTraceConfig, write_needle_traces
from pyvision_rl.sft.stage import SFTConfig, run_sft

GREEDY = "greedy"
SAMPLED = "sampled"
DIRECT = "direct"
"""The base asked the bare question: what can be read at once."""
DIRECT_PROMPT = "question"
TRACE_SEED = 100_000
"""Added to the seed for the items of the traces."""


@dataclass(frozen=True)
class QuickstartConfig:
    """Everything the quickstart runs. Folders, data files and seeds of the stages are set here."""

    sft: SFTConfig
    """The cold start; its data and model are the quickstart's own."""
    rl: RLConfig
    """Reinforcement learning, from the cold start's checkpoint."""
    eval: EvalConfig
    """Evaluation of base, cold start and RL, greedy and sampled."""
    out: str = "runs/quickstart"
    """Run folder, a new one."""
    seed: int = 0
    """Seed of data and training."""
    num_traces: int = 600
    """Traces of the cold start."""
    needle: NeedleConfig = field(default_factory=NeedleConfig)
    """Size and mixture of the tasks."""
    traces: NeedleTraceConfig = field(default_factory=NeedleTraceConfig)
    """How often the traces look."""


async def run_quickstart(config: QuickstartConfig) -> Path:
    """Run all stages; returns the folder with summary.json, curves.png and a folder per stage."""
    root = Path(config.out)
    with RunFolder.create(root, dump_config(config)) as run:
        async with SandboxPool(config.rl.agent.sandbox) as pool:
            await _Quickstart(config, root, pool).run(run)
    return root


class _Quickstart:
    """The stages in order; keeps the reports and the seconds of each."""

    def __init__(self, config: QuickstartConfig, root: Path, pool: SandboxPool) -> None:
        self.config = config
        self.root = root
        self.pool = pool
        self.reports: dict[str, dict[str, Report]] = {}
        self.seconds = {"data": 0.0, "sft": 0.0, "rl": 0.0, "eval": 0.0}
        self.started = time.perf_counter()

    async def run(self, run: RunFolder) -> None:
        """Every stage, then the summary and the closing table."""
        config = self.config
        base = config.sft.policy.model
        data = self.root / "data"
        with self._timed("data"):
            write_needle(data, replace(config.needle, seed=config.seed))
            traces = await self._write_traces()
        with self._timed("eval"):
            oracle = await self._play_oracle(data)
            self.reports[DIRECT] = {GREEDY: await self._play(DIRECT, GREEDY, base)}
            await self._evaluate("base", base)
        with self._timed("sft"):
            sft = self._train_sft(traces)
        with self._timed("eval"):
            await self._evaluate("sft", str(sft))
        with self._timed("rl"):
            rl = await self._train_rl(str(sft), data)
        with self._timed("eval"):
            await self._evaluate("rl", str(rl))
        run.write_summary(self._summary(oracle, data))
        self.show(oracle)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start

    def _codec(self) -> ChatCodec:
        policy = self.config.sft.policy
        return ChatCodec.from_folder(checkpoint_folder(policy.model), policy.pixels)

    async def _write_traces(self) -> Path:
        """Traces from items of their own: RL and evaluation see none of their images."""
        config = self.config
        folder = self.root / "traces"
        items = replace(
            config.needle, num_train=config.num_traces, num_test=0, seed=TRACE_SEED + config.seed
        )
        write_needle(folder / "data", items)
        return await write_needle_traces(
            folder,
            read_tasks(folder / "data" / TRAIN_FILE),
            load_plans(folder / "data"),
            self._codec(),
            self.pool,
            config.rl.agent.rollout,
            config.traces,
            config.seed,
        )

    def _train_sft(self, traces: Path) -> Path:
        config = replace(
            self.config.sft,
            data=str(traces),
            out=str(self.root / "sft"),
            seed=self.config.seed,
        )
        with stage("SFT cold start") as bar:
            return run_sft(config, bar.step)

    async def _train_rl(self, model: str, data: Path) -> Path:
        config = replace(
            self.config.rl,
            policy=replace(self.config.rl.policy, model=model),
            data=str(data / TRAIN_FILE),
            out=str(self.root / "rl"),
            seed=self.config.seed,
        )
        with stage("RL") as bar:
            return await train(
                config,
                lambda step, metrics: bar.step(step, config.num_steps, metrics),
                self.pool,
            )

    async def _evaluate(self, name: str, model: str) -> None:
        """Greedy and sampled accuracy of a checkpoint on the unseen tasks."""
        self.reports[name] = {
            mode: await self._play(name, mode, model) for mode in (GREEDY, SAMPLED)
        }

    async def _play(self, name: str, mode: str, model: str) -> Report:
        config = self.config.eval
        rollout = replace(config.agent.rollout, temperature=1.0 if mode == SAMPLED else 0.0)
        if name == DIRECT:
            rollout = replace(rollout, prompt=DIRECT_PROMPT, max_tool_calls=0)
        config = replace(
            config,
            policy=replace(config.policy, model=model),
            data=str(self.root / "data" / TEST_FILE),
            out=str(self.root / "eval" / f"{name}-{mode}"),
            agent=replace(config.agent, rollout=rollout),
        )
        with stage(f"evaluation: {name}, {mode}") as bar:
            return await run_eval(config, bar.advance, self.pool)

    async def _play_oracle(self, data: Path) -> Report:
        """The ceiling: a script that knows where to look, through the same sandbox and reward."""
        config = self.config.eval
        tasks = read_tasks(data / TEST_FILE)
        plans = load_plans(data)
        codec = self._codec()
        texts = {task.id: oracle_turns(plans[task.images[0].name]) for task in tasks}
        agent = Agent(play_texts(codec, texts), codec, self.pool, config.agent.rollout)
        with stage("evaluation: oracle") as bar:
            return make_report(
                await evaluate(agent, tasks, config.reward, config.evaluate, bar.advance)
            )

    def _summary(self, oracle: Report, data: Path) -> dict[str, Json]:
        answers = {task.answer for task in read_tasks(data / TEST_FILE)}
        total = time.perf_counter() - self.started
        stages: dict[str, Json] = {
            name: {mode: report.as_dict() for mode, report in reports.items()}
            for name, reports in self.reports.items()
            if name != DIRECT
        }
        return {
            "stages": stages,
            "direct": self.reports[DIRECT][GREEDY].as_dict(),
            "chance": 1 / len(answers),
            "oracle": oracle.overall.accuracy,
            "seconds": {**self.seconds, "total": total},
            "seed": self.config.seed,
        }

    def show(self, oracle: Report) -> None:
        """Print the closing table and where everything lies."""
        rows = [
            (f"{name}, {mode}", report)
            for name, reports in self.reports.items()
            for mode, report in reports.items()
        ]
        console.print(report_table("unseen tasks", [*rows, ("oracle", oracle)]))
        for line in self._places():
            say(line)

    def _places(self) -> list[str]:
        root = self.root
        return [
            f"summary       {root / 'summary.json'}",
            f"curves        {root / 'rl' / 'curves.png'}",
            f"checkpoint    {root / 'rl' / 'checkpoints'}",
            f"trajectories  {root / 'rl' / 'trajectories'}",
        ]
