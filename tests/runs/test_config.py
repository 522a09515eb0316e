"""Configurations as a run keeps them, and runs in the place of models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from pyvision_rl.errors import InputError
from pyvision_rl.runs import CheckpointConfig, Checkpoints
from pyvision_rl.runs.config import dump_config, resolve_model


@dataclass(frozen=True)
class Leaf:
    limits: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Tree:
    name: str = "a: b"
    rate: float = 1e-6
    leaf: Leaf = field(default_factory=Leaf)


def test_a_dump_holds_every_value_in_its_order() -> None:
    loaded = yaml.safe_load(dump_config(Tree()))
    assert loaded == {"name": "a: b", "rate": 1e-6, "leaf": {"limits": [1, 2]}}
    assert list(loaded) == ["name", "rate", "leaf"]


def test_a_run_stands_for_its_newest_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder, CheckpointConfig(keep_last=3))
    for step, accuracy in ((9, 0.9), (10, 0.1)):
        checkpoints.save(step, lambda folder: None, {"eval/accuracy": accuracy})
    assert resolve_model(str(tmp_path / "run")) == str(folder / "step-0000010")


def test_other_models_are_left_as_they_are(tmp_path: Path) -> None:
    for name in ("", "tiny", "owner/name", str(tmp_path)):
        assert resolve_model(name) == name


def test_a_run_without_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"^model \S+: a run without a finished checkpoint$"):
        resolve_model(str(tmp_path))
