"""Our configuration in verl's words: every setting that is not verl's own default.

Knows verl's names only; nothing of verl is imported, so that a dry run can show it anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.runs.config import resolve_model

Setting: TypeAlias = "str | int | float | bool | Sequence[Setting] | Mapping[str, Setting]"

ENGINE_MODULE = "pyvision_rl.distributed.policy_engine"
"""Imported by every worker; registers our training engine."""
ENGINE_VARIABLE = "VERL_ENGINE_VENDOR"
"""By this environment variable verl picks a training engine."""
TRAIN_ALL = "pyvision_rl"
FREEZE_VISION = "pyvision_rl_frozen_vision"
"""The two engines: all weights are trained, or all but the vision tower's."""

ACTOR = "actor_rollout_ref.actor"
MODEL = "actor_rollout_ref.model"
SAMPLER = "actor_rollout_ref.rollout"

STORAGE_UNITS_PER_NODE = 2
"""What verl's queue recommends."""


def verl_settings(config: DistributedConfig) -> dict[str, Setting]:
    """Settings by dotted name, those of `verl.overrides` excepted. A name that verl's own tree does
    not have starts with `+`."""
    return {
        **_machines(config),
        **_model(config),
        **_learner(config),
        **_sampler(config),
    }


def resolve_base(config: DistributedConfig) -> DistributedConfig:
    """The run with the checkpoint itself as its base: where a run folder is named, its newest one
    may be another when this run is resumed. Raises InputError where that folder has none.
    """
    return replace(config, policy=replace(config.policy, model=resolve_model(config.policy.model)))


def model_path(config: DistributedConfig) -> str:
    """The checkpoint to start from: an absolute folder, the same on every machine, or a hub id."""
    model = checkpoint_folder(config.policy.model)
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def hydra_overrides(config: DistributedConfig) -> list[str]:
    """The settings as verl's own command line takes them, the user's last."""
    settings = verl_settings(config)
    return [f"{name}={_word(value)}" for name, value in settings.items()] + [*config.verl.overrides]


def _machines(config: DistributedConfig) -> dict[str, Setting]:
    verl = config.verl
    vendor = FREEZE_VISION if config.policy.freeze_vision else TRAIN_ALL
    settings: dict[str, Setting] = {
        "trainer.nnodes": verl.num_nodes,
        "trainer.n_gpus_per_node": verl.gpus_per_node,
        "trainer.total_training_steps": config.num_steps,
        "algorithm.adv_estimator": "grpo",
        "reward.num_workers": 1,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": (
            STORAGE_UNITS_PER_NODE * verl.num_nodes
        ),
        f"+ray_kwargs.ray_init.runtime_env.env_vars.{ENGINE_VARIABLE}": vendor,
        "+ray_kwargs.ray_init.log_to_driver": False,
    }
    if verl.ray_address:
        settings["+ray_kwargs.ray_init.address"] = verl.ray_address
    return settings


def _model(config: DistributedConfig) -> dict[str, Setting]:
    flash = config.verl.flash_attention
    return {
        f"{MODEL}.path": model_path(config),
        f"{MODEL}.external_lib": ENGINE_MODULE,
        f"+{MODEL}.override_config.attn_implementation": "flash_attention_2" if flash else "sdpa",
        f"{MODEL}.use_remove_padding": flash,
        f"{MODEL}.enable_gradient_checkpointing": config.policy.gradient_checkpointing,
    }


def _learner(config: DistributedConfig) -> dict[str, Setting]:
    learner, verl = config.learner, config.verl
    rows = config.select.num_groups * config.group_size
    precision = {"float32": "fp32", "bfloat16": "bf16"}[config.policy.dtype]
    # verl refuses a row that is longer than a micro-batch; ours gets one of its own.
    tokens = max(learner.micro_batch_tokens, config.agent.rollout.max_tokens)
    return {
        "data.train_batch_size": rows,
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.ppo_mini_batch_size": max(1, rows // learner.num_minibatches),
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ACTOR}.ppo_max_token_len_per_gpu": -(-tokens // verl.sequence_parallel),
        f"{ACTOR}.ulysses_sequence_parallel_size": verl.sequence_parallel,
        f"{ACTOR}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        f"{ACTOR}.optim.lr": learner.learning_rate,
        f"{ACTOR}.optim.betas": [0.9, learner.beta2],
        f"{ACTOR}.optim.weight_decay": learner.weight_decay,
        f"{ACTOR}.optim.clip_grad": learner.grad_clip,
        f"{ACTOR}.fsdp_config.model_dtype": "fp32",
        f"+{ACTOR}.fsdp_config.mixed_precision": {
            "param_dtype": precision,
            "reduce_dtype": "fp32",
            "buffer_dtype": "fp32",
        },
        f"{ACTOR}.fsdp_config.param_offload": verl.offload,
        f"{ACTOR}.fsdp_config.optimizer_offload": verl.offload,
        f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": verl.sequence_parallel,
    }


def _sampler(config: DistributedConfig) -> dict[str, Setting]:
    rollout, verl = config.agent.rollout, config.verl
    return {
        # Only bounds: an episode says itself how many tokens a completion may have.
        "data.max_prompt_length": rollout.max_tokens,
        "data.max_response_length": rollout.max_tokens,
        f"{SAMPLER}.name": "vllm",
        f"{SAMPLER}.temperature": rollout.temperature,
        f"{SAMPLER}.dtype": config.policy.dtype,
        f"{SAMPLER}.max_model_len": rollout.max_tokens,
        f"{SAMPLER}.max_num_seqs": config.agent.engine.max_rows,
        f"{SAMPLER}.tensor_model_parallel_size": verl.tensor_parallel,
        f"{SAMPLER}.gpu_memory_utilization": verl.sampler_memory,
        # vLLM resizes images by itself: with other limits it would see other tokens than we count.
        f"+{SAMPLER}.engine_kwargs.vllm.mm_processor_kwargs": asdict(config.policy.pixels),
    }


def _word(value: Setting) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if value else "''"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_word, value)) + "]"
    return repr(value)
