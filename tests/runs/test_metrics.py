"""metrics.jsonl survives kills in the middle of a line, and so does what TensorBoard reads."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunFolder, RunReader
from pyvision_rl.runs.metrics import MetricLog, read_metrics

ROW = b'{"step":%d,"unix_s":1.5,"reward/accuracy":0.5}\n'


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.append(0, {"reward/accuracy": 0.25, "loss/entropy": math.nan, "loss/ratio": math.inf})
    log.append(3, {})
    first, second = (tmp_path / "metrics.jsonl").read_text().splitlines()
    line = json.loads(first)
    assert line.pop("unix_s") > 1.7e9
    assert line == {"step": 0, "reward/accuracy": 0.25, "loss/entropy": None, "loss/ratio": None}
    assert json.loads(second)["step"] == 3


def test_rows_come_back(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl")
    written = log.append(7, {"a/b": 1 / 3, "a/c": math.nan})
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (row.step, row.unix_s, row.values["a/b"]) == (7, written.unix_s, 1 / 3)
    assert math.isnan(row.values["a/c"])


def test_no_file_yet(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("length", [1, 5, 30, len(ROW % 2) - 1])
def test_a_line_torn_anywhere_is_repaired(tmp_path: Path, length: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ROW % 1 + (ROW % 2)[:length])
    assert [row.step for row in read_metrics(path)] == [1]
    MetricLog(path).append(2, {"a/b": 1.0})
    assert [row.step for row in read_metrics(path)] == [1, 2]
    assert path.read_bytes().startswith(ROW % 1)


def test_a_line_is_written_to_its_end(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    log.append(1, {"a/b": 1.0})
    (row,) = read_metrics(path)
    assert row.values == {"a/b": 1.0}


def test_a_line_that_a_full_disk_cuts_is_none(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ROW % 1)
    log = MetricLog(path)
    write, room = os.write, [5, 0]

    def cut(file: int, data: bytes) -> int:
        if not (size := room.pop(0)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:size])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", cut)
        with pytest.raises(InputError, match=r"metrics.jsonl: cannot be written: No space left"):
            log.append(2, {"a/b": 1.0})
    assert path.read_bytes() == ROW % 1
    log.append(2, {"a/b": 2.0})
    assert [row.step for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("step", [2, 1, 0])
def test_steps_rise(tmp_path: Path, step: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ROW % 2)
    with pytest.raises(InputError, match=f"step {step} cannot follow step 2"):
        MetricLog(path).append(step, {})
    assert path.read_bytes() == ROW % 2


@pytest.mark.parametrize(
    "line", [b"{}", b"[1]", b'{"step":1,"unix_s":null}', b'{"step":1,"a/b":"x"}', b"\xff\xfe"]
)
def test_a_spoilt_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ROW % 1 + line + b"\n" + ROW % 3)
    with pytest.raises(InputError, match=r"metrics.jsonl:2: ") as caught:
        read_metrics(path)
    assert "\n" not in str(caught.value)


def test_lines_past_a_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(ROW % step for step in (1, 2, 5, 6)))
    log = MetricLog(path)
    log.drop_after(4)
    assert path.read_bytes() == ROW % 1 + ROW % 2
    log.append(5, {})
    assert [row.step for row in read_metrics(path)] == [1, 2, 5]


def scalars(folder: Path, key: str) -> list[tuple[int, float]]:
    """What TensorBoard itself reads."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


def test_tensorboard_reads_the_same(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "seed: 0") as run:
        run.log(1, {"reward/accuracy": 0.5, "loss/entropy": 2.0})
        run.log(2, {"reward/accuracy": 0.75})
        assert scalars(run.path, "reward/accuracy") == [(1, 0.5), (2, 0.75)]
        assert scalars(run.path, "loss/entropy") == [(1, 2.0)]


def test_tensorboard_forgets_what_a_resumed_run_takes_back(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, "seed: 0") as run:
        run.log(1, {"a/b": 1.0})
        run.checkpoints.save(1, lambda folder: None, {})
        run.log(2, {"a/b": 99.0})
    watching = EventAccumulator(str(path / "tensorboard"))
    watching.Reload()
    with RunFolder.create(path, "seed: 0", resume=True) as run:
        run.rewind()
        run.log(2, {"a/b": 2.0})
    watching.Reload()
    assert [(event.step, event.value) for event in watching.Scalars("a/b")] == [(1, 1.0), (2, 2.0)]
    assert scalars(path, "a/b") == [(1, 1.0), (2, 2.0)]
    assert [row.values for row in RunReader(path).metrics()] == [{"a/b": 1.0}, {"a/b": 2.0}]
