import torch
from hypothesis import given
from hypothesis import strategies as st

from pyvision_rl.model.batch import Sample, collate, split_by_tokens

CPU = torch.device("cpu")
PAD = 999


def sample_of(length: int) -> Sample:
    return Sample(tuple(range(length)), (1,) * length, (0.0,) * length, 0.0, ())


def test_collate_pads_on_the_right():
    batch = collate([sample_of(1), sample_of(3)], pad_id=99, device=CPU)
    assert batch.token_ids_BT.tolist() == [[0, 99, 99], [0, 1, 2]]
    assert batch.attention_mask_BT.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.loss_mask_BT.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch.logprobs_BT.dtype == torch.float32


def sample_alone(number: int, length: int) -> Sample:
    """Begins like no other."""
    return Sample((1000 + number,) * length, (1,) * length, (0.0,) * length, 0.0, ())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_micro_batches_hold_every_sample_once_within_the_budget(lengths, budget):
    samples = [sample_alone(number, length) for number, length in enumerate(lengths)]
    parts = list(split_by_tokens(samples, budget, PAD))
    assert sorted(len(s.token_ids) for part in parts for s in part) == sorted(lengths)
    for part in parts:
        assert sum(len(sample.token_ids) for sample in part) <= budget or len(part) == 1


def test_micro_batches_are_filled():
    parts = [
        len(part) for part in split_by_tokens([sample_alone(k, 10) for k in range(7)], 30, PAD)
    ]
    assert parts == [3, 3, 1]
