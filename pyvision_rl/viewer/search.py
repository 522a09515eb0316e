"""Which trajectories of a run fit a query: its light columns, and what was said in the turns."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from pyvision_rl.viewer.index import RunIndex
from pyvision_rl.viewer.query import Query
from pyvision_rl.viewer.said import Excerpt, Found, StepKey


@dataclass(frozen=True)
class Searched:
    """How far the search in the turns has come, in steps; all zeros where there was none to do."""

    done: int = 0
    total: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Fit:
    """Places in the run's table of the trajectories that fit, so far, in the order asked for."""

    places: pa.Array
    searched: Searched


def find_rows(index: RunIndex, query: Query, budget_s: float | None = None) -> Fit:
    """The trajectories that fit. After `budget_s` seconds of looking through the turns the answer
    is what was found by then; asked again, the search goes on.
    """
    if not query.said_parts:
        return Fit(query.rows(index.table), Searched())
    offsets = _offsets(index)
    steps = _steps_to_search(index, query, offsets)
    found = index.said.search(query.text, query.said_parts, steps, budget_s)
    said = pa.array(_mask_of(found, offsets, len(index.table)))
    searched = Searched(found.done, found.total, found.unreadable)
    return Fit(query.rows(index.table, said), searched)


def read_ahead(index: RunIndex, budget_s: float) -> Searched:
    """Read texts that will be searched, newest first, for so many seconds; again, it goes on."""
    steps = _steps_to_search(index, Query(), _offsets(index))
    return Searched(index.said.read_ahead(steps, budget_s), len(steps))


def find_excerpts(index: RunIndex, query: Query, places: pa.Array) -> list[Excerpt | None]:
    """Where the turns of some trajectories hold the text of a query that was searched for."""
    if not query.said_parts:
        return [None] * len(places)
    steps = list(_offsets(index).items())
    starts = [start for _, start in steps]
    found = []
    for place in places.to_pylist():
        step, start = steps[bisect_right(starts, place) - 1]
        found.append(index.said.excerpt(query.text, query.said_parts, step, place - start))
    return found


def _offsets(index: RunIndex) -> dict[StepKey, int]:
    """The place of each step's first row in the table."""
    offsets = {}
    place = 0
    for phase, step in index.steps:
        offsets[index.step_key(phase, step)] = place
        place += len(index.part(phase, step))
    return offsets


def _steps_to_search(index: RunIndex, query: Query, offsets: dict[StepKey, int]) -> list[StepKey]:
    """Those with a row that the other conditions leave, in the order in which they are listed."""
    mask = msgspec.structs.replace(query, text="", part="").mask(index.table)
    steps = list(offsets)
    if mask is not None:
        left = np.append(0, np.cumsum(mask.to_numpy()))
        ends = [*offsets.values(), len(index.table)][1:]
        steps = [
            step
            for (step, start), end in zip(offsets.items(), ends, strict=True)
            if left[end] > left[start]
        ]
    return sorted(steps, key=lambda step: step[1], reverse=query.sort != "old")


def _mask_of(found: Found, offsets: dict[StepKey, int], num_rows: int) -> np.ndarray:
    mask = np.zeros(num_rows, bool)
    for step, rows in found.rows.items():
        mask[offsets[step] + rows] = True
    return mask
