"""The light columns of a run's trajectories, held in memory and kept up with the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import yaml

from pyvision_rl.errors import InputError
from pyvision_rl.runs import MetricRow, RunReader
from pyvision_rl.runs.folder import METRICS
from pyvision_rl.runs.records import record_path
from pyvision_rl.viewer.said import SaidText, StepKey

RecordKey = tuple[str, int]
"""Phase and step."""


@dataclass(frozen=True)
class Ref:
    """Where a trajectory is: phase, step, place of its group in the step, place in its group."""

    phase: str
    step: int
    group: int
    index: int


REF = ("phase", "step", "group", "index")
"""The columns of a Ref."""


class RunIndex:
    """All trajectories of a run as one table, a file at a time: new steps cost only themselves.

    A file that cannot be read is left out and named in `problems` until it changes.
    """

    def __init__(self, reader: RunReader) -> None:
        self.reader = reader
        self.version = 0
        self._stamps: dict[RecordKey, int] = {}
        self._parts: dict[RecordKey, pa.Table] = {}
        self._broken: dict[RecordKey, str] = {}
        self._table: pa.Table | None = None
        self._said: SaidText | None = None
        self._metrics: tuple[tuple[int, int], list[MetricRow]] = ((-1, -1), [])

    def metrics(self) -> list[MetricRow]:
        """The run's metrics, read again only where the file has changed. Raises InputError."""
        try:
            status = (self.reader.path / METRICS).stat()
        except FileNotFoundError:
            return []
        stamp = (status.st_mtime_ns, status.st_size)
        if self._metrics[0] != stamp:
            self._metrics = (stamp, self.reader.metrics())
        return self._metrics[1]

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each file that cannot be read."""
        return tuple(self._broken.values())

    @property
    def table(self) -> pa.Table:
        """One row a trajectory, ordered by phase, step, group and index."""
        if self._table is None:
            empty = self.reader.trajectories(phases=())
            self._table = pa.concat_tables([empty, *map(self._parts.get, sorted(self._parts))])
        return self._table

    @property
    def steps(self) -> list[RecordKey]:
        """(phase, step) of all records that can be read, sorted."""
        return sorted(self._parts)

    @cached_property
    def exact_figures(self) -> bool:
        """Whether the run shows an image that is drawn alone at its own size, without axes."""
        try:
            tree = yaml.safe_load(self.reader.config_yaml)
        except (InputError, yaml.YAMLError):
            return False
        for name in ("agent", "sandbox", "figures"):
            tree = tree.get(name) if isinstance(tree, dict) else None
        return tree == "pixels"

    @property
    def said(self) -> SaidText:
        """What was said in the turns, to search in."""
        if self._said is None:
            self._said = SaidText(self.reader.path)
        return self._said

    def step_key(self, phase: str, step: int) -> StepKey:
        """A step as it is now: a rewritten one has another key."""
        return phase, step, self._stamps[phase, step]

    def refresh(self) -> bool:
        """Take in what was written, rewritten or dropped since; whether there was any."""
        stamps = {key: _stamp(self.reader.path, key) for key in self.reader.recorded_steps()}
        changed = [key for key, stamp in stamps.items() if self._stamps.get(key) != stamp]
        gone = self._stamps.keys() - stamps.keys()
        if not changed and not gone:
            return False
        for key in (*changed, *gone):
            self._parts.pop(key, None)
            self._broken.pop(key, None)
        for phase in sorted({phase for phase, _ in changed}):
            self._read(phase, [step for name, step in changed if name == phase])
        self._stamps = stamps
        self._table = None
        self.version += 1
        return True

    def part(self, phase: str, step: int) -> pa.Table:
        """The trajectories of one step. Raises InputError where there are none."""
        key = (phase, step)
        if key in self._broken:
            raise InputError(self._broken[key])
        if key not in self._parts:
            raise InputError(f"{self.reader.path}: no trajectories of step {step} in {phase}")
        return self._parts[key]

    def _read(self, phase: str, steps: list[int]) -> None:
        """All at once, or one by one where a file among them is broken."""
        try:
            self._take(phase, steps)
        except InputError as error:
            if len(steps) == 1:
                self._broken[phase, steps[0]] = str(error)
                return
            for step in steps:
                self._read(phase, [step])

    def _take(self, phase: str, steps: list[int]) -> None:
        table = self.reader.trajectories([phase], steps)
        start = 0
        counts = table["step"].value_counts().to_pylist()
        for entry in sorted(counts, key=lambda entry: entry["values"]):
            part = table.slice(start, entry["counts"]).combine_chunks()
            self._parts[phase, entry["values"]] = part
            start += entry["counts"]


def _stamp(folder: Path, key: RecordKey) -> int:
    """When the file was written; -1 where it has just gone."""
    try:
        return record_path(folder, "trajectories", *key).stat().st_mtime_ns
    except FileNotFoundError:
        return -1
