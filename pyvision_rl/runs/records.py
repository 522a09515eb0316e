"""Trajectory records: what was drawn in a step and what became of it, as Parquet (schema 1).

Per step and phase three files, committed in this order, so that none names what is not there:

* `images/PHASE/step-0000012.parquet`: every distinct image once (`sha1`, `width`, `height`, `png`),
  of all groups or, to save room, of some; those of the others are named and not there.
* `turns/PHASE/...`: all texts, token ids, log-probs and image names, a row a trajectory.
* `trajectories/PHASE/...`: one flat row a trajectory, for lists, filters and plots.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pyarrow as pa

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.runs.files import replacing
from pyvision_rl.runs.images import ImageTable, read_images, read_pngs
from pyvision_rl.runs.parquet import keep_rows, read_rows, read_table
from pyvision_rl.runs.schema import (
    LIGHT_COLUMNS,
    TRAJECTORIES,
    TURNS,
    StoredTrajectory,
    trajectory_columns,
    turns_columns,
)
from pyvision_rl.types import Group, Reward, Selection

_PHASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FILE = re.compile(r"step-(\d{7,})\.parquet")
KINDS = ("trajectories", "turns", "images")


@dataclass(frozen=True)
class RecordConfig:
    """What of a step's trajectories is written down. Texts, tokens and numbers always are."""

    image_groups: int = -1
    """Groups of each step whose images are kept, those that were trained on first, best first: of
    images of millions of pixels a step may write gigabytes. -1: all."""

    def __post_init__(self) -> None:
        if self.image_groups < -1:
            raise ConfigError(
                f"records.image_groups: {self.image_groups}, must be -1 (all) or more"
            )


@dataclass(frozen=True)
class GroupRecord:
    """A group and what training did with it; the tuples are [G], or empty where unknown.

    `rank` is its place among the kept groups (None: not kept, or an evaluation). `dropped` gives
    the reason for each trajectory, by index, that stayed out of the loss.
    """

    group: Group
    rank: int | None = None
    dropped: dict[int, str] = field(default_factory=dict)
    advantages: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()


def selection_records(
    selection: Selection,
    reason: Callable[[Group, int], str],
    advantages: Callable[[Group], Sequence[float]],
) -> list[GroupRecord]:
    """Every group of a selection, drawn ones first in their order, then carried-over ones.

    `reason` is asked for each trajectory that is not in the loss.
    """
    kept = {id(entry.group): (rank, entry) for rank, entry in enumerate(selection.kept)}
    drawn = {id(group) for group in selection.drawn}
    carried = [entry.group for entry in selection.kept if id(entry.group) not in drawn]
    records = []
    for group in (*selection.drawn, *carried):
        rank, entry = kept.get(id(group), (None, None))
        inside = set(entry.indices) if entry else set()
        outside = (index for index in range(len(group.trajectories)) if index not in inside)
        dropped = {index: reason(group, index) for index in outside}
        records.append(GroupRecord(group, rank, dropped, tuple(advantages(group))))
    return records


def write_groups(
    folder: Path, step: int, phase: str, records: Sequence[GroupRecord], image_groups: int = -1
) -> None:
    """Writes the records of one step and phase, images as RecordConfig says.

    Raises InputError where they are there already, a record cannot be written as it is, or the
    disk is full.
    """
    if not _PHASE.fullmatch(phase):
        raise InputError(f"phase {phase!r}: only letters, digits, '_', '.' and '-' are allowed")
    path = record_path(folder, "trajectories", phase, step)
    if path.exists():
        raise InputError(f"{path}: this step of the phase is recorded already")
    images = ImageTable()
    pictured = _pictured(records, image_groups)
    light: list[dict[str, object]] = []
    heavy: list[dict[str, object]] = []
    for place, record in enumerate(records):
        for index in range(_size(record)):
            task, trajectory = record.group.task, record.group.trajectories[index]
            key: dict[str, object] = {"group": place, "index": index}
            fate = {"step": step, "phase": phase, **_fate_columns(record, index)}
            reward = record.group.rewards[index]
            light.append(key | fate | trajectory_columns(task, reward, trajectory))
            name = images.add if place in pictured else images.name
            heavy.append(key | turns_columns(task, trajectory, name))
    with replacing(record_path(folder, "images", phase, step)) as file:
        images.write(file)
    with replacing(record_path(folder, "turns", phase, step)) as file:
        TURNS.write(file, heavy)
    with replacing(path) as file:
        TRAJECTORIES.write(file, light)


def _pictured(records: Sequence[GroupRecord], image_groups: int) -> set[int]:
    """Places of the groups whose images are kept."""
    ranks = [math.inf if record.rank is None else record.rank for record in records]
    places = sorted(range(len(records)), key=ranks.__getitem__)
    return set(places if image_groups < 0 else places[:image_groups])


