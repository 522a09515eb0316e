"""What a teacher did with tasks: which attempts are worth imitating, and a store that loses none
that is finished.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyvision_rl.data.rows import write_rows
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.server_engine import TokenUsage
from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.runs.files import writing
from pyvision_rl.runs.records import KINDS
from pyvision_rl.sft.traces import TRACES_FILE, TraceSource, trace_row
from pyvision_rl.types import Group, Reward, StopReason, Task, Trajectory

ATTEMPTS = "attempts.jsonl"
TRACES = "traces"
PHASE = "synthesize"
KEPT = "kept"
TOOL_MARKS = ("<interpreter>", "<tool_response>")
CODE_MARKS = ("<code>", "```py")
MEDIA_MARKS = ("<image>", "<video>")
"""Stand for media in a trace file, where no assistant's text may have one."""


@dataclass(frozen=True)
class KeepConfig:
    """Which attempts become traces."""

    min_calls: int = 1
    """Fewest programs that ran."""
    max_calls: int = 0
    """Most programs that ran; 0: no limit but the rollout's."""
    min_accuracy: float = 1.0
    """Lowest accuracy of the answer."""
    failed_calls: bool = False
    """Keep attempts in which a program failed and the teacher went on."""

    def __post_init__(self) -> None:
        if self.min_calls < 0 or self.max_calls < 0:
            raise ConfigError("keep: min_calls and max_calls must not be negative")
        if 0 < self.max_calls < self.min_calls:
            raise ConfigError(
                f"keep: min_calls {self.min_calls} is above max_calls {self.max_calls}"
            )
        if not 0 < self.min_accuracy <= 1:
            raise ConfigError(f"keep: min_accuracy {self.min_accuracy}, must be above 0, at most 1")


def outcome_of(trajectory: Trajectory, accuracy: float, keep: KeepConfig) -> str:
    """ "kept", or the first reason why an attempt is not one to imitate."""
    calls = trajectory.num_tool_calls
    text = "\n".join(turn.completion.text for turn in trajectory.turns)
    last = "".join(turn.completion.text for turn in trajectory.turns[-1:])
    reasons = {
        f"stop_{trajectory.stop}": trajectory.stop is not StopReason.ANSWERED,
        "wrong": accuracy < keep.min_accuracy,
        "too_few_calls": calls < keep.min_calls,
        "too_many_calls": 0 < keep.max_calls < calls,
        "failed_call": not keep.failed_calls and trajectory.num_ok_tool_calls < calls,
        # A student would learn to make up what its programs print.
        "wrote_observation": any(mark in text for mark in TOOL_MARKS),
        # The program beside an answer never ran.
        "code_beside_answer": any(mark in last for mark in CODE_MARKS),
        "wrote_placeholder": any(mark in text for mark in MEDIA_MARKS),
    }
    return next((reason for reason, holds in reasons.items() if holds), KEPT)


class Attempt(msgspec.Struct, frozen=True):
    """A finished attempt; `trace` is its row of the trace file, where it was kept."""

    task: str
    outcome: str
    num_input_tokens: int
    num_output_tokens: int
    trace: dict[str, object] | None = None


class AttemptStore:
    """The finished attempts in a run folder, synced to disk one by one: how they ended, and the
    tokens that they took.

    Not safe for threads: add from one at a time.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._path = run.path / ATTEMPTS
        self.outcomes: Counter[str] = Counter()
        self.usage = TokenUsage()
        self._by_task: defaultdict[str, list[Attempt]] = defaultdict(list)
        for attempt in _read_attempts(self._path):
            self._count(attempt)
        (run.path / TRACES / "images").mkdir(parents=True, exist_ok=True)

    def of(self, task: Task) -> Sequence[Attempt]:
        """The attempts at a task so far."""
        return self._by_task[task.id]

    def add(
        self,
        task: Task,
        played: Trajectory,
        accuracy: float,
        outcome: str,
        usage: TokenUsage,
        trace: Trajectory | None,
    ) -> None:
        """Record an attempt: first its trajectory and images, then, synced, that it is done.

        `trace` is what to imitate, None where the attempt was not kept.
        """
        number = self.outcomes.total()
        for kind in KINDS:
            # A writer that was killed before its last line may have left the records behind.
            left = self._run.path / kind / PHASE / f"step-{number:07d}.parquet"
            left.unlink(missing_ok=True)
        group = Group(task, (played,), (Reward(accuracy, 0.0),))
        dropped = {} if trace else {0: outcome}
        self._run.write_groups(number, PHASE, [GroupRecord(group, dropped=dropped)])
        folder = self._run.path / TRACES
        row = trace_row(folder, f"trace_{number:06d}", TraceSource(trace)) if trace else None
        self._append(Attempt(task.id, outcome, usage.num_input, usage.num_output, row))

    def _append(self, attempt: Attempt) -> None:
        with writing(self._path), self._path.open("ab") as file:
            file.write(msgspec.json.encode(attempt) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._count(attempt)

    def _count(self, attempt: Attempt) -> None:
        self.outcomes[attempt.outcome] += 1
        self.usage.num_input += attempt.num_input_tokens
        self.usage.num_output += attempt.num_output_tokens
        self._by_task[attempt.task].append(attempt)

    def write_traces(self, tasks: Sequence[Task]) -> Path:
        """Replace the trace file by all traces so far, in the order of the tasks."""
        attempts = (attempt for task in tasks for attempt in self.of(task))
        path = self._run.path / TRACES / TRACES_FILE
        write_rows(path, (attempt.trace for attempt in attempts if attempt.trace))
        return path


def _read_attempts(path: Path) -> list[Attempt]:
    """The attempts in the file; a last line that a killed writer did not finish is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    try:
        return [msgspec.json.decode(line, type=Attempt) for line in data[:end].splitlines()]
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: not the attempts of a synthesis ({error})") from error
