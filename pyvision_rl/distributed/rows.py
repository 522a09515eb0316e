"""Samples as the rows that verl's workers are fed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

import torch
from PIL.Image import Image
from torch import Tensor

from pyvision_rl.errors import InputError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.inputs import mrope_positions

MEDIA = "multi_modal_inputs"
IMAGES = "images"
"""verl's name for what a row has besides tokens, and the key of the images in it."""
POSITIONS = "token_positions"
"""Positions, a row a token: the queue takes what is as long as a trajectory by its first side, so
that verl's own `position_ids`, the other way round, are misread where all rows are equally long."""


@dataclass(frozen=True)
class Row:
    """One sample in verl's queue: a name, what workers are fed, and what the scheduler looks at."""

    key: str
    tensors: Mapping[str, Tensor]
    images: tuple[Image, ...]
    tags: Mapping[str, int]

    @property
    def fields(self) -> dict[str, Tensor | dict[str, tuple[Image, ...]]]:
        """What the queue stores; images stay images, patches are made where they are needed."""
        return {**self.tensors, MEDIA: {IMAGES: self.images}}


def make_rows(samples: Sequence[Sample], image_pad_id: int, multiple: int, seed: int) -> list[Row]:
    """The samples in the order that `seed` decides, filled up to a multiple of `multiple`.

    What fills up are copies of the shortest sample that no loss counts. Raises InputError where a
    sample's image tokens and images disagree.
    """
    order = list(samples)
    random.Random(seed).shuffle(order)
    shortest = min(order, key=lambda sample: len(sample.token_ids))
    order += [_silent(shortest)] * (-len(order) % multiple)
    prompt_tokens = {id(sample): _prompt_tokens(sample) for sample in samples}
    silent_tokens = _prompt_tokens(shortest)
    return [
        make_row(sample, prompt_tokens.get(id(sample), silent_tokens), image_pad_id)
        for sample in order
    ]


def make_row(sample: Sample, prompt_tokens: int, image_pad_id: int) -> Row:
    """A sample whose first `prompt_tokens` tokens are its prompt."""
    places = torch.from_numpy(mrope_positions(sample.token_ids, sample.images, image_pad_id))
    token_ids = torch.tensor(sample.token_ids)
    length = len(token_ids)
    mask = torch.tensor(sample.loss_mask[prompt_tokens:])
    tensors = {
        "prompts": token_ids[:prompt_tokens],
        "responses": token_ids[prompt_tokens:],
        "input_ids": token_ids,
        # Text position, then time, row and column: [T, 4].
        POSITIONS: torch.cat([torch.arange(length)[None], places]).T.contiguous(),
        "response_mask": mask,
        "loss_mask": mask,
        "rollout_log_probs": torch.tensor(sample.logprobs[prompt_tokens:]),
        "advantages": torch.tensor(sample.advantage),
    }
    tags = {
        "prompt_len": prompt_tokens,
        "response_len": length - prompt_tokens,
        "seq_len": length,
    }
    return Row(uuid4().hex, tensors, sample.images, tags)


def _prompt_tokens(sample: Sample) -> int:
    """Tokens before the first sampled one."""
    if 1 not in sample.loss_mask:
        raise InputError(f"sample of {len(sample.token_ids)} tokens: none of them was sampled")
    return sample.loss_mask.index(1)


def _silent(sample: Sample) -> Sample:
    return replace(sample, loss_mask=(0,) * len(sample.loss_mask), advantage=0.0)
