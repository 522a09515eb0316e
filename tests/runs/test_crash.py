"""Kill -9 at random moments and a full disk: what is on disk stays readable and whole."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunFolder, RunReader
from tests.runs import writer
from tests.runs.examples import records

ROOT = Path(__file__).parents[2]
NUM_STEPS = 45


def check_readable(reader: RunReader) -> None:
    """What a viewer would read while the writer lives."""
    rows = reader.metrics()
    assert [row.step for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.values == writer.metrics(row.step) for row in rows)
    recorded = [step for _, step in reader.recorded_steps()]
    assert recorded == list(range(1, len(recorded) + 1))
    assert reader.trajectories().num_rows >= 6 * len(recorded)
    for step in recorded[-2:]:
        assert reader.groups(step, "train") == records(step)
    summary = reader.summary()
    assert summary is None or summary["text"] == "x" * int(str(summary["step"]))


def check_checkpoints(reader: RunReader) -> None:
    for checkpoint in reader.checkpoints():
        for name, data in writer.state(checkpoint.step).items():
            assert (checkpoint.path / name).read_bytes() == data


def test_killed_at_random_moments_it_ends_like_an_uninterrupted_run(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.runs.writer", str(folder), str(NUM_STEPS)]
    moments = random.Random(0)
    for _ in range(5):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            reader = RunReader(folder)
            moment = time.monotonic() + moments.uniform(0.02, 0.2)
            while time.monotonic() < moment:
                check_readable(reader)
            process.kill()
        check_readable(reader)
        check_checkpoints(reader)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    straight = tmp_path / "straight"
    writer.write(straight, NUM_STEPS)

    def ends(reader: RunReader) -> object:
        rows = [(row.step, row.values) for row in reader.metrics()]
        saved = [(found.step, found.metrics) for found in reader.checkpoints()]
        return rows, saved, reader.recorded_steps(), reader.summary()

    assert ends(RunReader(folder)) == ends(RunReader(straight))
    check_readable(RunReader(folder))
    check_checkpoints(RunReader(folder))
    assert not list(folder.rglob(".tmp-*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this container may not mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_on_a_full_disk_nothing_is_lost_and_the_run_can_go_on(small_disk: Path) -> None:
    folder = small_disk / "run"
    with RunFolder.create(folder, "seed: 0\n") as run:
        run.log(1, writer.metrics(1))
        run.write_groups(1, "train", records(1))
        run.write_summary({"step": 1, "text": "x"})
        run.checkpoints.save(1, lambda at: writer.write_state(at, 1), {})
        before = contents(folder)
        filler = fill(small_disk)
        many = {f"room/a_long_name_{place}": 0.1 for place in range(500)}
        attempts = (
            lambda: run.log(2, many),
            lambda: run.write_groups(2, "train", records(2)),
            lambda: run.write_summary({"text": "y" * 9000}),
            lambda: run.checkpoints.save(2, lambda at: writer.write_state(at, 2), {}),
        )
        for attempt in attempts:
            with pytest.raises(InputError, match=r"cannot be written: No space left") as caught:
                attempt()
            assert str(caught.value).startswith(str(folder))
            assert contents(folder) == before
        check_readable(RunReader(folder))
        check_checkpoints(RunReader(folder))
        filler.unlink()
        run.log(2, writer.metrics(2))
        run.write_groups(2, "train", records(2))
        run.checkpoints.save(2, lambda at: writer.write_state(at, 2), {})
    check_readable(RunReader(folder))
    check_checkpoints(RunReader(folder))
    assert [checkpoint.step for checkpoint in RunReader(folder).checkpoints()] == [1, 2]


@pytest.mark.parametrize("limit", [3_000, 9_000, 20_000, 120_000])
def test_a_file_size_limit_leaves_a_readable_run(tmp_path: Path, limit: int) -> None:
    """The limit is met in the metrics, a record or a checkpoint, whichever outgrows it first."""
    folder = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match="cannot be written: File too large"):
            writer.write(folder, NUM_STEPS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_readable(RunReader(folder))
    check_checkpoints(RunReader(folder))
    assert not list(folder.rglob(".tmp-*"))
    writer.write(folder, 6)
    assert [row.step for row in RunReader(folder).metrics()] == [1, 2, 3, 4, 5, 6]
