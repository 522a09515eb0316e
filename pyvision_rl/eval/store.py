"""Finished items of an evaluation, appended one by one: a kill loses none that is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pyvision_rl.errors import InputError
from pyvision_rl.eval.benchmarks.item import Response
from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.runs.files import writing
from pyvision_rl.runs.records import KINDS
from pyvision_rl.types import Group, Reward, StopReason, Task, Trajectory

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
    """A finished item; `step` is where its whole trajectories lie in the run's records."""

    id: str
    step: int
    seconds: float
    samples: tuple[SampleRecord, ...]

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


class ItemStore:
    """The finished items in a run folder. Not safe for threads: append from one at a time."""

    def __init__(self, run: RunFolder, phase: str) -> None:
        self._run = run
        self._phase = phase
        self._path = run.path / ITEMS
        self.records = {record.id: record for record in read_items_file(self._path, repair=True)}
        self._next = max((record.step for record in self.records.values()), default=-1) + 1

    @property
    def done(self) -> set[str]:
        """Ids of the items that need not be played again."""
        return {record.id for record in self.records.values() if record.whole}

    def append(
        self,
        task: Task,
        trajectories: tuple[Trajectory, ...],
        grades: Iterable[float],
        seconds: float,
    ) -> None:
        """Record an item's trajectories, then note that it is done; in this order, and synced."""
        step, self._next = self._next, self._next + 1
        for kind in KINDS:
            # A writer that was killed between the two may have left the records behind.
            path = self._run.path / kind / self._phase / f"step-{step:07d}.parquet"
            path.unlink(missing_ok=True)
        rewards = tuple(Reward(grade, 0.0) for grade in grades)
        group = Group(task, trajectories, rewards)
        self._run.write_groups(step, self._phase, [GroupRecord(group)])
        samples = tuple(map(sample_record, trajectories))
        record = ItemRecord(task.id, step, round(seconds, 3), samples)
        with writing(self._path), self._path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[record.id] = record


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
