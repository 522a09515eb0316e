"""Configurations as the YAML that a run keeps: complete, and itself loadable."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pyvision_rl.errors import InputError
from pyvision_rl.runs.checkpoints import list_checkpoints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


CHECKPOINTS = "checkpoints"


def resolve_model(model: str) -> str:
    """A run folder stands for its newest checkpoint; anything else is returned as it is."""
    folder = Path(model) / CHECKPOINTS
    if not model or not folder.is_dir():
        return model
    found = list_checkpoints(folder)
    if not found:
        raise InputError(f"model {model}: a run without a finished checkpoint")
    return str(found[-1].path)


def dump_config(config: DataclassInstance) -> str:
    """A tree of dataclasses as YAML, every value written out."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
