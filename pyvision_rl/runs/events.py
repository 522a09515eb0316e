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
    """An event file in `folder` with the rows so far, a new one whenever a run is (re)opened.

    Events are a view of metrics.jsonl: starting again drops what a resumed run takes back. The
    session event at step 0 makes TensorBoard forget the older files, which stay for one that is
    reading them.
    """

    def __init__(self, folder: Path, rows: Iterable[MetricRow]) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
            start = SessionLog(status=SessionLog.START)
            self._write(
                Event(wall_time=time.time(), file_version="brain.Event:2"),
                Event(wall_time=time.time(), step=0, session_log=start),
                *map(_event, rows),
            )

    def append(self, row: MetricRow) -> None:
        """Adds one scalar per metric. Raises InputError on a full disk."""
        with writing(self._path):
            self._write(_event(row))

    def _write(self, *events: Event) -> None:
        with self._path.open("ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())


def _event(row: MetricRow) -> Event:
    values = [Summary.Value(tag=key, simple_value=value) for key, value in row.values.items()]
    return Event(wall_time=row.unix_s, step=row.step, summary=Summary(value=values))
