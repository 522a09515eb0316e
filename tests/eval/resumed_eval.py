"""An evaluation on a task file that a test starts as a process of its own, to kill it."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from pyvision_rl.eval.evaluate import EvaluateConfig
from pyvision_rl.eval.stage import EvalConfig, run_eval
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxConfig


def config_of(data: Path, out: Path, **options) -> EvalConfig:
    """The tiny base on a task file, one task after the other, greedy."""
    agent = AgentConfig(
        sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
        rollout=RolloutConfig(
            prompt="brief", max_tokens=600, max_completion_tokens=60, temperature=0
        ),
    )
    made = EvalConfig(
        policy=PolicyConfig("tiny", PixelLimits(784, 28224)),
        data=str(data),
        out=str(out),
        agent=agent,
        evaluate=EvaluateConfig(max_tasks=1),
    )
    return replace(made, **options)


if __name__ == "__main__":
    made = config_of(Path(sys.argv[1]), Path(sys.argv[2]))
    asyncio.run(run_eval(made, lambda done, total: None))
