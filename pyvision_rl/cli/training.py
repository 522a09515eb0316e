"""The commands that make weights: quickstart, sft, rl, ablate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pyvision_rl.cli.parse import is_dry_run, parse_config, split_dry_run


def quickstart(arguments: list[str]) -> int:
    """Data, cold start, RL and evaluation of the embedded default."""
    from importlib import resources

    from pyvision_rl.quickstart import QuickstartConfig, run_quickstart

    shipped = resources.files("pyvision_rl.configs") / "quickstart.yaml"
    with resources.as_file(shipped) as path:
        config = parse_config("quickstart", QuickstartConfig, arguments, ["--config", str(path)])
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
    from pyvision_rl.rl.config import RLConfig
    from pyvision_rl.rl.train import train

    options, arguments = split_dry_run(arguments)
    config = parse_config("rl", RLConfig, arguments)
    if is_dry_run("rl", config, options):
        return 0
    with stage("RL") as bar:
        checkpoint = asyncio.run(
            train(config, lambda step, metrics: bar.step(step, config.num_steps, metrics))
        )
    say(f"checkpoint  {checkpoint}")
    return 0


def ablate(arguments: list[str]) -> int:
    """Arms and seeds of the RL stage, in one table; goes on where the folder stands."""
    from pyvision_rl.ablate.config import AblateConfig
    from pyvision_rl.ablate.run import run_ablations
    from pyvision_rl.console import say, stage

    config = parse_config("ablate", AblateConfig, arguments)
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
