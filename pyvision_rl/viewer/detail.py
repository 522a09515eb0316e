"""One trajectory or group in full, and a step's groups: what the pages show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pyvision_rl.errors import InputError
from pyvision_rl.runs.parquet import read_table
from pyvision_rl.runs.records import record_path
from pyvision_rl.runs.schema import StoredObservation, StoredTrajectory
from pyvision_rl.viewer.index import Ref, RunIndex
from pyvision_rl.viewer.looks import Looks, VideoFacts, find_looks
from pyvision_rl.viewer.media import sizes_in_runtime, video_facts
from pyvision_rl.viewer.pictures import Figures, Size
from pyvision_rl.viewer.search import Fit
from pyvision_rl.viewer.turns import TurnView, view_turns

_TAG = re.compile(r"<image_clue_(\d{1,6})><image></image_clue_\1>")

Row = dict[str, object]
"""The light columns of a trajectory by name."""

MEMBER_COLUMNS = (
    "group",
    "index",
    "answer",
    "stop",
    "accuracy",
    "tool",
    "reward",
    "advantage",
    "dropped",
    "num_turns",
    "num_tool_calls",
    "num_ok_tool_calls",
    "num_completion_tokens",
)


@dataclass(frozen=True)
class GivenImage:
    """The k-th image of the task. `size` is its size in the runtime, None where unknown.

    `seen` is the sha1 of what the prompt showed, empty where the policy did not see it.
    `has_file`: the task's own file is still there.
    """

    size: tuple[int, int] | None
    seen: str
    has_file: bool
    path: str


@dataclass(frozen=True)
class GivenVideo:
    """The k-th video of the task; its length is 0 where it cannot be read.

    `first_seen` are numbers of frames that the prompt started with, as far as it says.
    """

    path: str
    num_frames: int
    fps: float
    first_seen: tuple[int, ...] = ()


@dataclass(frozen=True)
class GivenFrame:
    """A frame of a video that the prompt started with, by sha1; `name` is empty if it has none."""

    name: str
    seen: str


@dataclass(frozen=True)
class TrajectoryView:
    """A trajectory as its page shows it. `row` has the light columns; `not_kept` are the images, by
    sha1, that the run saw and did not write down.
    """

    ref: Ref
    row: Row
    prompt: str
    num_prompt_tokens: int
    images: tuple[GivenImage, ...]
    videos: tuple[GivenVideo, ...]
    frames: tuple[GivenFrame, ...]
    turns: tuple[TurnView, ...]
    looks: Looks
    not_kept: tuple[str, ...]


@dataclass(frozen=True)
class Neighbours:
    """Where a trajectory stands among those that fit a query; `position` None: it does not fit."""

    total: int
    position: int | None
    previous: Ref | None
    next: Ref | None


@dataclass(frozen=True)
class GroupView:
    """A drawn group: its task, its trajectories, what became of it.

    `thumbnail` is the sha1 of an image that its prompt shows, empty where it shows none;
    `not_kept`: the run did not write it down. `has_film`: the first of its task's videos is still
    there.
    """

    group: int
    task_id: str
    question: str
    gold: str
    kind: str
    source: str
    rank: int | None
    reward_mean: float
    reward_std: float
    thumbnail: str
    not_kept: bool
    has_video: bool
    has_film: bool
    members: tuple[Row, ...]


def view_group(index: RunIndex, phase: str, step: int, group: int) -> list[TrajectoryView]:
    """Every trajectory of a group. Raises InputError."""
    part = index.part(phase, step)
    rows = part.filter(pc.equal(part["group"], group)).to_pylist()
    if not rows:
        raise InputError(f"{index.reader.path}: step {step} in {phase} has no group {group}")
    stored = index.reader.stored(step, phase, [group])
    if len(stored) != len(rows):
        raise InputError(f"{index.reader.path}: step {step} in {phase}: turns do not fit")
    sizes = _image_sizes(index, phase, step)
    return [
        _view(Ref(phase, step, group, member.index), member, row, sizes, exact=index.exact_figures)
        for member, row in zip(stored, rows, strict=True)
    ]


def view_trajectory(index: RunIndex, ref: Ref) -> TrajectoryView:
    """One trajectory. Raises InputError."""
    for view in view_group(index, ref.phase, ref.step, ref.group):
        if view.ref == ref:
            return view
    raise InputError(f"{index.reader.path}: step {ref.step}: no trajectory {ref.index} in group")


def stored_trajectory(index: RunIndex, ref: Ref) -> StoredTrajectory:
    """The record of one trajectory. Raises InputError."""
    for stored in index.reader.stored(ref.step, ref.phase, [ref.group]):
        if stored.index == ref.index:
            return stored
    raise InputError(f"{index.reader.path}: step {ref.step}: no trajectory {ref.index} in group")


def list_rows(index: RunIndex, places: pa.Array) -> list[Row]:
    """The trajectories at some places of the run's table."""
    return list(map(_for_browser, index.table.take(places).to_pylist()))


