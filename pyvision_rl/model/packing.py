"""Several conversations in one row, so that no token is padding; none sees another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyvision_rl.errors import InputError
from pyvision_rl.model.batch import Batch, Sample


def pack(samples: Sequence[Sample], max_tokens: int) -> list[list[Sample]]:
    """Cut samples into rows of at most `max_tokens` tokens, the longest first into the first row
    with room. A sample longer than that has a row of its own.
    """
    rows: list[list[Sample]] = []
    room: list[int] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.token_ids)):
        length = len(sample.token_ids)
        row = next((row for row, left in enumerate(room) if left >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(max_tokens)
        rows[row].append(sample)
        room[row] -= length
    return rows


def collate_packed(samples: Sequence[Sample], device: torch.device) -> Batch:
    """The samples one behind the other in a single row; `attention_mask_BT` numbers them from 1.

    Raises InputError for a sample whose first token is to be learned: nothing predicts it.
    """
    if any(sample.loss_mask[0] for sample in samples):
        raise InputError("loss_mask is 1 on the first token of a sample: nothing predicts it")

    def row(values: Sequence[Sequence[int]] | Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([[value for part in values for value in part]], device=device)

    numbers = [[number] * len(s.token_ids) for number, s in enumerate(samples, start=1)]
    return Batch(
        token_ids_BT=row([sample.token_ids for sample in samples]),
        attention_mask_BT=row(numbers),
        loss_mask_BT=row([sample.loss_mask for sample in samples]),
        logprobs_BT=row([sample.logprobs for sample in samples]),
        advantages_B=torch.tensor([sample.advantage for sample in samples], device=device),
        images=tuple(image for sample in samples for image in sample.images),
    )


def conversation_lengths(attention_mask: Tensor) -> list[list[int]]:
    """Tokens of each row's conversations, padding left out; `attention_mask` [B, T] numbers them
    from 1, and is 0 on padding at the end.
    """
    return [torch.bincount(row, minlength=2)[1:].tolist() for row in attention_mask.cpu()]
