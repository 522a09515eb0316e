"""A run as one folder: the side that reads, while another process may still be writing it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from pyvision_rl.errors import InputError
from pyvision_rl.runs.checkpoints import Checkpoint, list_checkpoints
from pyvision_rl.runs.folder import CHECKPOINTS, CONFIG, METRICS, SUMMARY, WARNINGS, is_locked
from pyvision_rl.runs.metrics import MetricRow, read_metrics
from pyvision_rl.runs.records import (
    GroupRecord,
    list_trajectories,
    read_groups,
    read_image,
    read_stored,
    recorded_steps,
)
from pyvision_rl.runs.schema import LIGHT_COLUMNS, StoredTrajectory


class RunWarning(msgspec.Struct, frozen=True):
    """What a run warned of: the step, the cause by a fixed name, and a sentence."""

    step: int
    cause: str
    text: str


class RunReader:
    """What a run has written so far. Each call reads anew; all raise InputError."""

    def __init__(self, path: Path) -> None:
        if not (path / CONFIG).is_file():
            raise InputError(f"{path}: holds no run: there is no {CONFIG}")
        self.path = path

    @property
    def running(self) -> bool:
        """Whether a process is writing the run right now."""
        return is_locked(self.path)

    @property
    def config_yaml(self) -> str:
        """The resolved configuration."""
        path = self.path / CONFIG
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as text: {error}") from error

    def metrics(self) -> list[MetricRow]:
        """One row per logged step."""
        return read_metrics(self.path / METRICS)

    def summary(self) -> dict[str, object] | None:
        """summary.json, None while the run has written none."""
        path = self.path / SUMMARY
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as JSON: {error}") from error

    def warnings(self) -> list[RunWarning]:
        """What the run has warned of, in order; none where there is no warnings.json."""
        path = self.path / WARNINGS
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[RunWarning])
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as JSON: {error}") from error

    def checkpoints(self) -> list[Checkpoint]:
        """Finished checkpoints, oldest first."""
        return list_checkpoints(self.path / CHECKPOINTS)

    def recorded_steps(self) -> list[tuple[str, int]]:
        """(phase, step) of all trajectory records, sorted."""
        return recorded_steps(self.path)

    def trajectories(
        self,
        phases: Collection[str] | None = None,
        steps: Iterable[int] | None = None,
        columns: Sequence[str] = LIGHT_COLUMNS,
    ) -> pa.Table:
        """One row per trajectory without what was said or shown: 100,000 in half a second."""
        return list_trajectories(self.path, phases, steps, columns)

    def groups(
        self, step: int, phase: str, groups: Collection[int] | None = None
    ) -> list[GroupRecord]:
        """Everything that was recorded of a step, or of some of its groups."""
        return read_groups(self.path, step, phase, groups)

    def stored(
        self, step: int, phase: str, groups: Collection[int] | None = None
    ) -> list[StoredTrajectory]:
        """As `groups`, trajectory by trajectory, with names in place of decoded images."""
        return read_stored(self.path, step, phase, groups)

    def image(self, step: int, phase: str, sha1: str) -> bytes:
        """One image of a step as a PNG file."""
        return read_image(self.path, step, phase, sha1)
