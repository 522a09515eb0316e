"""Every problem of a data file at once, and what it holds, before a run depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from pyvision_rl.data.media import check_video, load_image
from pyvision_rl.data.mixture import MIXTURE_SUFFIXES, read_mixture
from pyvision_rl.data.readers import SeenIds, iter_tasks
from pyvision_rl.data.rows import Problem, Row, iter_rows
from pyvision_rl.data.traces import Trace, iter_traces
from pyvision_rl.errors import InputError
from pyvision_rl.types import Task

MAX_TEXT_CHARS = 100_000
"""A longer text cannot fit into the paper's context of 32K tokens."""


@dataclass(frozen=True)
class Report:
    """What a file holds and all that is wrong with it."""

    file: Path
    kind: Literal["tasks", "traces"]
    num_rows: int
    num_bad_rows: int
    num_images: int
    num_videos: int
    sources: Counter[str]
    abilities: Counter[str]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the file can be used as it is."""
        return not self.problems

    def lines(self, max_problems: int = 50) -> list[str]:
        """The report for a person: the first problems, one a line, then the counts."""
        lines = [str(problem) for problem in self.problems[:max_problems]]
        if len(self.problems) > max_problems:
            lines.append(f"... and {len(self.problems) - max_problems} more problems")
        lines.append(
            f"{self.file}: {self.num_rows} {self.kind}, {self.num_images} images, "
            f"{self.num_videos} videos; {len(self.problems)} problems in {self.num_bad_rows} rows"
        )
        for name, counts in (("data_source", self.sources), ("ability", self.abilities)):
            shares = ", ".join(f"{key or '(none)'} {num}" for key, num in counts.most_common(12))
            more = f", and {len(counts) - 12} more" if len(counts) > 12 else ""
            lines.append(f"{name}: {shares or '(none)'}{more}")
        return lines


@dataclass(frozen=True)
class ValidateConfig:
    """How closely a file is looked at."""

    image_root: str = ""
    """Folder that relative media paths start from; empty: the file's own."""
    decode: bool = False
    """Decode every image and open every video, which takes time."""


def validate_file(
    path: str | Path, *, image_root: str | Path | None = None, decode: bool = False
) -> Report:
    """Read a task or trace file (told apart by its first row) and note every problem.

    With `decode` every image is decoded and every video opened, which takes time; without it
    media are only looked up. A mixture's files are one report. Never raises for what is in a file.
    """
    checker = _Checker(Path(path), decode)
    try:
        if Path(path).suffix in MIXTURE_SUFFIXES:
            for part in read_mixture(path):
                checker.run(part.path, part.image_root)
        else:
            checker.run(Path(path), image_root)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        checker.problems.append(Problem(Path(path), None, None, "", "", reason))
    return checker.report()


class _Checker:
    def __init__(self, file: Path, decode: bool) -> None:
        self.file = file
        self.decode = decode
        self.kind: Literal["tasks", "traces"] = "tasks"
        self.problems: list[Problem] = []
        self.bad_rows: set[tuple[Path, int]] = set()
        self.counts: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.abilities: Counter[str] = Counter()
        self.media: dict[Path, str] = {}

    def run(self, file: Path, image_root: str | Path | None) -> None:
        first = next(islice(iter_rows(file), 1), None)
        if first is None:
            raise InputError(f"{file}: has no rows")
        self.kind = "tasks"
        if {"conversations", "messages"} & first.fields.keys():
            self.kind = "traces"
        for row in self._rows(file, image_root):
            self.counts["rows"] += 1
            self._note(row.problems)

    def _note(self, problems: Sequence[Problem]) -> None:
        self.problems += problems
        self.bad_rows |= {(p.file, p.row) for p in problems if p.row is not None}

    def _rows(self, file: Path, image_root: str | Path | None) -> Iterator[Row]:
        if self.kind == "traces":
            for row, trace in iter_traces(file, image_root, None):
                self._check_trace(row, trace)
                yield row
            return
        ids = SeenIds()
        for row, task in iter_tasks(file, image_root, None):
            self._check_task(row, task)
            if task.id:
                ids.add(task.id)
            yield row
        self._note(list(ids.repeated(file)))

    def _check_task(self, row: Row, task: Task) -> None:
        self._check_length(row, "question", len(task.question))
        self._check_media(row, task.images, task.videos)
        if not row.problems:
            self.sources[task.source] += 1
            self.abilities[task.ability] += 1

    def _check_trace(self, row: Row, trace: Trace) -> None:
        self._check_length(row, "conversations", sum(len(m.text) for m in trace.messages))
        self._check_media(row, trace.images, trace.videos)
        if not row.problems:
            self.sources[trace.source] += 1

    def _check_length(self, row: Row, name: str, num_chars: int) -> None:
        if num_chars > MAX_TEXT_CHARS:
            row.fail(name, f"{num_chars} characters", f"at most {MAX_TEXT_CHARS} are allowed")

    def _check_media(self, row: Row, images: tuple[Path, ...], videos: tuple[Path, ...]) -> None:
        self.counts["images"] += len(images)
        self.counts["videos"] += len(videos)
        if self.decode and not row.problems:
            for path in images:
                self._try(row, path, load_image)
            for path in videos:
                self._try(row, path, check_video)

    def _try(self, row: Row, path: Path, read: Callable[[Path], object]) -> None:
        """Note why a file cannot be read; each file is read once, however many rows name it."""
        if path not in self.media:
            try:
                read(path)
                self.media[path] = ""
            except InputError as error:
                self.media[path] = str(error).removeprefix(f"{path}: ")
        if self.media[path]:
            row.fail("", str(path), self.media[path])

    def report(self) -> Report:
        return Report(
            file=self.file,
            kind=self.kind,
            num_rows=self.counts["rows"],
            num_bad_rows=len(self.bad_rows),
            num_images=self.counts["images"],
            num_videos=self.counts["videos"],
            sources=self.sources,
            abilities=self.abilities,
            problems=tuple(self.problems),
        )
