"""Finished items of an evaluation, appended as they come: a kill loses none that is done."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.item import Response
from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.runs.files import writing
from pyvision_rl.runs.records import KINDS, record_path
from pyvision_rl.types import Group, StopReason, Task, Trajectory

ITEMS = "items.jsonl"


class SampleRecord(msgspec.Struct, frozen=True):
    """What scoring and reports need of one trajectory."""

    answer: str | None
    text: str
    stop: StopReason
    num_turns: int
    num_tool_calls: int
    num_ok_tool_calls: int
    num_visual_tokens: int
    num_completion_tokens: int
    num_input_tokens: int = 0
    num_visual_tokens_shown: int = 0

    @property
    def response(self) -> Response:
        """What the agent said."""
        return Response(self.answer, self.text)

    @property
    def lost(self) -> bool:
        """Whether the sandbox failed, which says nothing about the agent."""
        return self.stop is StopReason.SANDBOX_LOST


class ItemRecord(msgspec.Struct, frozen=True):
    """A finished item; `step` is where its whole trajectories lie in the run's records.

    `accuracies` are those of its samples as graded when it was played. `task` is the digest of
    what was asked, `judged` what the judge has cost since the item before.
    """

    id: str
    step: int
    seconds: float
    samples: tuple[SampleRecord, ...]
    accuracies: tuple[float, ...] = ()
    task: str = ""
    judged: dict[str, float] = {}

    @property
    def whole(self) -> bool:
        """Whether no sample was lost: otherwise the item is played again on resuming."""
        return not any(sample.lost for sample in self.samples)


def sample_record(trajectory: Trajectory) -> SampleRecord:
    """The few numbers and texts of a trajectory that an evaluation keeps at hand."""
    return SampleRecord(
        answer=trajectory.answer,
        text=trajectory.turns[-1].completion.text if trajectory.turns else "",
        stop=trajectory.stop,
        num_turns=len(trajectory.turns),
        num_tool_calls=trajectory.num_tool_calls,
        num_ok_tool_calls=trajectory.num_ok_tool_calls,
        num_visual_tokens=trajectory.num_visual_tokens,
        num_visual_tokens_shown=trajectory.num_visual_tokens_shown,
        num_completion_tokens=trajectory.num_completion_tokens,
        num_input_tokens=_num_input_tokens(trajectory),
    )


def _num_input_tokens(trajectory: Trajectory) -> int:
    """The context of every turn, summed: what a model server is sent, and bills."""
    total = seen = len(trajectory.prompt.token_ids)
    for turn in trajectory.turns[:-1]:
        seen += len(turn.completion.token_ids)
        seen += len(turn.observation.token_ids) if turn.observation else 0
        total += seen
    return total if trajectory.turns else 0


def task_digest(task: Task, folder: Path | None = None) -> str:
    """Tells apart tasks of one id that ask something else; of media in `folder`, whose place does
    not matter, the names count.
    """
    media = (
        str(path.relative_to(folder) if folder and path.is_relative_to(folder) else path)
        for path in (*task.images, *task.videos)
    )
    asked = (task.question, task.answer, task.rule, *media)
    return hashlib.sha1(repr(asked).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Finished:
    """A played and graded item on its way to the disk."""

    group: Group
    seconds: float
    judged: Mapping[str, float]

    def record(self, step: int, folder: Path | None = None) -> ItemRecord:
        """Its line; `folder` is that of `task_digest`."""
        group = self.group
        return ItemRecord(
            group.task.id,
            step,
            round(self.seconds, 3),
            tuple(map(sample_record, group.trajectories)),
            tuple(reward.accuracy for reward in group.rewards),
            task_digest(group.task, folder),
            {key: number for key, number in self.judged.items() if number},
        )


class ItemStore:
    """The finished items in a run folder; items that finish while others are being written go into
    one file together. `folder` is that of `task_digest`.
    """

    def __init__(self, run: RunFolder, phase: str, folder: Path | None = None) -> None:
        self._run = run
        self._phase = phase
        self._folder = folder
        self._path = run.path / ITEMS
        self.records = {record.id: record for record in read_items_file(self._path, repair=True)}
        self._next = max((record.step for record in self.records.values()), default=-1) + 1
        self._waiting: list[Finished] = []
        self._writing = asyncio.Lock()

    @property
    def done(self) -> set[str]:
        """Ids of the items that need not be played again."""
        return {record.id for record in self.records.values() if record.whole}

    def check(self, tasks: Iterable[Task]) -> None:
        """Raise InputError where a task is not the one that was played under its id."""
        for task in tasks:
            record = self.records.get(task.id)
            if record and record.task != task_digest(task, self._folder):
                raise InputError(
                    f"{self._path}: task {task.id} was played with another question, answer or "
                    "media; name a new folder, or put the data back"
                )

    async def add(
        self, group: Group, seconds: float, judged: Mapping[str, float] | None = None
    ) -> None:
        """Record an item; it is on disk, synced, when this returns."""
        self._waiting.append(Finished(group, seconds, judged or {}))
        async with self._writing:
            # Whoever comes first writes for all that wait.
            batch = list(self._waiting)
            self._waiting.clear()
            if batch:
                await asyncio.to_thread(self._write, batch)

    def _write(self, batch: Sequence[Finished]) -> None:
        """First the trajectories, then a line for each item: a line names what is there."""
        step, self._next = self._next, self._next + 1
        for kind in KINDS:
            # A writer that was killed between the two may have left the records behind.
            record_path(self._run.path, kind, self._phase, step).unlink(missing_ok=True)
        self._run.write_groups(step, self._phase, [GroupRecord(item.group) for item in batch])
        records = [item.record(step, self._folder) for item in batch]
        _append(self._path, b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        self.records.update((record.id, record) for record in records)


def _append(path: Path, data: bytes) -> None:
    """All or nothing: on a full disk no half line stays, to which another would be added."""
    with writing(path), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


def read_items_file(path: Path, repair: bool = False) -> list[ItemRecord]:
    """The finished items; of an item that was played again the last line counts.

    A last line without its end is one that a killed writer did not finish: it is left out and,
    with `repair`, cut off. Raises InputError for any other line that is no record.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if repair and end < len(data):
        os.truncate(path, end)
    try:
        return msgspec.json.decode(
            b"[" + b",".join(data[:end].splitlines()) + b"]", type=list[ItemRecord]
        )
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: not the items of an evaluation ({error})") from error
