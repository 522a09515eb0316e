"""Vision features by image content, bounded by bytes, so that an image is encoded once."""

from __future__ import annotations

from collections import OrderedDict

import torch


class FeatureCache:
    """Least recently used first out; features of one version of the weights."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._features: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._features)

    def get(self, key: bytes) -> torch.Tensor | None:
        """The features kept under `key`, which become the youngest."""
        features = self._features.get(key)
        if features is not None:
            self._features.move_to_end(key)
        return features

    def put(self, key: bytes, features: torch.Tensor) -> None:
        """Keep `features`; the oldest go where the bound is passed."""
        if key in self._features:
            return
        self._features[key] = features
        self._bytes += features.nbytes
        while self._bytes > self._max_bytes:
            _, oldest = self._features.popitem(last=False)
            self._bytes -= oldest.nbytes

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self._features.clear()
        self._bytes = 0
