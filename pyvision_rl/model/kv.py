"""Keys and values: of the rows that are being decoded, and of sessions that wait.

Suffix-free shapes: L layers, R rows, T tokens, H key/value heads, D head size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextConfig
from transformers.cache_utils import Cache

SPARE_TOKENS = 64
"""Room beyond what is needed now, so that decoding rarely has to grow the buffer."""


class RowCache(Cache):
    """The running rows' keys and values in one buffer [L, 2, R, T, H, D].

    A row's tokens lie from its first cell on; what stands behind them is stale, and masked.
    Rows come and go without touching others, so no row ever waits for another.
    """

    def __init__(self, config: Qwen2_5_VLTextConfig, dtype: torch.dtype, device: torch.device):
        super().__init__(layers=[])
        heads = config.num_key_value_heads or config.num_attention_heads
        self._heads = (heads, config.hidden_size // config.num_attention_heads)
        self._num_layers = config.num_hidden_layers
        self._dtype, self._device = dtype, device
        self._kv = self._allocate(0, 0)
        self._cells = torch.empty(0, dtype=torch.long)
        self._rows = slice(0, 0)
        self._length = 0

    @property
    def row_tokens(self) -> int:
        """Cells of each row."""
        return self._kv.shape[3]

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `rows` of `tokens` each; of what is stored, that much stays."""
        old = self._kv[:, :, :rows, :tokens]
        if (rows, tokens) == tuple(old.shape[2:4]):
            return
        # Sized anew for both: where few long rows are left, the room of the many is given back.
        self._kv = self._allocate(rows + rows // 8, tokens + max(SPARE_TOKENS, tokens // 4))
        self._kv[:, :, : old.shape[2], : old.shape[3]] = old

    def release(self) -> None:
        """Give the memory back; nothing is stored any more."""
        self._kv = self._allocate(0, 0)

    def _allocate(self, rows: int, tokens: int) -> Tensor:
        # Zeros: stale cells are masked, but a NaN among them would spread through the mask.
        shape = (self._num_layers, 2, rows, tokens, *self._heads)
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def aim(self, first: int, places: Tensor, length: int) -> None:
        """Say where the next forward's tokens go: rows from `first` on, at `places` [rows, tokens].

        Its attention sees the first `length` cells of these rows.
        """
        count = places.shape[0]
        rows = torch.arange(first, first + count, device=places.device)[:, None]
        self._cells = (rows * self.row_tokens + places).flatten()
        self._rows = slice(first, first + count)
        self._length = length

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values [R, H, T, D]; return all that attention may see."""
        keys, values = self._kv[layer_idx]
        for buffer, states in ((keys, key_states), (values, value_states)):
            new = states.transpose(1, 2).reshape(-1, *self._heads)
            buffer.view(-1, *self._heads).index_copy_(0, self._cells, new)
        seen = (self._rows, slice(0, self._length))
        return keys[seen].transpose(1, 2), values[seen].transpose(1, 2)

    def read(self, row: int, length: int) -> Tensor:
        """A copy [L, 2, T, H, D] of a row's first cells."""
        return self._kv[:, :, row, :length].clone()

    def write(self, row: int, kv: Tensor) -> None:
        """Fill a row's first cells."""
        self._kv[:, :, row, : kv.shape[2]] = kv

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first cells over another row's."""
        self._kv[:, :, target, :length] = self._kv[:, :, source, :length]


@dataclass(frozen=True)
class Kept:
    """What is known of a token sequence: keys and values [L, 2, T, H, D].

    `logits` [1, V] follow its last token; [0, V] where they were not computed.
    """

    token_ids: tuple[int, ...]
    kv: Tensor
    logits: Tensor


class KeptCache:
    """Sequences whose keys and values may be needed again: least recently used first out."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self.num_tokens = 0

    def get(self, key: Hashable) -> Kept | None:
        """What is kept under `key`, which becomes the youngest."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def put(self, key: Hashable, kept: Kept) -> None:
        """Keep a sequence in place of what was there."""
        self.drop(key)
        self._kept[key] = kept
        self.num_tokens += len(kept.token_ids)

    def drop(self, key: Hashable) -> None:
        """Forget `key`, if it is there."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.num_tokens -= len(kept.token_ids)

    def shrink(self, max_tokens: int) -> None:
        """Drop the oldest until at most `max_tokens` are held."""
        while self._kept and self.num_tokens > max_tokens:
            self.drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.num_tokens = 0
