"""Rows that begin alike, laid out so that what they share stands there once.

Suffix-free shapes: R rows, T tokens of a row, N nodes: a node is a token after all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PrefixTree:
    """Token rows one behind the other, each without the beginning that it shares with others.

    `paths` [R][T]: the nodes of each row's tokens, whose numbers are where they stand. `order`:
    the rows as they were laid. `num_shared` [R]: first tokens of a row that stand there already.
    """

    paths: tuple[np.ndarray, ...]
    order: tuple[int, ...]
    num_shared: tuple[int, ...]

    @property
    def num_nodes(self) -> int:
        """Tokens that stand there in all."""
        lengths = map(len, self.paths)
        return sum(length - shared for length, shared in zip(lengths, self.num_shared, strict=True))


def merge(rows: Sequence[np.ndarray]) -> PrefixTree:
    """Merge rows [T] of numbers, 0 or more; equal rows share all of their tokens."""
    order = sorted(range(len(rows)), key=lambda row: sort_key(rows[row]))
    paths: list[np.ndarray] = [np.empty(0, np.int64)] * len(rows)
    num_shared = [0] * len(rows)
    num_nodes, before = 0, None
    for row in order:
        # Of all rows laid so far, the one before shares most, for they are in order.
        shared = 0 if before is None else num_common(rows[before], rows[row])
        old = paths[before][:shared] if before is not None else paths[row]
        new = np.arange(num_nodes, num_nodes + len(rows[row]) - shared)
        paths[row], num_shared[row] = np.concatenate([old, new]), shared
        num_nodes, before = num_nodes + len(new), row
    return PrefixTree(tuple(paths), tuple(order), tuple(num_shared))


def sort_key(row: np.ndarray) -> bytes:
    """Orders rows number by number, so that those with a common beginning are neighbours."""
    return row.astype(">u8").tobytes()


def num_common(one: np.ndarray, other: np.ndarray) -> int:
    """First numbers that two rows have in common."""
    size = min(len(one), len(other))
    differing = np.flatnonzero(one[:size] != other[:size])
    return int(differing[0]) if len(differing) else size
