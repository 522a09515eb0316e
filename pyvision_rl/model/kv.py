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

SPARE_SHARE = 9 / 8 * 5 / 4
"""What is allocated for large buffers, as a multiple of what is needed: rows times tokens."""


class RowCache(Cache):
    """The running rows' keys and values in one buffer [2, R, T, H, D] a layer.

    A row's tokens lie from its first cell on; what stands behind them is stale, and masked.
    Rows come and go without touching others, so no row ever waits for another.
    """

    def __init__(self, config: Qwen2_5_VLTextConfig, dtype: torch.dtype, device: torch.device):
        super().__init__(layers=[])
        heads = config.num_key_value_heads or config.num_attention_heads
        self._heads = (heads, config.hidden_size // config.num_attention_heads)
        self._num_layers = config.num_hidden_layers
        self._dtype, self._device = dtype, device
        self._kv = [self._allocate(0, 0)] * self._num_layers
        self._cells = torch.empty(0, dtype=torch.long)
        self._rows = slice(0, 0)
        self._length = 0

    @property
    def row_tokens(self) -> int:
        """Cells of each row."""
        return self._kv[0].shape[2]

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `rows` of `tokens` each; of what is stored, that much stays."""
        _, old_rows, old_tokens, *_ = self._kv[0].shape
        if rows <= old_rows and tokens <= old_tokens:
            return
        # Sized anew for both: where few long rows are left, the room of the many is given back.
        # Layer by layer: only one of them is there twice.
        for layer, buffer in enumerate(self._kv):
            old = buffer[:, :rows, :tokens]
            new = self._allocate(rows + rows // 8, tokens + max(SPARE_TOKENS, tokens // 4))
            new[:, : old.shape[1], : old.shape[2]] = old
            self._kv[layer] = new

    def release(self) -> None:
        """Give the memory back; nothing is stored any more."""
        self._kv = [self._allocate(0, 0)] * self._num_layers

    def _allocate(self, rows: int, tokens: int) -> Tensor:
        # Zeros: stale cells are masked, but a NaN among them would spread through the mask.
        shape = (2, rows, tokens, *self._heads)
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
        return torch.stack([buffer[:, row, :length] for buffer in self._kv])

    def write(self, row: int, kv: Tensor) -> None:
        """Fill a row's first cells."""
        for buffer, states in zip(self._kv, kv, strict=True):
            buffer[:, row, : kv.shape[2]] = states

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first cells over another row's."""
        for buffer in self._kv:
            buffer[:, target, :length] = buffer[:, source, :length]


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
