"""A synthesis that a test starts as a process of its own, to kill it."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.server_config import ServerConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxConfig
from pyvision_rl.sft.synthesize import SynthesizeConfig, run_synthesize


def config_of(data: Path, out: Path, url: str, **options) -> SynthesizeConfig:
    """A small synthesis by a chat server."""
    agent = AgentConfig(
        sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
        rollout=RolloutConfig(prompt="brief", max_tool_calls=3, max_tokens=4000),
    )
    made = SynthesizeConfig(
        data=str(data),
        out=str(out),
        server=f"{url}/v1",
        max_episodes=2,
        endpoint=ServerConfig(
            tokenizer="tiny", pixels=PixelLimits(784, 28224), max_retries=0, backoff_s=0.001
        ),
        agent=agent,
    )
    return replace(made, **options)


if __name__ == "__main__":
    made = config_of(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    asyncio.run(run_synthesize(made, lambda done, total: None))
