import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyvision_rl.errors import InputError
from pyvision_rl.model.batch import Sample, collate
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.packing import collate_packed, pack
from pyvision_rl.model.policy import Policy, PolicyConfig
from tests.model.play import picture

CPU = torch.device("cpu")
PIXELS = PixelLimits(784, 28224)


def sample_of(length: int) -> Sample:
    return Sample(tuple(range(length)), (0,) * length, (0.0,) * length, 0.0, ())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_rows_hold_every_sample_once_within_the_budget(lengths, budget):
    rows = pack([sample_of(length) for length in lengths], budget)
    sizes = [[len(sample.token_ids) for sample in row] for row in rows]
    assert sorted(size for row in sizes for size in row) == sorted(lengths)
    assert all(sum(row) <= budget or len(row) == 1 for row in sizes)


def test_the_longest_go_first_into_the_first_row_with_room():
    rows = pack([sample_of(length) for length in (3, 6, 5, 4, 2)], 10)
    assert [[len(sample.token_ids) for sample in row] for row in rows] == [[6, 4], [5, 3, 2]]


def test_a_packed_row():
    batch = collate_packed([sample_of(2), sample_of(3)], CPU)
    assert batch.token_ids_BT.tolist() == [[0, 1, 0, 1, 2]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 2, 2, 2]]
    with pytest.raises(InputError, match="on the first token of a sample"):
        collate_packed([Sample((1, 2), (1, 1), (0.0, 0.0), 0.0, ())], CPU)


def conversation(policy: Policy, text: str, *images) -> Sample:
    """A prompt, of which every token that a policy may write is learned."""
    prompt = policy.codec.prompt(text, images)
    banned = set(policy.banned_ids)
    mask = (0, *(int(token not in banned) for token in prompt.token_ids[1:]))
    return Sample(prompt.token_ids, mask, (0.0,) * len(mask), 1.0, prompt.images)


def results(policy: Policy, batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probs and entropies of the learned tokens, in order, and gradients."""
    policy.model.zero_grad()
    mask = batch.loss_mask_BT
    logprobs, entropy = policy.token_logprobs(
        batch.token_ids_BT, batch.attention_mask_BT, mask, batch.images
    )
    logprobs.sum().backward()
    named = policy.model.named_parameters()
    gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
    on = mask.bool()
    return logprobs.detach()[on], entropy[on], gradients


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_conversations_know_nothing_of_each_other(tiny_random_checkpoint, checkpointing):
    torch.set_num_threads(1)
    config = PolicyConfig(str(tiny_random_checkpoint), PIXELS, gradient_checkpointing=checkpointing)
    policy = Policy.load(config)
    samples = [
        conversation(policy, "find the red tag " * 3, picture(1), picture(2, 56, 112)),
        conversation(policy, "tag 1 2 3"),
        conversation(policy, "which tag?", picture(3, 84, 28)),
    ]
    beside = results(policy, collate(samples, policy.pad_id, CPU))
    packed = results(policy, collate_packed(samples, CPU))
    assert len(beside[0]) > 40
    assert (beside[0] - packed[0]).abs().max() < 1e-5
    assert (beside[1] - packed[1]).abs().max() < 1e-5
    assert beside[2].keys() == packed[2].keys()
    for name, gradient in beside[2].items():
        assert torch.allclose(gradient, packed[2][name], atol=1e-4), name
    # Padded rows are computed as before afterwards.
    again = results(policy, collate(samples, policy.pad_id, CPU))
    assert torch.equal(again[0], beside[0])


def test_a_checkpoint_does_not_name_the_attention(tiny_random_checkpoint, tmp_path):
    policy = Policy.load(PolicyConfig(str(tiny_random_checkpoint), PIXELS))
    batch = collate_packed([conversation(policy, "a"), conversation(policy, "b")], CPU)
    results(policy, batch)
    policy.save(tmp_path / "saved")
    assert "prefix_tree" not in json.dumps(json.loads((tmp_path / "saved/config.json").read_text()))
