import torch
from hypothesis import given
from hypothesis import strategies as st

from pyvision_rl.model.batch import Sample, collate, split_by_tokens

CPU = torch.device("cpu")


def sample_of(length: int) -> Sample:
    return Sample(tuple(range(length)), (1,) * length, (0.0,) * length, 0.0, ())


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
