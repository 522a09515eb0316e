"""Rows that begin alike, computed together, beside the same rows one by one."""

import pytest
import torch
from PIL.Image import Image

from pyvision_rl.model.batch import Sample, collate, split_by_tokens
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.pack import Pack
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.tree_attention import Branches
from tests.model.play import picture


@pytest.fixture(scope="module")
def policy(tiny_random_checkpoint) -> Policy:
    torch.set_num_threads(1)
    return Policy.load(PolicyConfig(str(tiny_random_checkpoint), PixelLimits(784, 28224)))


def sample_of(policy: Policy, image: int, *texts: str) -> Sample:
    """A prompt with an image, then texts in turn sampled and seen, each seen one with an image."""
    prompt = policy.codec.prompt("find the red tag", [picture(image)])
    ids, mask = list(prompt.token_ids), [0] * len(prompt.token_ids)
    images = list(prompt.images)
    for place, text in enumerate(texts):
        if place % 2:
            seen = policy.codec.prompt(text, [picture(len(text))])
            ids += seen.token_ids
            mask += [0] * len(seen.token_ids)
            images += seen.images
        else:
            written = policy.codec.encode_completion(text)[0]
            ids += written
            mask += [1] * len(written)
    return Sample(tuple(ids), tuple(mask), (0.0,) * len(ids), 0.0, tuple(images))


def group(policy: Policy) -> list[Sample]:
    """Members that part at once, in the middle, after a look, and never; and another's member."""
    return [
        sample_of(policy, 1, "red 3 5", "tag", "I see 7."),
        sample_of(policy, 1, "red 3 6", "tag", "I see 7."),
        sample_of(policy, 2, "red 3 5", "tag", "I see 7."),
        sample_of(policy, 1, "red 3 5", "tag", "I see 2."),
        sample_of(policy, 1, "red 3 5", "tag", "I see 7."),
        sample_of(policy, 1, "clear 7."),
        sample_of(policy, 1, "red 3 5", "digit", "I see 7."),
    ]


def gradients(policy: Policy, samples: list[Sample], size: int) -> tuple[list[float], torch.Tensor]:
    """Log-probs of all samples, `size` at once; the gradient of a sum that weighs each apart."""
    policy.model.zero_grad()
    found: list[float] = []
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        batch = collate(part, policy.pad_id, policy.device)
        logprobs, _ = policy.token_logprobs(
            batch.token_ids_BT, batch.attention_mask_BT, batch.loss_mask_BT, batch.images
        )
        weights = torch.arange(start, start + len(part))[:, None] + 1.0
        (logprobs * weights).sum().backward()
        found += logprobs[batch.loss_mask_BT.bool()].tolist()
    grads = [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
    return found, torch.cat(grads)


@pytest.mark.parametrize("with_masks", [True, False])
def test_together_is_as_one_by_one(policy, monkeypatch, with_masks):
    def branches(pack: Pack) -> Branches:
        return Branches.of(pack.tree, torch.float32, policy.device, with_masks=with_masks)

    monkeypatch.setattr(policy, "_branches", branches)
    samples = group(policy)
    alone, alone_grad = gradients(policy, samples, 1)
    together, grad = gradients(policy, samples, len(samples))
    assert together == pytest.approx(alone, abs=2e-6)
    assert torch.linalg.norm(grad - alone_grad) < 1e-6 * torch.linalg.norm(alone_grad)
    # the first and the third differ in their image alone
    count = samples[0].num_loss_tokens
    third = sum(sample.num_loss_tokens for sample in samples[:2])
    assert alone[:count] != pytest.approx(alone[third : third + count], abs=1e-4)


def seen_by(sample: Sample, end: int, pad: int) -> tuple[Image, ...]:
    """The images whose tokens begin among the first `end`; all of these have 9 tokens."""
    count = sample.token_ids[:end].count(pad)
    return sample.images[: -(-count // 9)]


def test_what_is_common_is_computed_once(policy):
    samples = group(policy)
    rows = [(sample.token_ids, sample.images) for sample in samples]
    pack = Pack.of(rows, policy.codec.image_pad_id)
    pad = policy.codec.image_pad_id
    beginnings = {
        (tuple(image.tobytes() for image in seen_by(sample, end, pad)), sample.token_ids[:end])
        for sample in samples
        for end in range(1, len(sample.token_ids) + 1)
    }
    assert pack.token_ids.shape == (1, len(beginnings))
    # two prompts' images, and what members saw: "tag" twice for two images, "tag" after "red 3 6",
    # "digit"
    assert len(pack.images) == 2 + 2 + 1 + 1


def test_micro_batches_count_a_common_beginning_once(policy):
    samples = [sample_of(policy, 1, f"red {k}") for k in range(6)]
    pad = policy.codec.image_pad_id
    prompt = len(policy.codec.prompt("find the red tag", [picture(1)]).token_ids)
    rest = len(samples[0].token_ids) - prompt
    whole = prompt + 6 * rest
    assert len(list(split_by_tokens(samples, whole, pad))) == 1
    parts = list(split_by_tokens(samples[::-1], prompt + 2 * rest, pad))
    assert [len(part) for part in parts] == [2, 2, 2]
