"""Our configuration in verl's words; the expected words are verl's documented ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import pyvision_rl.configs
from pyvision_rl.cli.parse import parse_config
from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.distributed.mapping import hydra_overrides, verl_settings
from pyvision_rl.errors import ConfigError
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.runs.config import dump_config

CONFIGS = Path(pyvision_rl.configs.__file__).parent / "rl"
CPU = Path(__file__).with_name("cpu.yaml")


def read(*arguments: str) -> DistributedConfig:
    return parse_config("rl", DistributedConfig, list(arguments))


def test_the_papers_settings_reach_verl():
    config = read(f"--config={CONFIGS / 'image_7b.yaml'}", "--engine=verl")
    settings = verl_settings(config)
    assert settings["trainer.nnodes"] == 1
    assert settings["trainer.n_gpus_per_node"] == 8
    assert settings["trainer.total_training_steps"] == 700
    assert settings["actor_rollout_ref.model.path"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert settings["actor_rollout_ref.model.enable_gradient_checkpointing"] is True
    assert settings["actor_rollout_ref.actor.optim.lr"] == 1e-6
    assert settings["actor_rollout_ref.actor.optim.clip_grad"] == 1.0
    # 16 groups of 8 in one update
    assert settings["actor_rollout_ref.actor.ppo_mini_batch_size"] == 128
    assert settings["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] == 32768
    assert settings["actor_rollout_ref.rollout.max_model_len"] == 32768
    assert settings["actor_rollout_ref.rollout.temperature"] == 1.0
    # A sampler that resized images once more would place other tokens than we count.
    resizing = settings["+actor_rollout_ref.rollout.engine_kwargs.vllm.mm_processor_kwargs"]
    assert resizing == {"min_pixels": 3136, "max_pixels": 2_000_000}
    precision = settings["+actor_rollout_ref.actor.fsdp_config.mixed_precision"]
    assert precision == {"param_dtype": "bf16", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def test_settings_are_hydra_words_and_the_users_come_last():
    words = hydra_overrides(read(f"--config={CONFIGS / 'image_7b.yaml'}", f"--config={CPU}"))
    assert "actor_rollout_ref.actor.optim.betas=[0.9,0.999]" in words
    assert "actor_rollout_ref.model.use_remove_padding=false" in words
    assert "actor_rollout_ref.rollout.name='vllm'" in words
    assert words.index("actor_rollout_ref.rollout.name=hf") > words.index(
        "actor_rollout_ref.rollout.name='vllm'"
    )
    assert not any("address" in word for word in words)


def test_a_row_longer_than_a_micro_batch_still_fits_in_one():
    # the tiny recipe has micro-batches of 2048 tokens and trajectories of up to 1024
    tiny = read(f"--config={CONFIGS / 'image_tiny.yaml'}", "--learner.micro_batch_tokens=300")
    assert verl_settings(tiny)["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] == 1024
    shared = read(
        f"--config={CONFIGS / 'image_7b.yaml'}", "--verl.sequence_parallel=4", "--engine=verl"
    )
    assert verl_settings(shared)["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] == 8192


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine=verl", "--policy.lora.rank=8"], "policy.lora.rank: 8; on verl all weights"),
        (["--verl.gpus_per_node=0"], "verl.gpus_per_node: 0, must be at least 1"),
        (["--verl.tensor_parallel=3"], "verl.tensor_parallel: 3, must divide the 8 GPUs"),
        (["--verl.sampler_memory=1.5"], "verl.sampler_memory: 1.5, must be above 0, below 1"),
        (
            ["--verl.sequence_parallel=2", "--verl.flash_attention=false"],
            "verl.sequence_parallel: above 1 only with flash_attention",
        ),
        (
            ["--engine=verl", "--policy.dtype=float32"],
            "verl.flash_attention: computes in bfloat16 only, policy.dtype is float32",
        ),
        (["--engine=ray"], "engine"),
    ],
)
def test_what_cannot_run_is_refused(arguments, message):
    with pytest.raises(ConfigError) as raised:
        read(f"--config={CONFIGS / 'image_7b.yaml'}", *arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_embedded_run_is_recorded_without_machines():
    config = read(f"--config={CONFIGS / 'image_tiny.yaml'}")
    assert config.engine == "embedded"
    assert type(config.embedded()) is RLConfig
    assert not {"engine", "verl"} & yaml.safe_load(dump_config(config.embedded())).keys()
    assert {"engine", "verl"} <= yaml.safe_load(dump_config(config)).keys()
