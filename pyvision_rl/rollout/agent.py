"""Opening an agent: engine and sandbox started together, stopped together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.hf_engine import EngineConfig, HFEngine
from pyvision_rl.model.policy import Policy
from pyvision_rl.rollout.episode import Agent, RolloutConfig
from pyvision_rl.sandbox import SandboxConfig, SandboxPool


@dataclass(frozen=True)
class AgentConfig:
    """How the policy is played: sampling engine, sandbox and limits of an episode."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    """The sampler."""
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    """Where the policy's programs run."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """Prompt, limits and sampling of an episode."""

    def __post_init__(self) -> None:
        held, context = self.engine.kv_cache_tokens, self.rollout.max_tokens
        if held < context:
            raise ConfigError(
                f"engine.kv_cache_tokens: {held}, must hold one context of rollout.max_tokens "
                f"({context})"
            )


@asynccontextmanager
async def open_agent(
    policy: Policy, config: AgentConfig, pool: SandboxPool | None = None
) -> AsyncIterator[Agent]:
    """Start the engine of a policy, and a sandbox pool where none that runs is given."""
    async with (
        nullcontext(pool) if pool else SandboxPool(config.sandbox) as open_pool,
        HFEngine(policy, config.engine) as engine,
    ):
        yield Agent(engine, policy.codec, open_pool, config.rollout)
