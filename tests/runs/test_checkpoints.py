"""Checkpoints are whole or absent; the newest and the best stay."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.runs.checkpoints import CheckpointConfig, Checkpoints


def writes(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "state" / "weights").write_text(text)

    return write


def saved(folder: Path, accuracies: list[float | None], keep_last: int = 2) -> Checkpoints:
    """One checkpoint a step, from 1."""
    checkpoints = Checkpoints(folder, CheckpointConfig(keep_last, "eval/accuracy"))
    for step, accuracy in enumerate(accuracies, 1):
        metrics = {} if accuracy is None else {"eval/accuracy": accuracy}
        checkpoints.save(step, writes(f"step {step}"), metrics)
    return checkpoints


def test_content_step_and_metrics_come_back(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "checkpoints", [0.5])
    found = checkpoints.latest()
    assert found is not None
    assert (found.step, found.metrics) == (1, {"eval/accuracy": 0.5})
    assert found.path == tmp_path / "checkpoints" / "step-0000001"
    assert (found.path / "state" / "weights").read_text() == "step 1"


def test_none_before_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig())
    assert (checkpoints.latest(), checkpoints.best(), checkpoints.all()) == (None, None, [])


@pytest.mark.parametrize(
    ("accuracies", "keep_last", "kept"),
    [
        ([0.1, 0.9, 0.3, 0.4, 0.5], 2, [2, 4, 5]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 2, [4, 5]),
        ([0.7, 0.7, 0.7], 1, [1, 3]),  # the earliest among equals
        ([None, 0.2, None, None], 1, [2, 4]),
        ([None, None, None], 2, [2, 3]),
        ([math.nan, 0.1, math.nan], 1, [2, 3]),
    ],
)
def test_the_last_and_the_best_stay(tmp_path: Path, accuracies, keep_last, kept) -> None:
    checkpoints = saved(tmp_path / "checkpoints", accuracies, keep_last)
    assert [checkpoint.step for checkpoint in checkpoints.all()] == kept
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        f"step-{step:07d}" for step in kept
    ]


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "checkpoints", [0.1, 0.2])
    checkpoints.save(2, writes("again"), {})
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.path / "state" / "weights").read_text() == "again"
    assert [checkpoint.step for checkpoint in checkpoints.all()] == [1, 2]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    checkpoints = saved(tmp_path / "checkpoints", [0.1, 0.2])

    def fails(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise error

    with pytest.raises(error):
        checkpoints.save(2, fails, {})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-0000001",
        "step-0000002",
    ]
    assert (tmp_path / "checkpoints/step-0000002/state/weights").read_text() == "step 2"


def test_what_a_killed_writer_left_is_no_part_of_the_next_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, [None])
    # half a draft of step 2, and of a first checkpoint that was being removed
    draft, doomed = tmp_path / ".tmp-step-0000002", tmp_path / ".tmp-old-step-0000001"
    for left in (draft, doomed):
        left.mkdir()
        (left / "half").write_text("old")
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(keep_last=1))
    checkpoints.save(2, writes("step 2"), {})
    assert [checkpoint.step for checkpoint in checkpoints.all()] == [2]
    assert not doomed.exists()
    kept = sorted(path.name for path in (tmp_path / "step-0000002").iterdir())
    assert kept == ["checkpoint.json", "state"]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noting(file: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        sync(file)

    monkeypatch.setattr(os, "fsync", noting)
    saved(tmp_path / "checkpoints", [0.1])
    draft = ".tmp-step-0000001"
    assert {"weights", "state", "checkpoint.json", draft} <= set(synced)
    # the rename last: the folder that holds the name
    assert synced.index("checkpoints") > max(map(synced.index, ("weights", "checkpoint.json")))


def test_a_checkpoint_that_goes_while_it_is_read_is_none(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, [0.1])
    # listed and not there any more: what a reader sees of one that the writer removes
    (tmp_path / "step-0000002").symlink_to(tmp_path / "gone")
    assert [checkpoint.step for checkpoint in checkpoints.all()] == [1]


def test_a_checkpoint_without_its_note_is_named(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "checkpoints", [0.1])
    (tmp_path / "checkpoints/step-0000001/checkpoint.json").write_text("{")
    with pytest.raises(InputError, match=r"step-0000001/checkpoint.json: not the note"):
        checkpoints.latest()


def test_at_least_one_is_kept() -> None:
    with pytest.raises(ConfigError, match="keep_last must be at least 1, not 0"):
        CheckpointConfig(keep_last=0)
