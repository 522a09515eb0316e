"""Writing so that a reader, a full disk or a kill never meets half a file.

Everything is written under a temporary name beside its place and renamed when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyvision_rl.errors import InputError

_TEMPORARY = ".tmp-"


def temporary(path: Path) -> Path:
    """The name beside `path` under which it is prepared; readers look past it."""
    return path.with_name(_TEMPORARY + path.name)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError into one line that names the file; a full disk is the usual one."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Replaces `path` in one move; on an error the old file stands and nothing is left beside it.

    Raises InputError.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` when it is complete, as `write_file` does.

    Raises InputError.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = temporary(path)
        try:
            with draft.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed writer left unfinished, in `folder` and below."""
    for path in list(folder.rglob(f"{_TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
