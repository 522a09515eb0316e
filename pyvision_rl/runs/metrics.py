"""metrics.jsonl: one line a step, `{"step": 3, "unix_s": 1.7e9, "reward/accuracy": 0.5, ...}`.

The line is appended in one write; null stands for a value that is not finite.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyvision_rl.errors import InputError
from pyvision_rl.runs.files import writing

_DECODER = msgspec.json.Decoder(dict[str, float | None])


@dataclass(frozen=True)
class MetricRow:
    """The metrics of one step, keys `room/name`; `unix_s` is when they were logged."""

    step: int
    unix_s: float
    values: dict[str, float]


class MetricLog:
    """The one writer of a metrics.jsonl: repairs a torn last line on opening."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = read_metrics(path)
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            data = path.read_bytes()
            os.ftruncate(self._file, data.rfind(b"\n") + 1)

    @property
    def rows(self) -> tuple[MetricRow, ...]:
        """Every row of the file, in order."""
        return tuple(self._rows)

    def append(self, step: int, metrics: Mapping[str, float]) -> MetricRow:
        """Adds one line; steps must rise, so that a line is never said twice. Raises InputError."""
        if self._rows and step <= self._rows[-1].step:
            raise InputError(
                f"{self._path}: step {step} cannot follow step {self._rows[-1].step}: steps rise"
            )
        row = MetricRow(step, time.time(), {key: float(value) for key, value in metrics.items()})
        self._write(_line(row))
        self._rows.append(row)
        return row

    def drop_after(self, step: int) -> None:
        """Cuts every line past `step`, as if the run had stopped there."""
        kept = [row for row in self._rows if row.step <= step]
        lines = self._path.read_bytes().splitlines(keepends=True)[: len(kept)]
        with writing(self._path):
            os.ftruncate(self._file, sum(map(len, lines)))
        self._rows = kept

    def close(self) -> None:
        """Closes the file; nothing is buffered."""
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        start = os.fstat(self._file).st_size
        with writing(self._path):
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, start)
                raise


def read_metrics(path: Path) -> list[MetricRow]:
    """All whole lines; an unfinished last one (being written, or torn by a kill) is left out.

    Raises InputError with file and line where a finished line cannot be read.
    """
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [_row(path, number, line) for number, line in enumerate(whole, 1)]


def _line(row: MetricRow) -> bytes:
    values = {key: value if math.isfinite(value) else None for key, value in row.values.items()}
    return msgspec.json.encode({"step": row.step, "unix_s": row.unix_s, **values}) + b"\n"


def _row(path: Path, number: int, line: bytes) -> MetricRow:
    try:
        values = _DECODER.decode(line)
        step, unix_s = values.pop("step"), values.pop("unix_s")
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{path}:{number}: not a line of metrics: {error}") from error
    if step is None or unix_s is None:
        raise InputError(f"{path}:{number}: step and unix_s must be numbers")
    finite = {key: math.nan if value is None else value for key, value in values.items()}
    return MetricRow(int(step), unix_s, finite)
