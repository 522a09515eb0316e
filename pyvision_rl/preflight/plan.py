"""What a stage holds in memory, by its configuration, and what to change where it is too much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from pyvision_rl.eval.stage import EvalConfig
from pyvision_rl.model.lora import LoRAConfig
from pyvision_rl.model.memory import MemoryEstimate, Workload, estimate_memory
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.runs.config import resolve_model
from pyvision_rl.sft.stage import SFTConfig

StageConfig: TypeAlias = SFTConfig | RLConfig | EvalConfig

LORA = LoRAConfig(rank=32, alpha=64)
KV_ROWS = 16
"""Contexts of full length that a small KV cache should still hold."""


@dataclass(frozen=True)
class Change:
    """An override that saves memory, and the configuration with it."""

    override: str
    config: StageConfig


def workload(config: StageConfig) -> Workload:
    """What the stage does with the model at once."""
    if isinstance(config, SFTConfig):
        train, unseen = config.train, config.unseen
        return Workload(
            train_tokens=train.micro_batch_tokens,
            optimizer=train.optimizer,
            kv_tokens=_kv_tokens(unseen.agent, unseen.max_tasks) if unseen.data else 0,
        )
    limits = config.agent.rollout
    if isinstance(config, EvalConfig):
        rows = config.evaluate.max_tasks * config.evaluate.num_samples
        return Workload(kv_tokens=_kv_tokens(config.agent, rows))
    rows = config.select.oversample * config.group_size
    return Workload(
        # A sample that is longer than the budget makes a micro-batch of its own.
        train_tokens=max(config.learner.micro_batch_tokens, limits.max_tokens),
        kv_tokens=_kv_tokens(config.agent, rows),
    )


def _kv_tokens(agent: AgentConfig, rows: int) -> int:
    return min(agent.engine.kv_cache_tokens, rows * agent.rollout.max_tokens)


def estimate(config: StageConfig) -> MemoryEstimate:
    """Memory of the stage on the policy's device. Raises InputError for a model not to be read."""
    policy = replace(config.policy, model=resolve_model(config.policy.model))
    return estimate_memory(policy, workload(config))


def shown_images_bytes(config: StageConfig) -> int:
    """RAM of the images that trajectories of one step show, with one of full size a call."""
    if isinstance(config, SFTConfig):
        return 0
    if isinstance(config, EvalConfig):
        rows = config.evaluate.max_tasks * config.evaluate.num_samples
    else:
        rows = config.select.oversample * config.group_size
    return rows * config.agent.rollout.max_tool_calls * config.policy.pixels.max_pixels * 3


def changes_to_fit(config: StageConfig, available: int) -> tuple[list[tuple[str, int]], int]:
    """Overrides, each with the bytes that it saves, until the stage fits; and the total then."""
    total = estimate(config).total
    chosen: list[tuple[str, int]] = []
    for propose in (_checkpointing, _bfloat16, _micro_batch, _kv_cache, _lora, _context):
        for change in propose(config):
            if total <= available:
                return chosen, total
            smaller = estimate(change.config).total
            if smaller < total:
                chosen.append((change.override, total - smaller))
                config, total = change.config, smaller
    return chosen, total


def _with_policy(config: StageConfig, override: str, policy: PolicyConfig) -> Iterator[Change]:
    yield Change(override, replace(config, policy=policy))


def _checkpointing(config: StageConfig) -> Iterator[Change]:
    if not isinstance(config, EvalConfig) and not config.policy.gradient_checkpointing:
        policy = replace(config.policy, gradient_checkpointing=True)
        yield from _with_policy(config, "policy.gradient_checkpointing: true", policy)


def _bfloat16(config: StageConfig) -> Iterator[Change]:
    if config.policy.dtype == "float32":
        policy = replace(config.policy, dtype="bfloat16")
        yield from _with_policy(config, "policy.dtype: bfloat16", policy)


def _micro_batch(config: StageConfig) -> Iterator[Change]:
    if isinstance(config, RLConfig):
        tokens = min(config.learner.micro_batch_tokens, config.agent.rollout.max_tokens)
        learner = replace(config.learner, micro_batch_tokens=tokens)
        yield Change(f"learner.micro_batch_tokens: {tokens}", replace(config, learner=learner))
    elif isinstance(config, SFTConfig):
        tokens = max(1, config.train.micro_batch_tokens // 4)
        train = replace(config.train, micro_batch_tokens=tokens)
        yield Change(f"train.micro_batch_tokens: {tokens}", replace(config, train=train))


def _kv_cache(config: StageConfig) -> Iterator[Change]:
    if isinstance(config, SFTConfig):
        return
    tokens = min(config.agent.engine.kv_cache_tokens, KV_ROWS * config.agent.rollout.max_tokens)
    engine = replace(config.agent.engine, kv_cache_tokens=tokens)
    agent = replace(config.agent, engine=engine)
    yield Change(f"agent.engine.kv_cache_tokens: {tokens}", replace(config, agent=agent))


def _lora(config: StageConfig) -> Iterator[Change]:
    if not isinstance(config, EvalConfig) and not config.policy.lora.rank:
        policy = replace(config.policy, lora=LORA)
        override = f"policy.lora: {{rank: {LORA.rank}, alpha: {LORA.alpha}}}"
        yield from _with_policy(config, override, policy)


def _context(config: StageConfig) -> Iterator[Change]:
    """Half the context, twice at most."""
    if isinstance(config, SFTConfig):
        return
    for divisor in (2, 4):
        tokens = config.agent.rollout.max_tokens // divisor
        rollout = replace(
            config.agent.rollout,
            max_tokens=tokens,
            max_completion_tokens=min(config.agent.rollout.max_completion_tokens, tokens),
        )
        agent = replace(config.agent, rollout=rollout)
        changed: StageConfig = replace(config, agent=agent)
        if isinstance(changed, RLConfig):
            learner = replace(
                changed.learner,
                micro_batch_tokens=min(changed.learner.micro_batch_tokens, tokens),
            )
            changed = replace(changed, learner=learner)
        yield Change(f"agent.rollout.max_tokens: {tokens}", changed)
