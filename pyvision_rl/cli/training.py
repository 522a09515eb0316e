"""The commands that make weights: quickstart, sft, rl, ablate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyvision_rl.cli.parse import (
    is_dry_run,
    missing_extra,
    parse_config,
    show_dry_run,
    split_dry_run,
)

if TYPE_CHECKING:
    from pyvision_rl.distributed.config import DistributedConfig
    from pyvision_rl.preflight.options import DryRunConfig


def quickstart(arguments: list[str]) -> int:
    """Data, cold start, RL and evaluation of the embedded default, on images or on videos."""
    from importlib import resources

    from pyvision_rl.quickstart import (
        QuickstartConfig,
        VideoQuickstartConfig,
        run_quickstart,
        run_video_quickstart,
    )

    options, arguments = split_dry_run(arguments)
    is_video = arguments[:1] == ["video"]
    name = "quickstart_video.yaml" if is_video else "quickstart.yaml"
    shipped = resources.files("pyvision_rl.configs") / name
    with resources.as_file(shipped) as path:
        defaults = ["--config", str(path)]
        if is_video:
            command, words = "quickstart video", arguments[1:]
            config = parse_config(command, VideoQuickstartConfig, words, defaults)
        else:
            config = parse_config("quickstart", QuickstartConfig, arguments, defaults)
    if options.dry_run:
        from pyvision_rl.quickstart.dry_run import dry_run_quickstart

        return show_dry_run("quickstart", dry_run_quickstart(config, options.memory_gb))
    if isinstance(config, VideoQuickstartConfig):
        asyncio.run(run_video_quickstart(config))
    else:
        asyncio.run(run_quickstart(config))
    return 0


def sft(arguments: list[str]) -> int:
    """Supervised fine-tuning on traces."""
    from pyvision_rl.console import say, stage
    from pyvision_rl.sft.stage import SFTConfig, run_sft

    options, arguments = split_dry_run(arguments)
    config = parse_config("sft", SFTConfig, arguments)
    if is_dry_run("sft", config, options):
        return 0
    with stage("SFT") as bar:
        checkpoint = run_sft(config, bar.step)
    say(f"checkpoint  {checkpoint}")
    return 0


def rl(arguments: list[str]) -> int:
    """Reinforcement learning; goes on where the run folder stands."""
    from pyvision_rl.console import say, stage
    from pyvision_rl.distributed.config import DistributedConfig

    options, arguments = split_dry_run(arguments)
    config = parse_config("rl", DistributedConfig, arguments)
    if config.engine == "verl":
        return _rl_on_verl(config, options)
    run = config.embedded()
    if is_dry_run("rl", run, options):
        return 0
    from pyvision_rl.rl.train import train

    with stage("RL") as bar:
        checkpoint = asyncio.run(
            train(run, lambda step, metrics: bar.step(step, run.num_steps, metrics))
        )
    say(f"checkpoint  {checkpoint}")
    return 0


def _rl_on_verl(config: DistributedConfig, options: DryRunConfig) -> int:
    """The run on many GPUs, or what verl would be told."""
    from pyvision_rl.console import say, stage

    if options.dry_run:
        from pyvision_rl.preflight.dry_verl import dry_run_verl

        return show_dry_run("rl", dry_run_verl(config, options.memory_gb))
    try:
        from pyvision_rl.distributed.launch import train_on_verl
    except ModuleNotFoundError as error:
        raise missing_extra("rl --engine verl", error, "verl") from error
    with stage("RL on verl") as bar:
        checkpoint = train_on_verl(
            config, lambda step, metrics: bar.step(step, config.num_steps, metrics)
        )
    say(f"checkpoint  {checkpoint}")
    return 0


def ablate(arguments: list[str]) -> int:
    """Arms and seeds of the RL stage, in one table; goes on where the folder stands."""
    from pyvision_rl.ablate.config import AblateConfig
    from pyvision_rl.ablate.run import run_ablations
    from pyvision_rl.console import say, stage

    options, arguments = split_dry_run(arguments)
    config = parse_config("ablate", AblateConfig, arguments)
    if options.dry_run:
        from pyvision_rl.ablate.dry_run import dry_run_ablations

        return show_dry_run("ablate", dry_run_ablations(config, options.memory_gb))
    with stage("ablations") as bar:

        def on_step(title: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
            if step == 1:
                say(title)
            bar.step(step, total, metrics)

        table = asyncio.run(run_ablations(config, on_step))
    say(table.read_text())
    say(f"table    {table}")
    say(f"figures  {table.parent / 'figures'}")
    return 0
