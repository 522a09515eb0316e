"""Opening an agent: engine and sandbox started together, stopped together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

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


@asynccontextmanager
async def open_agent(policy: Policy, config: AgentConfig) -> AsyncIterator[Agent]:
    """Start the sandbox pool and the engine of a policy."""
    async with (
        SandboxPool(config.sandbox) as pool,
        HFEngine(policy, config.engine) as engine,
    ):
        yield Agent(engine, policy.codec, pool, config.rollout)


def with_rollout(agent: Agent, rollout: RolloutConfig) -> Agent:
    """The same engine and sandbox under other limits or sampling."""
    return replace(agent, config=rollout)
