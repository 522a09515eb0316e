"""What the quickstarts share: the stages in order, their times, the summary and the table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pyvision_rl.console import console, report_table, say, stage
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.eval.evaluate import evaluate
from pyvision_rl.eval.report import Report, make_report
from pyvision_rl.eval.stage import EvalConfig, run_eval
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.train import train
from pyvision_rl.rollout.episode import Agent, RolloutConfig
from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.config import dump_config
from pyvision_rl.runs.folder import Json
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.stage import SFTConfig, run_sft
from pyvision_rl.types import Task

GREEDY = "greedy"
SAMPLED = "sampled"
ORACLE = "oracle"
"""A script that knows where to look: the ceiling."""
TRACE_SEED = 100_000
"""Added to the seed for the items of the traces: RL and evaluation see none of them."""


@dataclass(frozen=True)
class StagesConfig:
    """What every quickstart runs. Folders, data files and seeds of the stages are set here."""

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


class EmbeddedTask(Protocol):
    """What differs from one quickstart to the next."""

    train_file: str
    """Name of the training file in a data folder."""
    test_file: str
    """Name of the file of unseen tasks in a data folder."""

    def write_data(self, folder: Path) -> None:
        """Make the tasks of RL and evaluation."""
        ...

    async def write_traces(self, folder: Path, codec: ChatCodec, pool: SandboxPool) -> Path:
        """Play the traces of the cold start; returns their file."""
        ...

    def oracle_texts(self, data: Path, tasks: Sequence[Task]) -> dict[str, list[str]]:
        """What a script that knows where to look writes, by the task's id."""
        ...

    async def compare(self, stages: Stages) -> dict[str, Json]:
        """Whatever the policy is compared with: further entries of the summary."""
        ...


async def run_stages(config: StagesConfig, task: EmbeddedTask) -> Path:
    """Run all stages; returns the folder with summary.json, curves.png and a folder per stage."""
    root = Path(config.out)
    with RunFolder.create(root, dump_config(config)) as run:
        async with SandboxPool(config.rl.agent.sandbox) as pool:
            await Stages(config, task, root, pool).run(run)
    return root


class Stages:
    """The stages in order; keeps the reports and the seconds of each."""

    def __init__(
        self, config: StagesConfig, task: EmbeddedTask, root: Path, pool: SandboxPool
    ) -> None:
        self.config = config
        self.task = task
        self.root = root
        self.pool = pool
        self.rows: list[tuple[str, Report]] = []
        """What the closing table holds."""
        self.seconds = {"data": 0.0, "sft": 0.0, "rl": 0.0, "eval": 0.0}
        self.started = time.perf_counter()

    @property
    def data(self) -> Path:
        """Folder of the tasks of RL and evaluation."""
        return self.root / "data"

    def tests(self) -> list[Task]:
        """The unseen tasks."""
        return read_tasks(self.data / self.task.test_file)

    async def run(self, run: RunFolder) -> None:
        """Every stage, then the summary and the closing table."""
        base = self.config.sft.policy.model
        with self._timed("data"):
            self.task.write_data(self.data)
            traces = await self.task.write_traces(self.root / "traces", self._codec(), self.pool)
        with self._timed("eval"):
            texts = self.task.oracle_texts(self.data, self.tests())
            oracle = await self.play_script(ORACLE, texts, self.config.eval.agent.rollout)
            comparison = await self.task.compare(self)
            reports = {"base": await self._evaluate("base", base)}
        with self._timed("sft"):
            sft = self._train_sft(traces)
        with self._timed("eval"):
            reports["sft"] = await self._evaluate("sft", str(sft))
        with self._timed("rl"):
            rl = await self._train_rl(str(sft))
        with self._timed("eval"):
            reports["rl"] = await self._evaluate("rl", str(rl))
        run.write_summary(self._summary(reports, comparison, oracle))
        self.rows.append((ORACLE, oracle))
        self.show()

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start

    def _codec(self) -> ChatCodec:
        policy = self.config.sft.policy
        return ChatCodec.from_folder(checkpoint_folder(policy.model), policy.pixels)

    def _train_sft(self, traces: Path) -> Path:
        config = replace(
            self.config.sft,
            data=str(traces),
            out=str(self.root / "sft"),
            seed=self.config.seed,
        )
        with stage("SFT cold start") as bar:
            return run_sft(config, bar.step)

    async def _train_rl(self, model: str) -> Path:
        config = replace(
            self.config.rl,
            policy=replace(self.config.rl.policy, model=model),
            data=str(self.data / self.task.train_file),
            out=str(self.root / "rl"),
            seed=self.config.seed,
        )
        with stage("RL") as bar:
            return await train(
                config,
                lambda step, metrics: bar.step(step, config.num_steps, metrics),
                self.pool,
            )

    async def _evaluate(self, name: str, model: str) -> dict[str, Report]:
        """Greedy and sampled accuracy of a checkpoint on the unseen tasks."""
        rollout = self.config.eval.agent.rollout
        return {
            mode: await self.play(name, mode, model, replace(rollout, temperature=temperature))
            for mode, temperature in ((GREEDY, 0.0), (SAMPLED, 1.0))
        }

    async def play(self, name: str, mode: str, model: str, rollout: RolloutConfig) -> Report:
        """Evaluate a checkpoint on the unseen tasks; a row of the closing table."""
        config = self.config.eval
        config = replace(
            config,
            policy=replace(config.policy, model=model),
            data=str(self.data / self.task.test_file),
            out=str(self.root / "eval" / f"{name}-{mode}"),
            agent=replace(config.agent, rollout=rollout),
        )
        with stage(f"evaluation: {name}, {mode}") as bar:
            report = await run_eval(config, bar.advance, self.pool)
        self.rows.append((f"{name}, {mode}", report))
        return report

    async def play_script(
        self, name: str, texts: Mapping[str, Sequence[str]], rollout: RolloutConfig
    ) -> Report:
        """Play given texts, by the task's id, through the same sandbox and reward."""
        config = self.config.eval
        codec = self._codec()
        agent = Agent(play_texts(codec, texts), codec, self.pool, rollout)
        with stage(f"evaluation: {name}") as bar:
            return make_report(
                await evaluate(agent, self.tests(), config.reward, config.evaluate, bar.advance)
            )

    def _summary(
        self,
        reports: Mapping[str, Mapping[str, Report]],
        comparison: Mapping[str, Json],
        oracle: Report,
    ) -> dict[str, Json]:
        answers = {task.answer for task in self.tests()}
        total = time.perf_counter() - self.started
        stages: dict[str, Json] = {
            name: {mode: report.as_dict() for mode, report in modes.items()}
            for name, modes in reports.items()
        }
        return {
            "stages": stages,
            **comparison,
            "chance": 1 / len(answers),
            "oracle": oracle.overall.accuracy,
            "seconds": {**self.seconds, "total": total},
            "seed": self.config.seed,
        }

    def show(self) -> None:
        """Print the closing table and where everything lies."""
        console.print(report_table("unseen tasks", self.rows))
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
