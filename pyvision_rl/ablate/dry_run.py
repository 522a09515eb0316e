"""`ablate --dry-run`: how many runs there are, how many are done, and whether one would fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyvision_rl.ablate.config import AblateConfig, all_runs
from pyvision_rl.ablate.run import DATA, EVALS, RUNS
from pyvision_rl.data.needle_files import needle_is_written
from pyvision_rl.preflight.dry_run import DryRun, check_memory
from pyvision_rl.preflight.out_folder import check_out
from pyvision_rl.runs.config import dump_config
from pyvision_rl.runs.folder import SUMMARY


def dry_run_ablations(config: AblateConfig, memory_gb: float = 0.0) -> DryRun:
    """Check a study's folder, data and base, and count its runs; the memory is that of the base.

    The arms' overrides were checked when the configuration was made. Raises PyVisionError in one
    line for what cannot be used.
    """
    out = Path(config.out)
    place = check_out(config.out)
    is_written = needle_is_written(out / DATA, config.needle)
    memory, fits = check_memory(replace(config.rl, out=config.out), memory_gb)
    lines = [
        dump_config(config).rstrip(),
        "",
        *_arms(config),
        *_counts(config, out),
        f"data: {config.needle.num_train} tasks to train on and {config.needle.num_test} unseen "
        f"ones, {'there' if is_written else 'to be made'}",
        "",
        *memory,
        place,
    ]
    return DryRun(tuple(lines), fits)


def _arms(config: AblateConfig) -> list[str]:
    return [
        f"{ablation.name}: {arm.name} ({', '.join(arm.overrides) or 'the base'})"
        for ablation in config.ablations
        for arm in ablation.arms
    ]


def _counts(config: AblateConfig, out: Path) -> list[str]:
    runs = [run for _, run in all_runs(config)]
    done = [run for run in runs if (out / EVALS / run.name / SUMMARY).exists()]
    begun = [run for run in runs if run not in done and (out / RUNS / run.name).exists()]
    num_arms = sum(len(ablation.arms) for ablation in config.ablations)
    steps = sum(run.config.num_steps for run in runs)
    return [
        f"{num_arms} arms x {len(config.seeds)} seeds: {len(runs)} runs of {steps} steps in all, "
        f"shared ones made once; {len(done)} done, {len(begun)} begun"
    ]
