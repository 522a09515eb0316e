"""Token sequences with their images as padded tensors, for SFT and RL alike.

Suffixes: B samples, T tokens. Samples are padded on the right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from pyvision_rl.model.inputs import content_rows
from pyvision_rl.model.prefix_tree import num_common, sort_key


@dataclass(frozen=True)
class Sample:
    """One conversation as its tokens, in the order in which the policy sees them.

    `loss_mask` is 1 on the tokens to learn from: sampled ones in RL. `logprobs` are the sampler's,
    0 elsewhere. Images stay images: they are encoded where they are needed, once.
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantage: float
    images: tuple[Image, ...]

    @property
    def num_loss_tokens(self) -> int:
        """Tokens that count in the loss."""
        return sum(self.loss_mask)


@dataclass(frozen=True)
class Batch:
    """Samples side by side; `images` in the order of the rows."""

    token_ids_BT: Tensor
    attention_mask_BT: Tensor
    loss_mask_BT: Tensor
    logprobs_BT: Tensor
    advantages_B: Tensor
    images: tuple[Image, ...]


def collate(samples: Sequence[Sample], pad_id: int, device: torch.device) -> Batch:
    """Pad samples to the longest."""
    length = max(len(sample.token_ids) for sample in samples)

    def padded(rows: list[Sequence[int]] | list[Sequence[float]], fill: float) -> Tensor:
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows], device=device)

    return Batch(
        token_ids_BT=padded([sample.token_ids for sample in samples], pad_id),
        attention_mask_BT=padded([[1] * len(sample.token_ids) for sample in samples], 0),
        loss_mask_BT=padded([sample.loss_mask for sample in samples], 0),
        logprobs_BT=padded([sample.logprobs for sample in samples], 0.0),
        advantages_B=torch.tensor([sample.advantage for sample in samples], device=device),
        images=tuple(image for sample in samples for image in sample.images),
    )


def split_by_tokens(
    samples: Sequence[Sample], max_tokens: int, image_pad_id: int
) -> Iterator[list[Sample]]:
    """Cut samples into micro-batches of at most `max_tokens` tokens, a common beginning counted
    once; samples that begin alike come together.

    A sample longer than that makes a micro-batch of its own.
    """
    rows = content_rows([(s.token_ids, s.images) for s in samples], image_pad_id)
    part: list[Sample] = []
    num_tokens, before = 0, None
    for index in sorted(range(len(samples)), key=lambda index: sort_key(rows[index])):
        row = rows[index]
        num_new = len(row) - (0 if before is None else num_common(before, row))
        if part and num_tokens + num_new > max_tokens:
            yield part
            part = []
            num_tokens, num_new = 0, len(row)
        part.append(samples[index])
        num_tokens, before = num_tokens + num_new, row
    if part:
        yield part
