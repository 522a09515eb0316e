"""Whether a stage could write where it is told to, without writing there."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pyvision_rl.errors import InputError
from pyvision_rl.preflight.machine import GB, free_disk
from pyvision_rl.runs.config import dump_config
from pyvision_rl.runs.folder import holds_run, is_locked

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_run_folder(
    out: str, config: DataclassInstance, *, resume: bool, may_change: Collection[str] = ()
) -> str:
    """One line about the run folder of a stage: new, or one to go on with.

    Raises InputError where the stage would refuse it.
    """
    line = check_out(out)
    path = Path(out)
    if path.exists() and is_locked(path):
        raise InputError(f"{path}: is being written by another process")
    if holds_run(path, dump_config(config), resume=resume, may_change=may_change):
        return f"{line}, goes on with the run that is there"
    return f"{line}, a new run"


def check_out(out: str) -> str:
    """One line about a folder to be written, which may lack so far. Raises InputError."""
    path = Path(out)
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{path}: cannot be written: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written: no permission for {there}")
    return f"out: {path}, {free_disk(path.absolute()) / GB:.1f} GB free"
