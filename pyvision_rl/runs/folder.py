"""A run as one folder: the side that writes. Another process may read it at any time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import msgspec
import yaml

from pyvision_rl.errors import InputError
from pyvision_rl.runs.checkpoints import Checkpoint, CheckpointConfig, Checkpoints
from pyvision_rl.runs.curves import draw_curves
from pyvision_rl.runs.events import EventLog
from pyvision_rl.runs.files import remove_leftovers, write_file, writing
from pyvision_rl.runs.metrics import MetricLog
from pyvision_rl.runs.records import KINDS, GroupRecord, drop_records_after, write_groups
from pyvision_rl.runs.track import Track, Tracker, open_tracker

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
WARNINGS = "warnings.json"
CURVES = "curves.png"
PROMPT = "prompt.txt"
VIDEO_PROMPT = "video_prompt.txt"
SETUP = "setup.py"
CHECKPOINTS = "checkpoints"
LOCK = "run.lock"
LOCK_TRIES = 20
LOCK_WAIT_S = 0.02
_EVENTS = "tensorboard"
_PROMPTS = (PROMPT, VIDEO_PROMPT, SETUP)
_OWN = (METRICS, SUMMARY, WARNINGS, CURVES, *_PROMPTS, CHECKPOINTS, _EVENTS, *KINDS)

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | float | bool | None"


class RunFolder:
    """The one writer of a run; a lock keeps a second one out until it is closed or dead.

    `resumed`: the folder held this run before, begun. Steps are the run's own, from 0, and rise.
    """

    def __init__(
        self,
        path: Path,
        checkpoints: CheckpointConfig,
        resumed: bool,
        lock: int,
        tracker: Tracker | None = None,
    ) -> None:
        self.path = path
        self.resumed = resumed
        self.checkpoints = Checkpoints(path / CHECKPOINTS, checkpoints)
        self._lock = lock
        self._tracker = tracker
        self._metrics = MetricLog(path / METRICS)
        self._events: EventLog | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        config_yaml: str,
        *,
        resume: bool = False,
        may_change: Collection[str] = (),
        checkpoints: CheckpointConfig | None = None,
        track: Track = "none",
    ) -> Self:
        """Starts a run in a new folder or, with `resume`, goes on with the one that is there.

        A run can only go on with its own configuration; dotted keys in `may_change` (a number of
        steps, say) are free. Raises InputError, with nothing changed, where the folder holds
        another run, is written by another process, or cannot be written.
        """
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        try:
            resumed = holds_run(path, config_yaml, resume=resume, may_change=may_change)
            remove_leftovers(path)
            write_file(path / CONFIG, config_yaml.encode())
            tracker = open_tracker(track, path, config_yaml)
            return cls(path, checkpoints or CheckpointConfig(), resumed, lock, tracker)
        except BaseException:
            os.close(lock)
            raise

    def rewind(self) -> Checkpoint | None:
        """The checkpoint to go on from, with every metric and record after it dropped.

        None, with everything dropped, where there is none yet. Call it once before the first step.
        """
        latest = self.checkpoints.latest()
        step = latest.step if latest else -1
        self._metrics.drop_after(step)
        drop_records_after(self.path, step)
        return latest

    def drop_metrics(self) -> None:
        """Drops every metric, as an evaluation does that says again what it found in all."""
        self._metrics.drop_after(-1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a step (keys `room/name`), once a step, to metrics.jsonl and
        TensorBoard.

        A kind's own value has the kind as last part: `reward/accuracy/two_looks`.
        """
        row = self._metrics.append(step, metrics)
        if self._events is None:
            self._events = EventLog(self.path / _EVENTS, self._metrics.rows)
        else:
            self._events.append(row)
        if self._tracker:
            self._tracker.log(row.values, step=step)

    def write_groups(
        self, step: int, phase: str, records: Sequence[GroupRecord], image_groups: int = -1
    ) -> None:
        """Records what was drawn in a step; `phase` is "train" or an evaluation's name.

        `image_groups`: groups whose images are kept, see RecordConfig.
        """
        write_groups(self.path, step, phase, records, image_groups)

    def write_summary(self, summary: Mapping[str, Json]) -> None:
        """Replaces summary.json."""
        text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
        write_file(self.path / SUMMARY, text + b"\n")

    def write_warnings(self, warnings: Sequence[Mapping[str, Json]]) -> None:
        """Replaces warnings.json: what a person should know, each with `step`, `cause`, `text`."""
        text = msgspec.json.format(msgspec.json.encode(warnings), indent=2)
        write_file(self.path / WARNINGS, text + b"\n")

    def keep_text(self, name: str, text: str) -> None:
        """Keeps a text that the run depends on, a prompt template say, as a file of that name; for
        an empty one there is none.

        Raises InputError where the run was begun with another one.
        """
        path = self.path / name
        if self.resumed and path.exists() and path.read_text("utf-8") != text:
            raise InputError(
                f"{path}: the run was begun with this text and would go on with another; "
                "put it back, or name a new folder"
            )
        if text:
            write_file(path, text.encode())
        else:  # a start that failed before the first step may have left another one
            with writing(path):
                path.unlink(missing_ok=True)

    def draw_curves(self) -> None:
        """Replaces curves.png with the metrics so far; nothing where there are none."""
        if self._metrics.rows:
            write_file(self.path / CURVES, draw_curves(self._metrics.rows))

    def close(self) -> None:
        """Gives the folder free."""
        if self._tracker:
            self._tracker.finish()
        self._metrics.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def is_locked(path: Path) -> bool:
    """Whether a process is writing the run right now."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _lock(path: Path) -> int:
    """An open, locked file; the kernel frees it when the process ends, however it ends."""
    with writing(path / LOCK):
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock_exclusively(lock)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BlockingIOError as error:
        owner = os.pread(lock, 200, 0).decode(errors="replace")
        os.close(lock)
        raise InputError(f"{path}: is being written by {owner or 'another process'}") from error
    except OSError as error:
        os.close(lock)
        raise InputError(f"{path}: cannot be locked: {error.strerror}") from error
    return lock


def _lock_exclusively(lock: int) -> None:
    """Raises BlockingIOError where another writer has it; readers look for moments only."""
    for _ in range(LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(LOCK_WAIT_S)
    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holds_run(
    path: Path, config_yaml: str, *, resume: bool, may_change: Collection[str] = ()
) -> bool:
    """Whether the folder holds this very run, begun. InputError where it holds anything else; a
    run that failed before its first step (a model's name mistyped, say) leaves nothing to hold.
    """
    old = path / CONFIG
    if not old.exists():
        if strangers := [name for name in _OWN if (path / name).exists()]:
            raise InputError(f"{path}: holds {strangers[0]} of something else; name a new folder")
        return False
    if not resume:
        raise InputError(f"{path}: holds another run; remove it or name a new folder")
    is_begun = _is_begun(path)
    before, now = _flat(old, old.read_text("utf-8")), _flat(path, config_yaml)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and key not in may_change:
            if not is_begun:
                return False
            raise InputError(
                f"{path}: holds another run, there {key} is {before.get(key)!r} and here "
                f"{now.get(key)!r}; name a new folder or resume with the same configuration"
            )
    return is_begun


def _is_begun(path: Path) -> bool:
    """Whether a run has left anything but its configuration and the texts that it was to use."""
    log = path / METRICS
    has_steps = log.exists() and log.stat().st_size > 0
    return has_steps or any((path / name).exists() for name in (SUMMARY, CHECKPOINTS, *KINDS))


def _flat(path: Path, config_yaml: str) -> dict[str, object]:
    """The leaves of a configuration by dotted key."""
    try:
        tree = yaml.safe_load(config_yaml)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not readable as YAML: {str(error).splitlines()[0]}") from error
    leaves: dict[str, object] = {}
    open_nodes: list[tuple[str, object]] = [("", tree)]
    while open_nodes:
        prefix, node = open_nodes.pop()
        if isinstance(node, dict):
            open_nodes += [(f"{prefix}.{key}" if prefix else str(key), node[key]) for key in node]
        else:
            leaves[prefix] = node
    return leaves
