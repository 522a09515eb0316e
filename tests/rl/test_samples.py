import pytest
import torch
from PIL import Image

from pyvision_rl.model.batch import collate
from pyvision_rl.rl.samples import make_sample, make_samples
from pyvision_rl.types import KeptGroup
from tests.build import group, observation, trajectory


def test_mask_is_one_on_sampled_tokens_only():
    image = Image.new("RGB", (28, 28))
    sample = make_sample(trajectory(observation(20, 21, images=(image,))), advantage=0.5)
    assert sample.token_ids == (1, 2, 10, 20, 21, 11, 12)
    assert sample.loss_mask == (0, 0, 1, 0, 0, 1, 1)
    assert sample.logprobs == (0, 0, -0.5, 0, 0, -0.5, -0.5)
    assert sample.images == (image,)
    assert sample.num_loss_tokens == 3


def test_advantages_come_from_the_whole_group():
    whole = group((1, 0), (0, 0), (0, 0), (0, 0))  # mean 0.25
    samples = make_samples([KeptGroup(whole, (0, 2))])
    assert [sample.advantage for sample in samples] == [0.75, -0.25]


def test_advantages_may_be_normalised_or_of_the_kept_alone():
    whole = [KeptGroup(group((1, 0.2), (1, 0.1), (0, 0)), (0, 1))]
    # over 1.2 and 1.1: mean 1.15, std 0.05; over all: mean 2.3 / 3
    kept = make_samples(whole, baseline="kept")
    assert [sample.advantage for sample in kept] == pytest.approx([0.05, -0.05])
    normal = make_samples(whole, baseline="kept", normalize_std=True)
    assert [sample.advantage for sample in normal] == pytest.approx([1.0, -1.0])
    played = make_samples(whole)
    assert [sample.advantage for sample in played] == pytest.approx([1.3 / 3, 1.0 / 3])


def test_an_advantage_is_shared_by_every_token():
    batch = collate(
        make_samples([KeptGroup(group((1, 0), (0, 0)), (0, 1))]), 0, torch.device("cpu")
    )
    assert batch.advantages_B.tolist() == pytest.approx([0.5, -0.5])
