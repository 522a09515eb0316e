"""`serve --dry-run`: its model measured or its server looked at, and its port tried."""

from __future__ import annotations

from dataclasses import replace

from pyvision_rl.address import bind
from pyvision_rl.errors import ConfigError
from pyvision_rl.eval.evaluate import EvaluateConfig
from pyvision_rl.eval.stage import EvalConfig
from pyvision_rl.preflight.dry_run import DryRun, check_memory, check_prompts
from pyvision_rl.preflight.served import check_served
from pyvision_rl.runs.config import dump_config
from pyvision_rl.serve.stage import ServeConfig


def dry_run_serve(config: ServeConfig, memory_gb: float = 0.0) -> DryRun:
    """Check a server's configuration, and the memory of its model or that its model server answers.

    Raises PyVisionError in one line for what cannot be used, a port that is taken among it.
    """
    if bool(config.model) == bool(config.server):
        raise ConfigError("give either model, a checkpoint, or server, an address")
    bind(config.host, config.port).close()
    if config.server:
        check_prompts(config.agent.rollout)
        found, fits = [check_served(replace(config.endpoint, url=config.server))], True
    else:
        stage = EvalConfig(
            replace(config.policy, model=config.model),
            data="",
            out="",
            agent=config.agent,
            evaluate=EvaluateConfig(max_tasks=config.limits.max_running),
        )
        found, fits = check_memory(stage, memory_gb)
    address = f"http://{config.host}:{config.port}/v1 is free"
    return DryRun((dump_config(config).rstrip(), "", *found, address), fits)
