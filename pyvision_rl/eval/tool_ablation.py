"""What the tool is worth: a benchmark played with and without it, and the paired difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyvision_rl.eval.benchmark_stage import BenchmarkConfig, default_cache, run_benchmark
from pyvision_rl.eval.compare import CompareConfig, Pair, compare_runs
from pyvision_rl.eval.evaluate import OnTask
from pyvision_rl.eval.result import BenchmarkResult
from pyvision_rl.rollout.episode import Agent


async def ablate_tool(
    config: BenchmarkConfig, on_item: OnTask, agent: Agent | None = None
) -> tuple[BenchmarkResult, BenchmarkResult, Pair]:
    """The result without the tool, the one with it, and how they differ, item by item.

    The runs lie in OUT/without_tool and OUT/with_tool, each resumable, the figure in
    OUT/tool_ablation.png.
    """
    folder = Path(config.out)
    cache = config.image_cache or str(default_cache(config.out))
    runs = {"without": folder / "without_tool", "with": folder / "with_tool"}
    without = replace(config, tool="without", out=str(runs["without"]), image_cache=cache)
    plain = await run_benchmark(without, on_item, agent)
    having = replace(config, tool="with", out=str(runs["with"]), image_cache=cache)
    helped = await run_benchmark(having, on_item, agent)
    compared = CompareConfig(
        [str(runs["without"]), str(runs["with"])], str(folder / "tool_ablation.png"), config.seed
    )
    (pair,) = compare_runs(compared)
    return plain, helped, pair
