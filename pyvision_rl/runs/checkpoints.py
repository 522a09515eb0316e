"""Checkpoints as folders that are either whole or not there; what is in them is the writer's own.

Holds no torch: a callback writes weights and state into the folder that it is given.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.runs.files import sync_folder, temporary, writing

_NAME = re.compile(r"step-(\d{7,})")
_NOTE = "checkpoint.json"


@dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints stay on disk."""

    keep_last: int = 2
    """Newest checkpoints to keep, at least 1."""
    best_metric: str = "eval/accuracy"
    """The checkpoint with the highest value of this metric is kept too."""

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ConfigError(f"keep_last must be at least 1, not {self.keep_last}")


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint: its folder, its step and the metrics it was saved with."""

    path: Path
    step: int
    metrics: dict[str, float]


class _Note(msgspec.Struct):
    step: int
    metrics: dict[str, float]


class Checkpoints:
    """The checkpoints of one run, in `checkpoints/step-0000012/`."""

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self._folder = folder
        self._config = config

    def save(
        self, step: int, write: Callable[[Path], None], metrics: Mapping[str, float]
    ) -> Checkpoint:
        """Calls `write(folder)`, commits the folder in one rename, then removes what is not kept.

        A checkpoint of the same step is replaced. On an error of `write` nothing has changed; an
        OSError (a full disk) is raised as InputError.
        """
        known = {key: value for key, value in metrics.items() if math.isfinite(value)}
        path = self._folder / f"step-{step:07d}"
        draft = temporary(path)
        with writing(path):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            try:
                write(draft)
                (draft / _NOTE).write_bytes(msgspec.json.encode(_Note(step, known)))
                _sync_tree(draft)
                old = _put_aside(path)
                draft.rename(path)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            sync_folder(self._folder)
            shutil.rmtree(old, ignore_errors=True)
            self._prune()
        return Checkpoint(path, step, known)

    def all(self) -> list[Checkpoint]:
        """Every finished checkpoint, oldest first. Raises InputError if one cannot be read."""
        return list_checkpoints(self._folder)

    def latest(self) -> Checkpoint | None:
        """The newest one, None before the first."""
        found = self.all()
        return found[-1] if found else None

    def best(self) -> Checkpoint | None:
        """The highest `best_metric`, the earliest among equals; None where none has it."""
        key = self._config.best_metric
        rated = [checkpoint for checkpoint in self.all() if key in checkpoint.metrics]
        return max(rated, key=lambda checkpoint: checkpoint.metrics[key], default=None)

    def _prune(self) -> None:
        best = self.best()
        for checkpoint in self.all()[: -self._config.keep_last]:
            if best is None or checkpoint.step != best.step:
                shutil.rmtree(_put_aside(checkpoint.path))


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The finished checkpoints in `folder`, oldest first. Raises InputError."""
    if not folder.is_dir():
        return []
    found = [_read(path) for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    whole = [checkpoint for checkpoint in found if checkpoint is not None]
    return sorted(whole, key=lambda checkpoint: checkpoint.step)


def _read(path: Path) -> Checkpoint | None:
    """None where the writer removed the checkpoint in this very moment."""
    note = path / _NOTE
    try:
        found = msgspec.json.decode(note.read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError) as error:
        if not path.exists():
            return None
        raise InputError(f"{note}: not the note of a finished checkpoint: {error}") from error
    return Checkpoint(path, found.step, found.metrics)


def _put_aside(path: Path) -> Path:
    """Renames a checkpoint, if it is there, to be removed: a kill while that lasts never leaves
    half of it under its real name.
    """
    doomed = temporary(path.with_name(f"old-{path.name}"))
    shutil.rmtree(doomed, ignore_errors=True)
    if path.exists():
        path.rename(doomed)
    return doomed


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)