def find_neighbours(index: RunIndex, fit: Fit, ref: Ref) -> Neighbours:
    """The trajectories before and after one among those that fit."""
    places = fit.places
    keys = index.table.select(["phase", "step", "group", "index"]).take(places)
    is_ref = pc.and_(pc.equal(keys["step"], ref.step), pc.equal(keys["group"], ref.group))
    is_ref = pc.and_(is_ref, pc.equal(keys["index"], ref.index))
    is_ref = pc.and_(is_ref, pc.equal(keys["phase"], ref.phase))
    position = pc.index(is_ref, True).as_py()
    if position < 0:
        return Neighbours(len(places), None, None, None)
    at = partial(_ref_at, keys)
    return Neighbours(len(places), position, at(position - 1), at(position + 1))


def view_groups(index: RunIndex, phase: str, step: int) -> list[GroupView]:
    """The groups of a step as they were drawn. Raises InputError."""
    rows = index.part(phase, step).to_pylist()
    media = _media(index, phase, step)
    kept = _image_sizes(index, phase, step)
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    return [_view_group(rows, kept, *media.get(key, ("", ()))) for key, rows in groups.items()]


def _view(
    ref: Ref,
    stored: StoredTrajectory,
    row: Row,
    image_sizes: Mapping[str, Size] | None,
    *,
    exact: bool,
) -> TrajectoryView:
    sizes = sizes_in_runtime(stored.prompt.text, stored.task_images)
    facts = [video_facts(path) for path in stored.task_videos]
    turns = view_turns(stored.turns, len(stored.task_images))
    names = _prompt_names(stored.prompt)
    images = tuple(
        GivenImage(
            size=sizes.get(k),
            seen=names.get(f"image_clue_{k}", ""),
            has_file=path.is_file(),
            path=str(path),
        )
        for k, path in enumerate(stored.task.images)
    )
    return TrajectoryView(
        ref=ref,
        row=_for_browser(row),
        prompt=stored.prompt.text,
        num_prompt_tokens=len(stored.prompt.token_ids),
        images=images,
        videos=tuple(
            _view_video(k, path, fact, stored.prompt.text)
            for k, (path, fact) in enumerate(zip(stored.task_videos, facts, strict=True))
        ),
        frames=tuple(
            GivenFrame(name if name.startswith("image_clue_") else "", sha1)
            for name, sha1 in list(names.items())[_num_shown(names, images) :]
        ),
        turns=turns,
        looks=find_looks(
            [turn.code for turn in stored.turns],
            sizes,
            dict(enumerate(facts)),
            _figures(turns, image_sizes or {}),
            exact=exact,
        ),
        not_kept=tuple(sorted(stored.image_names - image_sizes.keys()))
        if image_sizes is not None
        else (),
    )


