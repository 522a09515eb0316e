"""Metrics to wandb or trackio as well, by one line of configuration; neither is a dependency."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

import yaml

from pyvision_rl.errors import ConfigError

Track = Literal["none", "wandb", "trackio"]

PROJECT = "pyvision-rl"


class Tracker(Protocol):
    """Where a run's metrics go besides its folder."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Send the metrics of a step."""
        ...

    def finish(self) -> None:
        """Send what is left."""
        ...


def open_tracker(track: Track, folder: Path, config_yaml: str) -> Tracker | None:
    """The service's own run, named after the folder; one that is resumed goes on.

    The service's own environment variables apply (WANDB_MODE, TRACKIO_SPACE_ID, ...). Raises
    ConfigError where its package is not installed.
    """
    if track == "none":
        return None
    try:
        service = import_module(track)
    except ImportError:
        raise ConfigError(f"track: {track} is not installed: pip install {track}") from None
    options: Mapping[str, object] = {}
    if track == "wandb":
        digest = hashlib.sha1(str(folder.resolve()).encode()).hexdigest()
        options = {"id": digest[:16], "dir": str(folder)}
    return service.init(
        project=PROJECT,
        name=folder.name,
        config=yaml.safe_load(config_yaml),
        resume="allow",
        **options,
    )
