"""The runs to show: found below the given folders, each under a short name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyvision_rl.errors import InputError
from pyvision_rl.runs import MetricRow, RunReader
from pyvision_rl.runs.folder import CHECKPOINTS, CONFIG, METRICS
from pyvision_rl.runs.reader import RunWarning
from pyvision_rl.runs.records import KINDS
from pyvision_rl.viewer.index import RunIndex

_MAX_DEPTH = 3
_NO_RUNS_IN = frozenset({CHECKPOINTS, "tensorboard", "data", *KINDS})


@dataclass(frozen=True)
class RunState:
    """What a run is at the moment; `problems` are files that cannot be read, a line each."""

    name: str
    path: str
    running: bool
    num_steps: int
    num_trajectories: int
    phases: tuple[str, ...]
    num_checkpoints: int
    unix_s: float | None
    """When metrics were last logged."""
    version: int
    latest: dict[str, float]
    """Last value of every metric."""
    warnings: tuple[RunWarning, ...]
    """What the run itself warned of, oldest first."""
    problems: tuple[str, ...]


class Library:
    """Every run in or below the given folders; those that appear later are found too."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [Path(os.path.abspath(folder)) for folder in folders]
        self._indexes: dict[Path, RunIndex] = {}
        self._names: dict[str, Path] = {}
        self.refresh()
        if not self._names:
            raise InputError(
                f"{', '.join(map(str, folders))}: no run in or below: there is no {CONFIG}"
            )

    def refresh(self) -> None:
        """Look for runs and for what they wrote since."""
        found = [(folder, path) for folder in self._folders for path in _runs_of(folder)]
        self._names = _name_runs(found, with_folder=len(set(self._folders)) > 1)
        for path in self._names.values():
            index = self._indexes.setdefault(path, RunIndex(RunReader(path)))
            index.refresh()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all runs, in the order of the folders."""
        return tuple(self._names)

    def run(self, name: str) -> RunIndex:
        """A run by name. Raises InputError."""
        if name not in self._names:
            raise InputError(f"no run {name!r}; there are {', '.join(self._names)}")
        return self._indexes[self._names[name]]

    def state(self, name: str) -> RunState:
        """What a run is at the moment; one that cannot be read says so in its problems."""
        index = self.run(name)
        problems = list(index.problems)
        rows: list[MetricRow] = []
        warnings: list[RunWarning] = []
        num_checkpoints = 0
        try:
            rows = index.metrics()
            warnings = index.reader.warnings()
            num_checkpoints = len(index.reader.checkpoints())
        except InputError as error:
            problems.append(str(error))
        return RunState(
            name=name,
            path=str(index.reader.path),
            running=index.reader.running,
            num_steps=len(rows),
            num_trajectories=len(index.table),
            phases=tuple(sorted({phase for phase, _ in index.steps})),
            num_checkpoints=num_checkpoints,
            unix_s=rows[-1].unix_s if rows else None,
            version=index.version,
            latest={key: value for row in rows for key, value in row.values.items()},
            warnings=tuple(warnings),
            problems=tuple(problems),
        )


def _runs_of(folder: Path) -> list[Path]:
    """The runs of a given folder; one that has only just begun counts where it is alone."""
    found = list(_find_runs(folder, _MAX_DEPTH))
    return found or [folder] * (folder / CONFIG).is_file()


def _find_runs(folder: Path, depth: int) -> Iterator[Path]:
    """Runs with something in them, outer ones first, names in order."""
    try:
        is_run = (folder / CONFIG).is_file() and _has_content(folder)
        inner = sorted(folder.iterdir()) if depth and folder.is_dir() else []
        inner = [child for child in inner if child.is_dir()]
    except OSError:  # it has just gone, or is not ours to read
        return
    if is_run:
        yield folder
    for child in inner:
        if not child.name.startswith(".") and child.name not in _NO_RUNS_IN:
            yield from _find_runs(child, depth - 1)


def _has_content(folder: Path) -> bool:
    metrics = folder / METRICS
    has_metrics = metrics.is_file() and metrics.stat().st_size > 0
    return has_metrics or (folder / "trajectories").is_dir()


def _name_runs(found: Sequence[tuple[Path, Path]], *, with_folder: bool) -> dict[str, Path]:
    """Paths below the given folder, with that folder's name where there are several."""
    names: dict[str, Path] = {}
    for folder, path in found:
        if path in names.values():
            continue
        inner = path.relative_to(folder).as_posix()
        name = folder.name if inner == "." else inner
        if inner != "." and with_folder:
            name = f"{folder.name}/{inner}"
        while name in names:
            name = f"{name}'"
        names[name] = path
    return names