def _figures(turns: Sequence[TurnView], sizes: Mapping[str, Size]) -> dict[int, Figures]:
    """What each turn showed, those turns of whose figures all sizes are known."""
    return {
        place: Figures(turn.result.first_figure, tuple(map(sizes.__getitem__, turn.result.figures)))
        for place, turn in enumerate(turns)
        if turn.result and sizes.keys() >= set(turn.result.figures)
    }


def _image_sizes(index: RunIndex, phase: str, step: int) -> dict[str, Size] | None:
    """Width and height by sha1 of the images that were kept of a step; None where their file cannot
    be read, which each image then says for itself.
    """
    path = record_path(index.reader.path, "images", phase, step)
    try:
        columns = read_table(path, ["sha1", "width", "height"]).to_pydict()
    except InputError:
        return None
    sides = zip(columns["width"], columns["height"], strict=True)
    return dict(zip(columns["sha1"], sides, strict=True))


def _for_browser(row: Row) -> Row:
    """A seed has more digits than a number of JavaScript."""
    return row | {"seed": str(row["seed"])}


def _prompt_names(prompt: StoredObservation) -> dict[str, str]:
    """Sha1 of every image of the prompt by its name there, in order; those without one last."""
    tags = _TAG.findall(prompt.text)
    if not tags:
        tags = range(len(prompt.images))
    names = [f"image_clue_{k}" for k in tags][: len(prompt.images)]
    names += [f"unnamed {k}" for k in range(len(names), len(prompt.images))]
    return dict(zip(names, prompt.images, strict=True))


def _num_shown(names: Mapping[str, str], images: Sequence[GivenImage]) -> int:
    """How many of the images are the task's own."""
    return sum(f"image_clue_{k}" in names for k in range(len(images)))


def _view_video(k: int, path: str, facts: VideoFacts, prompt: str) -> GivenVideo:
    said = re.search(rf"frames? ((?:\d{{1,9}}, )*\d{{1,9}}) of video_clue_{k}\b", prompt)
    first_seen = tuple(map(int, said[1].split(", "))) if said else ()
    return GivenVideo(path, facts.num_frames, facts.fps, first_seen)


def _ref_at(keys: pa.Table, place: int) -> Ref | None:
    if not 0 <= place < len(keys):
        return None
    return Ref(**keys.slice(place, 1).to_pylist()[0])


def _view_group(
    rows: Sequence[Row], kept: Mapping[str, Size] | None, thumbnail: str, videos: Sequence[str]
) -> GroupView:
    first = rows[0]
    counted = [row["reward"] for row in rows if row["stop"] != "sandbox_lost"]
    rewards = pa.array(counted, pa.float64())
    return GroupView(
        group=int(str(first["group"])),
        task_id=str(first["task_id"]),
        question=str(first["question"]),
        gold=str(first["gold"]),
        kind=str(first["ability"]),
        source=str(first["source"]),
        rank=next((row["rank"] for row in rows if isinstance(row["rank"], int)), None),
        reward_mean=pc.mean(rewards).as_py() or 0.0,
        reward_std=pc.stddev(rewards).as_py() or 0.0,
        thumbnail=thumbnail,
        not_kept=bool(thumbnail) and kept is not None and thumbnail not in kept,
        has_video=bool(videos),
        has_film=bool(videos) and Path(videos[0]).is_file(),
        members=tuple({name: row[name] for name in MEMBER_COLUMNS} for row in rows),
    )


def _media(index: RunIndex, phase: str, step: int) -> dict[int, tuple[str, Sequence[str]]]:
    """Of each group the sha1 of its prompt's first image, and its task's videos; nothing else of
    the turns is read.
    """
    path = record_path(index.reader.path, "turns", phase, step)
    columns = ["group", "prompt.images.list.element", "task_videos.list.element"]
    media: dict[int, tuple[str, Sequence[str]]] = {}
    for row in read_table(path, columns).to_pylist():
        first = next(iter(row["prompt"]["images"] or ()), "")
        media.setdefault(row["group"], (first, row["task_videos"] or ()))
    return media
