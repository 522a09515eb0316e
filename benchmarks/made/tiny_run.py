"""A policy and a configuration as the quickstart's RL stage has them."""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path

from pyvision_rl.cli.parse import parse_config
from pyvision_rl.data.needle_files import TRAIN_FILE, NeedleConfig, load_plans, write_needle
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.sft.needle import NeedleTraceConfig, write_needle_traces
from pyvision_rl.sft.stage import SFTConfig, run_sft

SHIPPED = resources.files("pyvision_rl.configs")
TRACE_SEED = 1


def tiny_rl(folder: Path, policy: str | None, num_steps: int, *overrides: str) -> RLConfig:
    """The tiny recipe on fresh items, from `policy`, or from a cold start made here."""
    data = folder / "data"
    write_needle(data, NeedleConfig(num_train=512, num_test=0))
    arguments = ["--policy.model", policy or cold_start(folder), "--data", str(data / TRAIN_FILE)]
    arguments += ["--out", str(folder / "rl"), "--num_steps", str(num_steps), *overrides]
    with resources.as_file(SHIPPED / "rl" / "image_tiny.yaml") as path:
        return parse_config("rl", RLConfig, ["--config", str(path), *arguments])


def cold_start(folder: Path) -> str:
    """The shipped base after the recipe's cold start on fresh traces."""
    with resources.as_file(SHIPPED / "sft" / "image_tiny.yaml") as path:
        arguments = ["--config", str(path), "--out", str(folder / "sft")]
        arguments += ["--data", str(folder / "traces" / "traces.json")]
        config = parse_config("sft", SFTConfig, arguments)
    codec = ChatCodec.from_folder(checkpoint_folder(config.policy.model), config.policy.pixels)
    asyncio.run(_write_traces(folder / "traces", codec))
    return str(run_sft(config, lambda *_: None))


async def _write_traces(folder: Path, codec: ChatCodec) -> None:
    write_needle(folder / "data", NeedleConfig(num_train=400, num_test=0, seed=TRACE_SEED))
    rollout = RolloutConfig(prompt="brief", max_tokens=1024, max_images=8)
    async with SandboxPool(SandboxConfig(figures="pixels")) as pool:
        await write_needle_traces(
            folder,
            read_tasks(folder / "data" / TRAIN_FILE),
            load_plans(folder / "data"),
            codec,
            pool,
            rollout,
            NeedleTraceConfig(),
            TRACE_SEED,
        )
