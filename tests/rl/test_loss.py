import math

import pytest
import torch

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.batch import Sample, collate
from pyvision_rl.rl.loss import LossConfig, policy_loss

CONFIG = LossConfig(clip_low=0.2, clip_high=0.28, dual_clip=3.0)


def parts_of(ratio: float, advantage: float, mask: tuple[int, int] = (0, 1)):
    """One sample of two tokens; the second has the given ratio of learner to sampler."""
    sample = Sample((1, 2), mask, (0.0, -1.0), advantage, ())
    batch = collate([sample], 0, torch.device("cpu"))
    logprobs = torch.tensor([[0.0, -1.0 + math.log(ratio)]], requires_grad=True)
    parts = policy_loss(logprobs, batch, CONFIG)
    parts.loss.backward()
    assert logprobs.grad is not None
    return parts, float(logprobs.grad[0, 1])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # on policy: gradient = -advantage
        (1.2, 1.0, -1.2, -1.2, 0),  # inside the clip
        (1.5, 1.0, -1.28, 0.0, 1),  # good and already 1.28 times likelier: held
        (0.5, 1.0, -0.5, -0.5, 0),  # good but less likely than when sampled: full gradient
        (0.5, -1.0, 0.8, 0.0, 1),  # bad and already below 0.8: held
        (1.5, -1.0, 1.5, 1.5, 0),  # bad and likelier: pushed down
        (5.0, -1.0, 3.0, 0.0, 0),  # bad and far likelier: dual clip at 3
    ],
)
def test_hand_worked_tokens(ratio, advantage, loss, gradient, clipped):
    parts, grad = parts_of(ratio, advantage)
    assert float(parts.loss.detach()) == pytest.approx(loss)
    assert grad == pytest.approx(gradient)
    assert int(parts.clipped) == clipped


def test_masked_tokens_count_for_nothing():
    parts, grad = parts_of(1.5, 1.0, mask=(0, 0))
    assert float(parts.loss.detach()) == 0
    assert grad == 0
    assert int(parts.clipped) == 0
    assert float(parts.kl) == 0


def test_what_stands_at_masked_tokens_changes_nothing():
    # an engine may give numbers for tokens that it did not sample: exp(200) is infinite
    sample = Sample((1, 2), (0, 1), (-200.0, -1.0), 2.0, ())
    batch = collate([sample], 0, torch.device("cpu"))
    logprobs = torch.tensor([[0.0, -1.0]], requires_grad=True)
    parts = policy_loss(logprobs, batch, CONFIG)
    parts.loss.backward()
    assert (float(parts.loss.detach()), int(parts.clipped), float(parts.kl)) == (-2.0, 0, 0.0)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, -2.0]]


def test_kl_of_sampler_and_learner():
    parts, _ = parts_of(2.0, 1.0)
    assert float(parts.kl) == pytest.approx(2 - 1 - math.log(2))


@pytest.mark.parametrize("clips", [{"clip_low": 1.0}, {"clip_high": 0.0}, {"dual_clip": 1.0}])
def test_impossible_clips_are_refused(clips):
    with pytest.raises(ConfigError, match="clip_low"):
        LossConfig(**clips)


def test_each_sample_has_its_own_advantage():
    # on policy the gradient of a token is minus its sample's advantage, and none of padding
    samples = [
        Sample((1, 2), (0, 1), (0.0, -1.0), 2.0, ()),
        Sample((1, 2, 3), (0, 1, 1), (0.0, -1.0, -2.0), -0.5, ()),
    ]
    batch = collate(samples, 0, torch.device("cpu"))
    logprobs = torch.tensor([[0.0, -1.0, 0.0], [0.0, -1.0, -2.0]], requires_grad=True)
    policy_loss(logprobs, batch, CONFIG).loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, -2.0, 0.0], [0.0, 0.5, 0.5]]
