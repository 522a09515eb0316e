from random import Random

import pytest
import torch
from PIL import Image

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rl.learner import Learner, LearnerConfig

CONFIG = LearnerConfig(learning_rate=1e-3, num_minibatches=2, weight_decay=0.0)


@pytest.fixture
def policy(tiny_random_checkpoint) -> Policy:
    config = PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224))
    return Policy.load(config)


def samples_of(policy: Policy, count: int = 8) -> list[Sample]:
    """Conversations with an image, sampled tokens of random words, and mixed advantages."""
    rng = Random(0)
    words = policy.codec.encode_completion("I see 0 1 2 3 4 5 6 7 8 9 find the red tag.")[0][:-1]
    samples = []
    for index in range(count):
        prompt = policy.codec.prompt("find", [Image.new("RGB", (56, 56), (20 * index, 90, 200))])
        written = tuple(rng.choices(words, k=3 + index))
        zeros = [0.0] * len(prompt.token_ids)
        samples.append(
            Sample(
                token_ids=(*prompt.token_ids, *written),
                loss_mask=(*[0] * len(zeros), *[1] * len(written)),
                logprobs=(*zeros, *[-6.0] * len(written)),
                advantage=1.0 if index % 2 else -0.5,
                images=prompt.images,
            )
        )
    return samples


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def test_one_step_changes_the_language_model_and_leaves_frozen_vision(policy):
    before = weights(policy)
    metrics = Learner(policy, CONFIG, 1.0).update(samples_of(policy), seed=0)
    changed = {name for name, p in weights(policy).items() if not torch.equal(p, before[name])}
    assert changed
    assert not any("visual" in name for name in changed)
    assert metrics["loss/num_tokens"] == sum(3 + index for index in range(8))
    assert metrics["learner/grad_norm"] > 0
    assert metrics["learner/skipped_updates"] == 0


def test_the_policy_moves_towards_what_was_good(policy):
    samples = samples_of(policy)
    good = samples[7]
    ids = torch.tensor([good.token_ids])
    mask = torch.tensor([good.loss_mask])

    def likelihood() -> float:
        with torch.no_grad():
            logprobs, _ = policy.token_logprobs(ids, torch.ones_like(ids), mask, good.images)
        return float(logprobs.sum())

    before = likelihood()
    Learner(policy, CONFIG, 1.0).update([good], seed=0)
    assert likelihood() > before


@pytest.mark.parametrize("micro_batch_tokens", [1, 100, 400])
def test_loss_and_weights_do_not_depend_on_the_micro_batch(
    tiny_random_checkpoint, micro_batch_tokens
):
    config = PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224))
    results = []
    for tokens in (10**6, micro_batch_tokens):
        policy = Policy.load(config)
        learner = Learner(policy, LearnerConfig(learning_rate=1e-4, micro_batch_tokens=tokens), 1.0)
        metrics = learner.update(samples_of(policy), seed=0)
        gradients = [p.grad.clone() for p in learner.parameters if p.grad is not None]
        results.append((metrics["loss/policy"], metrics["learner/grad_norm"], gradients))
    whole, cut = results
    assert cut[0] == pytest.approx(whole[0], abs=1e-6)
    assert cut[1] == pytest.approx(whole[1], rel=1e-5)
    for one, other in zip(whole[2], cut[2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_saved_and_loaded_goes_on_bit_by_bit(policy, tiny_random_checkpoint, tmp_path):
    samples = samples_of(policy)
    learner = Learner(policy, CONFIG, 1.0)
    learner.update(samples, seed=1)
    learner.save(tmp_path)
    learner.update(samples, seed=2)

    other = Policy.load(policy.config)
    resumed = Learner(other, CONFIG, 1.0)
    resumed.load(tmp_path)
    resumed.update(samples, seed=2)
    for name, value in weights(other).items():
        assert torch.equal(value, weights(policy)[name]), name


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(policy):
    samples = samples_of(policy, 2)
    broken = Sample(
        samples[1].token_ids,
        samples[1].loss_mask,
        samples[1].logprobs,
        float("nan"),
        samples[1].images,
    )
    before = weights(policy)
    metrics = Learner(policy, LearnerConfig(), 1.0).update([samples[0], broken], seed=0)
    assert metrics["learner/skipped_updates"] == 1
    assert all(torch.equal(p, before[name]) for name, p in weights(policy).items())


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="num_minibatches"):
        LearnerConfig(num_minibatches=0)
