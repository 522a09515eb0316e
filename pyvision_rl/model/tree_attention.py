"""Attention of rows in a `PrefixTree`: a token sees its own row up to itself, wherever that stands.

Suffix-free shapes: B = 1, H heads, N nodes, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pyvision_rl.model.prefix_tree import PrefixTree

TREE_ATTENTION = "prefix_tree"
"""Name of the attention that takes `Branches` in place of a mask, and is plain with a mask."""


@dataclass(frozen=True)
class Branches:
    """What every laid row sees: `cells` [sum of T] are the nodes of one row after the other.

    `sizes`: the T of each row; `num_new`: how many of them, at its end, are its own. `masks`: for
    each row what its own tokens see of it, None where that is causal from its first token on.
    Without masks whole rows attend, and what others own is thrown away: kernels of GPUs that hold
    no scores know only that.
    """

    cells: Tensor
    sizes: tuple[int, ...]
    num_new: tuple[int, ...]
    masks: tuple[Tensor | None, ...] | None

    @classmethod
    def of(
        cls, tree: PrefixTree, dtype: torch.dtype, device: torch.device, *, with_masks: bool
    ) -> Branches:
        """The branches of a tree; rows that own no token are none."""
        laid = [
            (tree.paths[row], len(tree.paths[row]) - tree.num_shared[row]) for row in tree.order
        ]
        laid = [(path, new) for path, new in laid if new]
        sizes = tuple(len(path) for path, _ in laid)
        num_new = tuple(new for _, new in laid)
        masks = None
        if with_masks:
            pairs = zip(sizes, num_new, strict=True)
            masks = tuple(_causal(size, new, dtype, device) for size, new in pairs)
        cells = torch.from_numpy(np.concatenate([path for path, _ in laid])).to(device)
        return cls(cells, sizes, num_new, masks)

    @property
    def is_plain(self) -> bool:
        """Whether no row shares anything: then all stand there as they are."""
        return self.sizes == self.num_new

    def gather(self, states: Tensor) -> Sequence[Tensor]:
        """Of states [1, H, N, D] each row's own copy [1, H, T, D]."""
        if self.is_plain:
            return states.split(self.sizes, dim=2)
        _, heads, count, size = states.shape
        table = states.transpose(1, 2).reshape(count, heads * size)
        # An embedding's gradients are summed in a fixed order, unlike an index's.
        rows = embedding(self.cells, table).view(1, -1, heads, size).transpose(1, 2)
        return rows.split(self.sizes, dim=2)

    def own(self, states: Tensor) -> Sequence[Tensor]:
        """Of states [1, H, N, D] the part of each row that attends."""
        if self.masks is None:
            return self.gather(states)
        return states.split(self.num_new, dim=2)


def _causal(size: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    if new == size:
        return None
    hidden = torch.full((new, size), -torch.inf, dtype=dtype, device=device)
    return hidden.triu(size - new + 1)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Branches | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of [1, H, N, D] by branches, as [1, N, H, D]; with a mask or none it is sdpa."""
    if not isinstance(attention_mask, Branches):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling
        )
    branches = attention_mask
    queries = branches.own(query)
    keys, values = branches.gather(key), branches.gather(value)
    masks = branches.masks or (None,) * len(queries)
    outs = [
        scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
        )[:, :, -new:]
        for q, k, v, mask, new in zip(queries, keys, values, masks, branches.num_new, strict=True)
    ]
    return torch.cat(outs, dim=2).transpose(1, 2), None


AttentionInterface.register(TREE_ATTENTION, attend)
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
