"""Rows of one forward pass behind each other, what they have in common at their beginning once.

Suffix-free shapes: B rows, T tokens of a row, N tokens of all, S targets, U different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from pyvision_rl.model.inputs import content_rows, mrope_positions, num_images_in
from pyvision_rl.model.prefix_tree import PrefixTree, merge

Row: TypeAlias = tuple[Sequence[int], Sequence[Image]]
"""The tokens of a conversation and its images."""


@dataclass(frozen=True)
class Targets:
    """Tokens whose log-probs are asked for: where they are [S], and each different one [U].

    `nodes` are their places in the pack, `before` those of the tokens that predict them; `which`
    [S] says which of the different ones each is.
    """

    rows: Tensor
    columns: Tensor
    which: Tensor
    nodes: Tensor
    before: Tensor


@dataclass(frozen=True)
class Pack:
    """`token_ids` [1, N], `positions` [3, 1, N], and `images` in the order of their tokens."""

    token_ids: Tensor
    positions: Tensor
    images: tuple[Image, ...]
    tree: PrefixTree

    @classmethod
    def of(cls, rows: Sequence[Row], image_pad_id: int) -> Pack:
        """Raises InputError where image tokens and images disagree."""
        tree = merge(content_rows(rows, image_pad_id))
        token_ids = np.empty(tree.num_nodes, np.int64)
        positions: list[np.ndarray] = []
        images: list[Image] = []
        for index in tree.order:
            ids, shown = rows[index]
            shared = tree.num_shared[index]
            token_ids[tree.paths[index][shared:]] = ids[shared:]
            positions.append(mrope_positions(ids, shown, image_pad_id)[:, shared:])
            images += shown[num_images_in(ids[:shared], shown, image_pad_id) :]
        return cls(
            torch.from_numpy(token_ids)[None],
            torch.from_numpy(np.concatenate(positions, axis=1))[:, None],
            tuple(images),
            tree,
        )

    def targets(self, loss_mask: Tensor, lengths: Sequence[int]) -> Targets:
        """Where `loss_mask` [B, T] is not 0. `lengths` [B]: of the rows without their padding;
        their first tokens are never targets.
        """
        rows, columns = (places.numpy() for places in loss_mask.cpu().nonzero(as_tuple=True))
        paths = np.zeros(loss_mask.shape, np.int64)
        for row, (length, path) in enumerate(zip(lengths, self.tree.paths, strict=True)):
            paths[row, :length] = path
        nodes, first, which = np.unique(
            paths[rows, columns], return_index=True, return_inverse=True
        )
        before = paths[rows[first], columns[first] - 1]
        return Targets(*map(torch.from_numpy, (rows, columns, which, nodes, before)))