def read_groups(
    folder: Path, step: int, phase: str, groups: Collection[int] | None = None
) -> list[GroupRecord]:
    """The records as they were written, images pixel by pixel; all, or those of some groups.

    Raises InputError where a file is missing, broken or of another schema, or images were not kept.
    """
    stored = read_stored(folder, step, phase, groups)
    names = {name for trajectory in stored for name in trajectory.image_names}
    path = record_path(folder, "images", phase, step)
    images = read_images(path, names)
    if gone := names - images.keys():
        raise _not_kept(path, min(gone))
    places: dict[int, list[StoredTrajectory]] = {}
    for trajectory in stored:
        places.setdefault(trajectory.group, []).append(trajectory)
    return [
        GroupRecord(
            group=Group(
                task=members[0].task,
                trajectories=tuple(member.build(images) for member in members),
                rewards=tuple(Reward(member.accuracy, member.tool) for member in members),
            ),
            rank=members[0].rank,
            dropped={m.index: m.dropped for m in members if m.dropped is not None},
            advantages=_known([member.advantage for member in members]),
            seconds=_known([member.seconds for member in members]),
        )
        for members in places.values()
    ]


def read_image(folder: Path, step: int, phase: str, sha1: str) -> bytes:
    """One image of a step as a PNG file. Raises InputError where there is none of that name."""
    path = record_path(folder, "images", phase, step)
    found = read_pngs(path, [sha1])
    if sha1 not in found:
        raise _not_kept(path, sha1)
    return found[sha1]


def _not_kept(path: Path, sha1: str) -> InputError:
    return InputError(
        f"{path}: holds no image {sha1}; a run may keep those of some groups only "
        "(records.image_groups)"
    )


def list_trajectories(
    folder: Path,
    phases: Collection[str] | None = None,
    steps: Iterable[int] | None = None,
    columns: Sequence[str] = LIGHT_COLUMNS,
) -> pa.Table:
    """One row per recorded trajectory, ordered by phase and step; only `columns` are read.

    Raises InputError naming the file that cannot be read.
    """
    wanted = None if steps is None else set(steps)
    tables = [
        read_table(record_path(folder, "trajectories", phase, step), columns)
        for phase, step in recorded_steps(folder)
        if (phases is None or phase in phases) and (wanted is None or step in wanted)
    ]
    empty = pa.schema([TRAJECTORIES.schema.field(name) for name in columns]).empty_table()
    return pa.concat_tables([empty, *tables])


def recorded_steps(folder: Path) -> list[tuple[str, int]]:
    """(phase, step) of all records, sorted."""
    return sorted(
        (path.parent.name, int(match.group(1)))
        for path in (folder / "trajectories").glob("*/*.parquet")
        if (match := _FILE.fullmatch(path.name))
    )


def drop_records_after(folder: Path, step: int) -> None:
    """Removes the records of every later step, in all phases."""
    for kind in KINDS:
        for path in (folder / kind).glob("*/*.parquet"):
            match = _FILE.fullmatch(path.name)
            if match and int(match.group(1)) > step:
                path.unlink()


def record_path(folder: Path, kind: str, phase: str, step: int) -> Path:
    """Where the records of one of `KINDS` lie."""
    return folder / kind / phase / f"step-{step:07d}.parquet"


def _size(record: GroupRecord) -> int:
    """G, after checking that everything in the record agrees about it."""
    size = len(record.group.trajectories)
    optional = [part for part in (record.advantages, record.seconds) if part]
    lengths = {len(part) for part in (record.group.rewards, *optional)}
    if size == 0 or lengths != {size}:
        raise InputError(
            f"task {record.group.task.id}: a record of {size} trajectories with lists of "
            f"{sorted(lengths)}: every list must be as long as the group, and a group not empty"
        )
    return size


def _fate_columns(record: GroupRecord, index: int) -> dict[str, object]:
    return {
        "rank": record.rank,
        "dropped": record.dropped.get(index),
        "advantage": record.advantages[index] if record.advantages else None,
        "seconds": record.seconds[index] if record.seconds else None,
    }


def read_stored(
    folder: Path, step: int, phase: str, groups: Collection[int] | None
) -> list[StoredTrajectory]:
    """The records as they lie on disk, images by name only; all, or those of some groups.

    Raises InputError as `read_groups` does.
    """
    light = read_table(record_path(folder, "trajectories", phase, step))
    path = record_path(folder, "turns", phase, step)
    if groups is None:
        heavy = read_table(path)
    else:
        heavy = read_rows(path, "group", groups)
        light = keep_rows(light, "group", groups)
    try:
        rows = [a | b for a, b in zip(light.to_pylist(), heavy.to_pylist(), strict=True)]
        return msgspec.convert(rows, list[StoredTrajectory])
    except ValueError as error:
        raise InputError(f"{path}: does not fit its trajectories: {error}") from error


def _known(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)
