"""`eval --benchmark NAME --dry_run true`: its files read, its model or server looked at."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pyvision_rl.errors import ConfigError
from pyvision_rl.eval.benchmark_stage import MAY_CHANGE, BenchmarkConfig, load_items, resolve
from pyvision_rl.eval.benchmarks.item import BenchmarkItem, pick_scorer
from pyvision_rl.eval.benchmarks.registry import BENCHMARKS
from pyvision_rl.eval.evaluate import EvaluateConfig
from pyvision_rl.eval.stage import EvalConfig
from pyvision_rl.preflight.dry_run import DryRun, check_memory, check_prompts
from pyvision_rl.preflight.out_folder import check_out, check_run_folder
from pyvision_rl.preflight.served import check_served
from pyvision_rl.runs.config import dump_config

MAX_LABELS = 12


def dry_run_benchmark(config: BenchmarkConfig, memory_gb: float = 0.0) -> DryRun:
    """Check a benchmark's configuration, files, and the memory of its model or that its server
    answers. Raises PyVisionError in one line for what cannot be used.
    """
    if bool(config.model) == bool(config.server):
        raise ConfigError("give either model, a checkpoint, or server, an address")
    config = resolve(config)
    benchmark = BENCHMARKS[config.benchmark]
    with tempfile.TemporaryDirectory(prefix="pyvision-dry-") as folder:
        items = load_items(replace(config, image_cache=folder))
    if config.server:
        check_prompts(config.agent.rollout)
        found, fits = [check_served(replace(config.endpoint, url=config.server))], True
    else:
        found, fits = check_memory(_as_stage(config), memory_gb)
    if config.tool == "both":
        out = check_out(config.out)
    else:
        out = check_run_folder(config.out, config, resume=True, may_change=MAY_CHANGE)
    scorer = pick_scorer(benchmark, config.protocol)
    lines = [
        dump_config(config).rstrip(),
        "",
        f"{config.data}: {_contents(items)}",
        f"{benchmark.title}, protocol {config.protocol}: {scorer.name}; "
        f"{len(items)} x {config.num_samples} episodes",
        *found,
        out,
    ]
    return DryRun(tuple(lines), fits)


def _contents(items: Sequence[BenchmarkItem]) -> str:
    num_images = len({path for item in items for path in item.task.images})
    num_videos = len({path for item in items for path in item.task.videos})
    labels = Counter(f"{key} {label}" for item in items for key, label in item.labels.items())
    shares = ", ".join(f"{label}: {num}" for label, num in labels.most_common(MAX_LABELS))
    return f"{len(items)} items, {num_images} images, {num_videos} videos; {shares}"


def _as_stage(config: BenchmarkConfig) -> EvalConfig:
    """The evaluation stage that needs as much memory."""
    num_samples = config.num_samples or 1
    tasks = max(1, config.max_episodes // num_samples)
    return EvalConfig(
        replace(config.policy, model=config.model),
        config.data,
        config.out,
        agent=config.agent,
        evaluate=EvaluateConfig(num_samples=num_samples, max_tasks=tasks),
    )
