"""The quickstart on images: needle items, and the base asked the bare question beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyvision_rl.data.needle import oracle_turns
from pyvision_rl.data.needle_files import (
    TEST_FILE,
    TRAIN_FILE,
    NeedleConfig,
    load_plans,
    write_needle,
)
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.quickstart.stages import GREEDY, TRACE_SEED, Stages, StagesConfig, run_stages
from pyvision_rl.runs.folder import Json
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.needle import NeedleTraceConfig, write_needle_traces
from pyvision_rl.types import Task

DIRECT = "direct"
"""The base asked the bare question: what can be read at once."""
DIRECT_PROMPT = "question"


@dataclass(frozen=True)
class QuickstartConfig(StagesConfig):
    """Everything the quickstart runs. Folders, data files and seeds of the stages are set here."""

    num_traces: int = 600
    """Traces of the cold start."""
    needle: NeedleConfig = field(default_factory=NeedleConfig)
    """Size and mixture of the tasks."""
    traces: NeedleTraceConfig = field(default_factory=NeedleTraceConfig)
    """How often the traces look."""


async def run_quickstart(config: QuickstartConfig) -> Path:
    """Run all stages on images; returns the run folder."""
    return await run_stages(config, _ImageTask(config))


class _ImageTask:
    train_file = TRAIN_FILE
    test_file = TEST_FILE

    def __init__(self, config: QuickstartConfig) -> None:
        self.config = config

    def write_data(self, folder: Path) -> None:
        write_needle(folder, replace(self.config.needle, seed=self.config.seed))

    async def write_traces(self, folder: Path, codec: ChatCodec, pool: SandboxPool) -> Path:
        config = self.config
        items = replace(
            config.needle, num_train=config.num_traces, num_test=0, seed=TRACE_SEED + config.seed
        )
        write_needle(folder / "data", items)
        return await write_needle_traces(
            folder,
            read_tasks(folder / "data" / TRAIN_FILE),
            load_plans(folder / "data"),
            codec,
            pool,
            config.rl.agent.rollout,
            config.traces,
            config.seed,
        )

    def oracle_texts(self, data: Path, tasks: Sequence[Task]) -> dict[str, list[str]]:
        plans = load_plans(data)
        return {task.id: oracle_turns(plans[task.images[0].name]) for task in tasks}

    async def compare(self, stages: Stages) -> dict[str, Json]:
        rollout = replace(
            self.config.eval.agent.rollout,
            temperature=0.0,
            prompt=DIRECT_PROMPT,
            max_tool_calls=0,
        )
        report = await stages.play(DIRECT, GREEDY, self.config.sft.policy.model, rollout)
        return {DIRECT: report.as_dict()}
