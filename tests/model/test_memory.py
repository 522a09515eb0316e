"""The formulas beside what torch really keeps; the sum beside a process is in benchmarks/."""

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.kv import SPARE_SHARE, RowCache
from pyvision_rl.model.lora import LoRAConfig
from pyvision_rl.model.memory import (
    Workload,
    build_on_meta,
    estimate_memory,
    kv_bytes_per_token,
    layer_bytes_per_token,
)
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.prefix_tree import merge
from pyvision_rl.model.tree_attention import Branches

ROWS, LENGTH = 3, 50


def config_of(folder: Path, **changes) -> PolicyConfig:
    return PolicyConfig(str(folder), PixelLimits(784, 28224), **changes)


def kept_bytes(policy: Policy) -> int:
    """Bytes that autograd keeps of a forward pass through the layers, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor
        return tensor

    text = policy.text_config
    dtype = policy.model.dtype
    rows = [np.arange(LENGTH) + LENGTH * row for row in range(ROWS)]
    branches = Branches.of(merge(rows), dtype, policy.device, with_masks=True)
    embeds = torch.randn(1, ROWS * LENGTH, text.hidden_size).to(dtype).requires_grad_()
    positions = torch.arange(LENGTH).repeat(ROWS)[None, None].expand(3, 1, ROWS * LENGTH)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask={"full_attention": branches},
            use_cache=False,
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_layer_keeps_what_the_formula_says(tiny_random_checkpoint, dtype, rank):
    config = config_of(tiny_random_checkpoint, dtype=dtype, lora=LoRAConfig(rank))
    policy = Policy.load(config)
    text = policy.text_config
    size = 2 if dtype == "bfloat16" else 4
    layer = layer_bytes_per_token(text, size, is_adapted=rank > 0)
    expected = ROWS * LENGTH * text.num_hidden_layers * layer
    assert kept_bytes(policy) == pytest.approx(expected, rel=0.06)


def test_keys_and_values(tiny_random_checkpoint):
    policy = Policy.load(config_of(tiny_random_checkpoint))
    cache = RowCache(policy.text_config, torch.float32, policy.device)
    cache.reserve(2, 100)
    kv = cache.read(0, 10)
    # 3 layers x key and value x 2 heads of 32 x 4 bytes
    assert kv_bytes_per_token(policy.text_config, 4) == 3 * 2 * 2 * 32 * 4
    assert kv.nbytes == 10 * kv_bytes_per_token(policy.text_config, 4)


def test_a_buffer_is_as_large_as_the_formula_says_and_grows_by_layers(
    tiny_random_checkpoint, monkeypatch
):
    made: list[weakref.ref[torch.Tensor]] = []
    counts = []
    plain = RowCache._allocate

    def watched(cache: RowCache, rows: int, tokens: int) -> torch.Tensor:
        buffer = plain(cache, rows, tokens)
        made.append(weakref.ref(buffer))
        counts.append(sum(reference() is not None for reference in made))
        return buffer

    policy = Policy.load(config_of(tiny_random_checkpoint))
    cache = RowCache(policy.text_config, torch.float32, policy.device)
    cache.reserve(8, 400)
    monkeypatch.setattr(RowCache, "_allocate", watched)
    cache.write(7, torch.ones(3, 2, 399, 2, 32))
    cache.reserve(8, 800)
    cache.reserve(8, 1600)
    assert max(counts) <= 3 + 2  # all layers, the old one that is copied, the one before it
    sizes = [buffer.nbytes for reference in made if (buffer := reference()) is not None]
    tokens = int(8 * 1600 * SPARE_SHARE)
    assert sum(sizes) == tokens * kv_bytes_per_token(policy.text_config, 4)
    assert torch.equal(cache.read(7, 399), torch.ones(3, 2, 399, 2, 32))


@pytest.mark.parametrize(("freeze_vision", "dtype"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("rank", [0, 4])
def test_weights_on_meta_are_those_of_the_policy(
    tiny_random_checkpoint, freeze_vision, dtype, rank
):
    config = config_of(
        tiny_random_checkpoint, freeze_vision=freeze_vision, dtype=dtype, lora=LoRAConfig(rank)
    )
    policy = Policy.load(config)
    loaded = list(policy.model.parameters())
    planned = list(build_on_meta(config).parameters())
    assert all(parameter.is_meta for parameter in planned)
    assert [p.dtype for p in planned] == [p.dtype for p in loaded]
    assert [p.shape for p in planned] == [p.shape for p in loaded]
    assert [p.requires_grad for p in planned] == [p.requires_grad for p in loaded]


def test_parts_of_training(tiny_random_checkpoint):
    config = config_of(tiny_random_checkpoint, feature_cache_mb=3)
    work = Workload(train_tokens=1000, kv_tokens=500)
    whole = estimate_memory(config, work)
    assert whole.held["weights"] == 4 * whole.parameters
    assert whole.held["gradients"] == 4 * whole.trainable
    assert whole.held["optimizer"] == 8 * whole.trainable
    assert whole.held["vision features"] == 3 * 2**20
    # 500 tokens, with 1/8 more rows and 1/4 more tokens a row than are needed
    assert whole.transient["KV cache"] == 703 * 3 * 2 * 2 * 32 * 4
    # 1000 tokens x 320 words x 4 tensors x 4 bytes of logits beside the layers
    assert whole.transient["activations"] > 1000 * 320 * 16
    assert whole.total == sum(whole.held.values()) + max(whole.transient.values())

    half = estimate_memory(replace(config, dtype="bfloat16"), work)
    assert half.held["weights"] == 2 * half.parameters
    assert half.held["gradients"] == 6 * half.trainable  # the sum, and what is added to it
    assert half.held["optimizer"] == 12 * half.trainable  # two moments and the master
    again = estimate_memory(replace(config, gradient_checkpointing=True), work)
    assert again.transient["activations"] < whole.transient["activations"]
    on_gpu = estimate_memory(replace(config, device="cuda"), work)
    assert "optimizer step" not in whole.transient
    assert on_gpu.transient["optimizer step"] == 4 * whole.trainable
    adapted = estimate_memory(replace(config, lora=LoRAConfig(4)), work)
    assert adapted.trainable < whole.trainable / 10
    assert set(estimate_memory(config, Workload(kv_tokens=10)).held) == {
        "weights",
        "vision features",
    }
