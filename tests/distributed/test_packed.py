"""Rows one after the other in a micro-batch, as the runs on GPUs have them. The kernel of flash
attention, which no CPU has, is one attention after the other here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pyvision_rl.distributed.config import DistributedConfig, VerlConfig
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rl.learner import Learner
from pyvision_rl.rl.samples import make_samples
from pyvision_rl.rl.select import SelectConfig, select
from pyvision_rl.types import Group
from tests.distributed.worker import played_groups, rows_of, training_engine

pytestmark = pytest.mark.usefixtures("verl")

SELECT = SelectConfig(oversample=3, num_groups=2)
CHOSEN = {"all": range(7), "one": [4], "equally long": [4, 4]}
LARGEST = {"float32": 1e-6, "bfloat16": 5e-3}
"""Difference between a probability as it was sampled and as it is trained on, by precision."""


def one_after_the_other(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, causal: bool, **_: object
) -> Tensor:
    """Attention within each row; q, k and v [T, heads, D]."""
    bounds = cu_seqlens_q.tolist()
    rows = [
        attention(q[None, start:end], k[None, start:end], v[None, start:end], is_causal=causal)[0]
        for start, end in pairwise(bounds)
    ]
    return torch.cat(rows)


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
    """Within rows of one length; q, k and v [B, T, heads, D]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return scaled_dot_product_attention(q, k, v, is_causal=is_causal).transpose(1, 2)


def of_one_row(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *_: object, is_causal: bool, **__: object
) -> Tensor:
    """Attention in a micro-batch of one row; q, k and v [1, T, heads, D]."""
    assert mask is None
    return attention(q, k, v, is_causal=is_causal)


def as_is(q: Tensor, k: Tensor, v: Tensor, **_: object) -> tuple[Tensor, Tensor, Tensor]:
    return q, k, v


@contextmanager
def without_flash_attention() -> Iterator[None]:
    """verl's attention without flash-attn; what verl puts into transformers is taken out again."""
    from transformers.integrations import flash_attention
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as theirs
    from transformers.models.qwen2_vl import modeling_qwen2_vl as older
    from verl.models.transformers import qwen2_vl

    with pytest.MonkeyPatch.context() as patch:
        for name in ("Attention", "Model", "ForConditionalGeneration"):
            for holder in (getattr(theirs, f"Qwen2_5_VL{name}"), getattr(older, f"Qwen2VL{name}")):
                patch.setattr(holder, "forward", holder.forward)
        name = "_flash_attention_forward"
        patch.setattr(flash_attention, name, getattr(flash_attention, name))
        patch.setattr(qwen2_vl, name, of_one_row)
        patch.setattr(qwen2_vl, "flash_attn_varlen_func", one_after_the_other, raising=False)
        patch.setattr(qwen2_vl, "fa_peft_integration_check", as_is)
        for flag in ("supports_window_size", "supports_deterministic", "use_top_left_mask"):
            patch.setattr(qwen2_vl, f"_flash_{flag}", False, raising=False)
        yield


@pytest.fixture(scope="module", params=LARGEST)
def config(request, tiny_random_checkpoint, tmp_path_factory) -> DistributedConfig:
    return DistributedConfig(
        policy=PolicyConfig(
            str(tiny_random_checkpoint), PixelLimits(784, 28224), dtype=request.param
        ),
        data="unused.json",
        out=str(tmp_path_factory.mktemp("out")),
        engine="verl",
        verl=VerlConfig(
            gpus_per_node=1,
            flash_attention=False,
            overrides=(
                "trainer.device=cpu",
                "actor_rollout_ref.model.use_remove_padding=true",
                "actor_rollout_ref.actor.fsdp_config.use_torch_compile=false",
            ),
        ),
    )


@pytest.fixture(scope="module")
def policy(config) -> Policy:
    return Policy.load(config.policy)


@pytest.fixture(scope="module")
def groups(policy) -> tuple[Group, ...]:
    return played_groups(policy)


@pytest.fixture(scope="module")
def entropies(config, groups) -> dict[tuple[int, ...], float]:
    """Of the chosen samples, by the embedded learner."""
    kept = make_samples(select(groups, SELECT).kept)
    found = {}
    for chosen in CHOSEN.values():
        learner = Learner(Policy.load(config.policy), config.learner, 1.0)
        metrics = learner.update([kept[place] for place in chosen], seed=0)
        found[tuple(chosen)] = metrics["loss/entropy"]
    return found


@pytest.fixture(scope="module")
def engine(config, groups, entropies):
    with without_flash_attention(), training_engine(config) as built:
        yield built


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
def test_packed_tokens_have_the_probability_with_which_they_were_sampled(
    config, policy, groups, entropies, engine, chosen
):
    from pyvision_rl.distributed.loss import loss_function

    kept = make_samples(select(groups, SELECT).kept)
    samples = [kept[place] for place in chosen]
    assert max(len(sample.images) for sample in samples) >= 2
    data = rows_of(samples, policy, max_tokens=4000, is_packed=True)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        found = engine.forward_backward_batch(data, loss_function(config.learner.loss))
        gradients = [p.grad.full_tensor() for p in engine.module.parameters() if p.requires_grad]
        engine.optimizer_zero_grad()
    assert found["metrics"]["probs_diff_max"].aggregate() < LARGEST[config.policy.dtype]
    entropy = found["metrics"]["entropy"].aggregate()
    tokens = sum(sample.num_loss_tokens for sample in samples)
    assert entropy / tokens == pytest.approx(entropies[tuple(chosen)], rel=1e-3)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3
