"""`quickstart --dry-run`: every stage's memory, and whether the folder is a new one."""

from __future__ import annotations

from dataclasses import replace

from pyvision_rl.preflight.dry_run import DryRun, check_memory
from pyvision_rl.preflight.out_folder import check_run_folder
from pyvision_rl.preflight.plan import StageConfig
from pyvision_rl.quickstart.stages import StagesConfig
from pyvision_rl.runs.config import dump_config


def dry_run_quickstart(config: StagesConfig, memory_gb: float = 0.0) -> DryRun:
    """Check the stages' configuration, memory and folder. Raises PyVisionError in one line for what
    cannot be used.
    """
    model = config.sft.policy.model
    stages: dict[str, StageConfig] = {
        "sft": config.sft,
        "rl": replace(config.rl, policy=replace(config.rl.policy, model=model)),
        "eval": replace(config.eval, policy=replace(config.eval.policy, model=model)),
    }
    lines, ok = [dump_config(config).rstrip()], True
    for name, stage in stages.items():
        memory, fits = check_memory(stage, memory_gb)
        lines += ["", f"{name}:", *memory]
        ok = ok and fits
    return DryRun((*lines, "", check_run_folder(config.out, config, resume=False)), ok)
