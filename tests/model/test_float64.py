"""Sampling and training in double precision: what is left of their difference is no rounding.

In float32 a trained model turns rounding into differences of up to 1e-4 in the probability of a
token; a token out of place, or an image, would hide among them.
"""

import asyncio
from collections.abc import Iterator

import pytest
import torch

from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.hf_engine import HFEngine
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import Policy, PolicyConfig
from tests.model.play import play

to_float = torch.Tensor.float


def keep_double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else to_float(tensor)


def normalize(norm, hidden):
    """transformers' RMSNorm, which else computes in float32."""
    mean = hidden.pow(2).mean(-1, keepdim=True)
    return norm.weight * hidden * torch.rsqrt(mean + norm.variance_epsilon)


@pytest.fixture
def policy(monkeypatch) -> Iterator[Policy]:
    """The shipped base, all of it in float64 but the table of rotary angles."""
    policy = Policy.load(PolicyConfig("tiny", PixelLimits(784, 28224)))
    policy.model.double()
    for module in policy.model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            monkeypatch.setattr(type(module), "forward", normalize)
        for name in ("inv_freq", "original_inv_freq"):
            if name in dict(module.named_buffers(recurse=False)):
                setattr(module, name, getattr(module, name).to(torch.float32))
    monkeypatch.setattr(torch.Tensor, "float", keep_double)
    torch.set_default_dtype(torch.float64)
    yield policy
    torch.set_default_dtype(torch.float32)


def test_tokens_have_the_probability_with_which_they_were_sampled(policy):
    async def converse():
        async with HFEngine(policy) as engine:
            params = SamplingParams(max_tokens=24)
            return await asyncio.gather(
                *(play(engine, policy.codec, seed, params=params) for seed in range(8))
            )

    contexts = asyncio.run(converse())
    assert sum(len(context.images) for context in contexts) > 12
    sampled, trained = [], []
    for context in contexts:
        ids, mask = list(context.prompt.token_ids), [0] * len(context.prompt.token_ids)
        for turn in context.turns:
            shown = turn.observation.token_ids if turn.observation else ()
            ids += [*turn.completion.token_ids, *shown]
            mask += [1] * len(turn.completion.token_ids) + [0] * len(shown)
            sampled += turn.completion.logprobs
        tokens, loss_mask = torch.tensor([ids]), torch.tensor([mask])
        with torch.no_grad():
            logprobs, _ = policy.token_logprobs(
                tokens, torch.ones_like(tokens), loss_mask, context.images
            )
        trained += logprobs[loss_mask.bool()].tolist()
    assert len(sampled) > 200
    moved = torch.tensor(trained).exp() - torch.tensor(sampled).exp()
    assert moved.dtype == torch.float64
    assert moved.abs().max() < 1e-12
