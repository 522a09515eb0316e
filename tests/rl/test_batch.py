import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyvision_rl.rl.batch import Sample, collate, make_sample, make_samples, split_by_tokens
from pyvision_rl.types import KeptGroup
from tests.build import group, observation, trajectory

CPU = torch.device("cpu")


def sample_of(length: int) -> Sample:
    return Sample(tuple(range(length)), (1,) * length, (0.0,) * length, 0.0, ())


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


def test_collate_pads_on_the_right():
    batch = collate([sample_of(1), sample_of(3)], pad_id=99, device=CPU)
    assert batch.token_ids_BT.tolist() == [[0, 99, 99], [0, 1, 2]]
    assert batch.attention_mask_BT.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.loss_mask_BT.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.logprobs_BT.dtype == torch.float32


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_micro_batches_hold_every_sample_once_within_the_budget(lengths, budget):
    parts = list(split_by_tokens([sample_of(length) for length in lengths], budget))
    assert sorted(len(s.token_ids) for part in parts for s in part) == sorted(lengths)
    for part in parts:
        padded = len(part) * max(len(sample.token_ids) for sample in part)
        assert padded <= budget or len(part) == 1


def test_micro_batches_are_filled():
    parts = [len(part) for part in split_by_tokens([sample_of(10)] * 7, 30)]
    assert parts == [3, 3, 1]


def test_an_advantage_is_shared_by_every_token():
    batch = collate(make_samples([KeptGroup(group((1, 0), (0, 0)), (0, 1))]), 0, CPU)
    assert batch.advantages_B.tolist() == pytest.approx([0.5, -0.5])
