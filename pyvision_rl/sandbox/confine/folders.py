"""Plain scratch folders, where no tmpfs bounds them: how much they hold, and removing them.

A cell may have made them as deep as it liked, or so that they cannot be listed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def holds_more(folder: Path, num_bytes: int, num_files: int) -> bool:
    """Whether a folder holds more, or hides what it holds from this process.

    Files without a name, open or mapped, are not seen.
    """
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                # Entry by entry: a folder that a cell fills while it is listed may have no end.
                for entry in entries:
                    num_files -= 1
                    with contextlib.suppress(FileNotFoundError):
                        num_bytes -= entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    if num_bytes < 0 or num_files < 0:
                        return True
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ENAMETOOLONG):
                return True
    return False


def remove(folder: Path) -> None:
    """Remove a folder that no process uses any more; what cannot be removed is left.

    Folders in it are moved up before they are emptied: no path gets long, and nothing recurses.
    """
    with contextlib.suppress(OSError):
        gone = Path(tempfile.mkdtemp(prefix="gone-", dir=folder.parent))
        names = map(str, itertools.count())
        folder.rename(gone / next(names))
        while left := os.listdir(gone):
            for name in left:
                _empty(gone / name, gone, names)
                (gone / name).rmdir()
        gone.rmdir()


def _empty(folder: Path, outside: Path, names: Iterator[str]) -> None:
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)  # else its own user may not move it
                os.rename(entry.path, outside / next(names))
            else:
                os.unlink(entry.path)
