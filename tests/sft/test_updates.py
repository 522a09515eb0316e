"""The optimizer updates of the cold start, by what they do to the weights."""

from dataclasses import replace
from random import Random

import pytest
import torch

from pyvision_rl.model.batch import Sample
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.sft.data import epoch_batches
from pyvision_rl.sft.train import SFTTrainConfig, train

ONE_STEP = SFTTrainConfig(batch_size=8, learning_rate=1e-3, warmup_steps=0, grad_clip=1e9)


@pytest.fixture
def policy(tiny_random_checkpoint) -> Policy:
    return Policy.load(PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224)))


def again(policy: Policy, **changes) -> Policy:
    """The checkpoint anew."""
    return Policy.load(replace(policy.config, **changes))


def samples_of(policy: Policy, count: int = 4) -> list[Sample]:
    """Conversations of 2, 3, 4 ... tokens to learn."""
    rng = Random(0)
    words = policy.codec.encode_completion("I see 0 1 2 3 4 5 6 7 8 9 find the red tag.")[0][:-1]
    prompt = policy.codec.prompt("find", []).token_ids
    samples = []
    for index in range(count):
        ids = (*prompt, *rng.choices(words, k=2 + index))
        mask = (*[0] * len(prompt), *[1] * (2 + index))
        samples.append(Sample(ids, mask, (0.0,) * len(ids), 1.0, ()))
    return samples


def trained(
    policy: Policy, samples: list[Sample], config: SFTTrainConfig, seed: int = 0
) -> list[dict[str, float]]:
    logged: list[dict[str, float]] = []
    train(policy, samples, config, seed, lambda _, metrics: logged.append(metrics))
    return logged


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in policy.model.named_parameters() if p.requires_grad}


def gradient_norm(policy: Policy) -> float:
    gradients = [p.grad for p in policy.model.parameters() if p.grad is not None]
    return sum(float((gradient**2).sum()) for gradient in gradients) ** 0.5


def test_an_update_does_not_depend_on_the_micro_batch(policy):
    samples, cut = samples_of(policy), again(policy)
    (whole,) = trained(policy, samples, ONE_STEP)
    (parts,) = trained(cut, samples, replace(ONE_STEP, micro_batch_tokens=1))
    assert whole["loss/num_tokens"] == parts["loss/num_tokens"] == 2 + 3 + 4 + 5
    assert parts["loss/sft"] == pytest.approx(whole["loss/sft"], rel=1e-5)
    assert parts["learner/grad_norm"] == pytest.approx(whole["learner/grad_norm"], rel=1e-4)
    assert policy.version == 1


def test_the_loss_is_the_mean_over_the_tokens_to_learn(policy):
    samples = samples_of(policy, 2)
    total = 0.0
    for sample in samples:
        ids = torch.tensor([sample.token_ids])
        with torch.no_grad():
            logprobs, _ = policy.token_logprobs(
                ids, torch.ones_like(ids), torch.tensor([sample.loss_mask]), ()
            )
        total -= float(logprobs.sum())
    (metrics,) = trained(policy, samples, ONE_STEP)
    assert metrics["loss/sft"] == pytest.approx(total / 5, rel=1e-5)


def test_every_update_begins_without_a_gradient(policy):
    config = replace(ONE_STEP, num_epochs=3, learning_rate=1e-12)
    norms = [found["learner/grad_norm"] for found in trained(policy, samples_of(policy), config)]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


def test_a_gradient_is_cut_to_its_largest_norm_and_told_uncut(policy):
    (metrics,) = trained(policy, samples_of(policy), replace(ONE_STEP, grad_clip=1e-3))
    assert gradient_norm(policy) == pytest.approx(1e-3, rel=1e-3)
    assert metrics["learner/grad_norm"] > 2e-3


def test_weights_move_by_the_rate_of_the_step(policy):
    # AdamW's first step is the rate itself; the first of four of warm-up has a quarter of it
    before = weights(policy)
    (metrics,) = trained(policy, samples_of(policy), replace(ONE_STEP, warmup_steps=4))
    assert metrics["learner/learning_rate"] == pytest.approx(2.5e-4)
    moved = max(float((p - before[name]).abs().max()) for name, p in weights(policy).items())
    assert moved == pytest.approx(2.5e-4, rel=1e-2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_decay_as_configured(policy, optimizer):
    # one step of 1e-3 with a decay of 50 takes 5 % of every weight more than one without
    other, before = again(policy), weights(policy)
    config = replace(ONE_STEP, optimizer=optimizer)
    trained(policy, samples_of(policy), config)
    trained(other, samples_of(policy), replace(config, weight_decay=50.0))
    plain = weights(policy)
    for name, decayed in weights(other).items():
        torch.testing.assert_close(plain[name] - decayed, 0.05 * before[name], atol=1e-5, rtol=1e-3)


def test_muon_takes_the_matrices_of_the_layers_alone(policy):
    # Its steps are near to orthogonal, scaled to a root mean square of 0.2 rates at most; AdamW's
    # first one is a whole rate wherever there is a gradient.
    before = weights(policy)
    trained(policy, samples_of(policy), replace(ONE_STEP, optimizer="muon"))
    moved = {
        name: float((p - before[name]).pow(2).mean().sqrt()) / ONE_STEP.learning_rate
        for name, p in weights(policy).items()
    }
    matrices = {name for name, p in before.items() if p.ndim == 2 and "layers." in name}
    assert len(matrices) == 3 * 7
    assert all(0 < moved[name] < 0.3 for name in matrices)
    (embeddings,) = (name for name in moved if "embed_tokens" in name)
    assert moved[embeddings] > 0.5


def test_bfloat16_weights_are_those_of_their_masters(policy):
    small = again(policy, dtype="bfloat16")
    before = weights(small)
    trained(small, samples_of(small), replace(ONE_STEP, learning_rate=0.05))
    moved = max(float((p - before[name]).abs().max()) for name, p in weights(small).items())
    assert moved == pytest.approx(0.05, rel=0.1)


def test_every_pass_has_an_order_of_its_own_by_the_seed(policy):
    samples = samples_of(policy, 6)
    config = replace(ONE_STEP, batch_size=1, num_epochs=2, learning_rate=1e-12)
    sizes = [int(found["loss/num_tokens"]) for found in trained(policy, samples, config, seed=5)]
    orders = [[index for (index,) in epoch_batches(6, 1, 5, epoch)] for epoch in (0, 1)]
    assert sizes == [2 + index for order in orders for index in order]
    assert orders[0] != orders[1]
    assert epoch_batches(203, 8, seed=1, epoch=0) != epoch_batches(203, 8, seed=2, epoch=0)
