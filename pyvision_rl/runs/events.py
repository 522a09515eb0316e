"""TensorBoard events, written with TensorBoard's own protos so that no torch is needed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pyvision_rl.runs.files import writing
from pyvision_rl.runs.metrics import MetricRow


class EventLog:
    """One event file in `folder`, rebuilt from the rows so far whenever a run is (re)opened.

    Events are a view of metrics.jsonl: rebuilding drops what a resumed run takes back. The opening
    session event makes a TensorBoard that is already watching forget the older file.
    """

    def __init__(self, folder: Path, rows: Iterable[MetricRow]) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            older = list(folder.glob("events.out.tfevents.*"))
            self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
            self._file = self._path.open("wb")
            self._records = RecordWriter(self._file)
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=0, session_log=start))
            for row in rows:
                self._write(_event(row))
            self._file.flush()
            for path in older:
                path.unlink()

    def append(self, row: MetricRow) -> None:
        """Adds one scalar per metric and flushes. Raises InputError on a full disk."""
        with writing(self._path):
            self._write(_event(row))
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with writing(self._path):
            self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _event(row: MetricRow) -> Event:
    values = [Summary.Value(tag=key, simple_value=value) for key, value in row.values.items()]
    return Event(wall_time=row.unix_s, step=row.step, summary=Summary(value=values))
