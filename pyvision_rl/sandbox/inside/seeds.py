"""Random numbers inside a runtime: what forks would share, or draw from the operating system,
follows the runtime's seed.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np


class Seeds:
    """Seeds `random`, `numpy.random`, and generators that a cell makes without a seed."""

    def __init__(self) -> None:
        self._seed = 0
        self._stream: np.random.SeedSequence | None = None
        real = np.random.default_rng

        @functools.wraps(real)
        def default_rng(seed: Any = None) -> np.random.Generator:
            return real(self._next() if seed is None else seed)

        np.random.default_rng = default_rng

    def plant(self, seed: int) -> None:
        """Start everything from `seed`."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        self._seed, self._stream = seed, None

    def _next(self) -> np.random.SeedSequence:
        if self._stream is None:
            self._stream = np.random.SeedSequence(self._seed)
        return self._stream.spawn(1)[0]
