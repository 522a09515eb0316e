"""`--dry_run true`: a stage up to its first step, without a weight being read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyvision_rl.data.validate import validate_file
from pyvision_rl.eval.stage import MAY_CHANGE as EVAL_MAY_CHANGE
from pyvision_rl.model.memory import MemoryEstimate
from pyvision_rl.preflight.machine import GB, MB, available_memory, available_ram
from pyvision_rl.preflight.out_folder import check_run_folder
from pyvision_rl.preflight.plan import (
    StageConfig,
    changes_to_fit,
    estimate,
    shown_images_bytes,
)
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.train import MAY_CHANGE as RL_MAY_CHANGE
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.setup import load_setup
from pyvision_rl.runs.config import dump_config, resolve_model
from pyvision_rl.sft.stage import SFTConfig

MAX_PROBLEMS = 10


@dataclass(frozen=True)
class DryRun:
    """What a dry run found: lines for a person, and whether the stage can start."""

    lines: tuple[str, ...]
    ok: bool


def dry_run(config: StageConfig, memory_gb: float = 0.0) -> DryRun:
    """Check a stage's configuration, data and memory; `memory_gb` 0 is what its device has free.

    Raises InputError or ConfigError for a model, a prompt or a run folder that cannot be used.
    """
    report = validate_file(config.data, image_root=config.image_root or None)
    memory, fits = check_memory(config, memory_gb)
    lines = [dump_config(config).rstrip(), "", *report.lines(MAX_PROBLEMS), "", *memory]
    return DryRun((*lines, _out(config)), report.ok and fits)


def _out(config: StageConfig) -> str:
    if isinstance(config, SFTConfig):
        return check_run_folder(config.out, config, resume=False)
    policy = replace(config.policy, model=resolve_model(config.policy.model))
    may_change = RL_MAY_CHANGE if isinstance(config, RLConfig) else EVAL_MAY_CHANGE
    return check_run_folder(
        config.out, replace(config, policy=policy), resume=True, may_change=may_change
    )


def check_prompts(rollout: RolloutConfig) -> None:
    """Raise InputError for a prompt or a setup program that cannot be used."""
    load_template(rollout.prompt)
    load_template(rollout.video.template)
    load_setup(rollout.setup)


def check_memory(config: StageConfig, memory_gb: float) -> tuple[list[str], bool]:
    """What the stage's model and images need, beside what there is; and whether that is enough."""
    agent = config.unseen.agent if isinstance(config, SFTConfig) else config.agent
    check_prompts(agent.rollout)
    parts = estimate(config)
    available = int(memory_gb * GB) or available_memory(config.policy.device)
    memory, fits = _memory(config, parts, available)
    lines = [
        f"model {config.policy.model}: {_count(parts.parameters)} parameters, "
        f"{_count(parts.trainable)} of them trained",
        *_parts(parts),
        *memory,
        *_host(config),
    ]
    return lines, fits


def _parts(parts: MemoryEstimate) -> list[str]:
    lines = [f"  {name:<18}{_bytes(size)}" for name, size in parts.held.items()]
    lines += [f"  {name:<18}{_bytes(size)}, for a while" for name, size in parts.transient.items()]
    return [*lines, f"  {'at the peak':<18}{_bytes(parts.total)}"]


def _memory(
    config: StageConfig, parts: MemoryEstimate, available: int | None
) -> tuple[list[str], bool]:
    """The verdict on the device, and what to change."""
    device = config.policy.device
    if available is None:
        return [f"{device} is not here; say what it has: --memory_gb 80"], True
    if parts.total <= available:
        return [f"fits: {device} has {available / GB:.2f} GB"], True
    changes, total = changes_to_fit(config, available)
    lines = [f"does not fit: {device} has {available / GB:.2f} GB; what helps, in this order:"]
    lines += [f"  {override:<44} saves {saved / GB:.2f} GB" for override, saved in changes]
    verdict = "fits" if total <= available else "still too much: take a smaller model"
    return [*lines, f"  then {total / GB:.2f} GB, {verdict}"], False


def _host(config: StageConfig) -> list[str]:
    """What a step needs beside the model, on the machine itself."""
    if images := shown_images_bytes(config):
        return [
            f"RAM: {images / GB:.2f} GB of shown images a step, one of full size a call "
            f"({available_ram() / GB:.2f} GB free)"
        ]
    return []


def _bytes(size: int) -> str:
    return f"{size / GB:8.2f} GB" if size >= GB / 10 else f"{size / MB:8.2f} MB"


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return str(number)
