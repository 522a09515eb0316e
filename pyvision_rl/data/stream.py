"""The order in which tasks are trained on: shuffled, endless, mixed by weight, exactly resumable.

Nothing random is kept: an epoch's order depends on the seed and the epoch's number alone, so that
the state is how many tasks were drawn from each set.
"""

from __future__ import annotations

import hashlib
import os
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.types import Task

STREAM_FILE = "stream.json"


@dataclass(frozen=True)
class TaskSet:
    """Tasks that share a weight: of what the stream draws, weight / sum of weights is theirs."""

    tasks: Sequence[Task]
    weight: float = 1.0


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands: per set, how many tasks were drawn and which tasks they are."""

    seed: int
    weights: tuple[float, ...]
    drawn: tuple[int, ...]
    fingerprints: tuple[str, ...]


class TaskStream:
    """Draws tasks without end; each set is gone through in a new order every epoch.

    Several sets are interleaved as evenly as their weights allow, so that every batch has the
    mixture's shares, not only their average: to within a task a set for up to three sets, to within
    three for a dozen.
    """

    def __init__(self, tasks: Sequence[Task] | Sequence[TaskSet], seed: int) -> None:
        self._sets = _as_sets(tasks)
        self._seed = seed
        self._drawn = [0] * len(self._sets)
        self._orders: list[tuple[int, array[int]]] = [(-1, array("Q"))] * len(self._sets)
        for number, item in enumerate(self._sets):
            if not item.tasks:
                raise InputError(f"task stream: set {number} has no tasks")
            if not 0 < item.weight < float("inf"):
                raise ConfigError(f"task stream: weight {item.weight} of set {number}; must be > 0")

    def next(self, count: int) -> list[Task]:
        """The next `count` tasks."""
        return [self._draw(self._due_set()) for _ in range(count)]

    def epoch(self, number: int = 0) -> float:
        """How often the stream has gone through a set, in fractions of an epoch."""
        return self._drawn[number] / len(self._sets[number].tasks)

    def state(self) -> StreamState:
        """Where the stream stands; `restore` goes back there."""
        return StreamState(
            seed=self._seed,
            weights=tuple(float(item.weight) for item in self._sets),
            drawn=tuple(self._drawn),
            fingerprints=self._fingerprints,
        )

    @cached_property
    def _fingerprints(self) -> tuple[str, ...]:
        return tuple(_fingerprint(item.tasks) for item in self._sets)

    def restore(self, state: StreamState) -> None:
        """Go on from a state of a stream over the same sets; raises InputError for others."""
        mine = self.state()
        for what, now, saved in (
            ("seed", mine.seed, state.seed),
            ("weights", mine.weights, state.weights),
            ("tasks", mine.fingerprints, state.fingerprints),
        ):
            if now != saved:
                raise InputError(
                    f"task stream: {what} = {now}, but the saved stream has {saved}; "
                    "only the same stream can go on"
                )
        if len(state.drawn) != len(self._sets) or any(count < 0 for count in state.drawn):
            raise InputError(f"task stream: drawn = {state.drawn}; must be a count for each set")
        self._drawn = list(state.drawn)

    def save(self, folder: str | Path) -> None:
        """Write the state as `stream.json` into a folder, all or nothing."""
        temporary = Path(folder) / f".{STREAM_FILE}"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self.state())))
        os.replace(temporary, Path(folder) / STREAM_FILE)

    def load(self, folder: str | Path) -> None:
        """Go on from the `stream.json` of a folder; raises InputError where it does not fit."""
        path = Path(folder) / STREAM_FILE
        try:
            state = msgspec.json.decode(path.read_bytes(), type=StreamState)
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"{path}: not a saved stream ({error})") from error
        self.restore(state)

    def _due_set(self) -> int:
        """The set that is furthest behind its share."""
        if len(self._sets) == 1:
            return 0
        return min(
            range(len(self._sets)),
            key=lambda number: (self._drawn[number] + 0.5) / self._sets[number].weight,
        )

    def _draw(self, number: int) -> Task:
        tasks = self._sets[number].tasks
        epoch, position = divmod(self._drawn[number], len(tasks))
        if self._orders[number][0] != epoch:
            order = array("Q", range(len(tasks)))
            # Seeding by text is stable over processes and Python versions.
            random.Random(f"{self._seed}/{number}/{epoch}").shuffle(order)
            self._orders[number] = (epoch, order)
        self._drawn[number] += 1
        return tasks[self._orders[number][1][position]]


def _as_sets(tasks: Sequence[Task] | Sequence[TaskSet]) -> tuple[TaskSet, ...]:
    sets = tuple(item for item in tasks if isinstance(item, TaskSet))
    return sets or (TaskSet([item for item in tasks if isinstance(item, Task)]),)


def _fingerprint(tasks: Sequence[Task]) -> str:
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(task.id.encode("utf-8", "surrogatepass") + b"\0")
    return f"{len(tasks)} tasks {digest.hexdigest()[:16]}"
