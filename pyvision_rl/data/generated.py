"""Data sets made from a configuration: a folder appears whole or not at all, and one that holds
anything else is never written to.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pyvision_rl.errors import InputError

log = logging.getLogger(__name__)


def write_once(
    folder: Path,
    name: str,
    plans_file: str,
    config: Mapping[str, object],
    write: Callable[[Path], None],
) -> None:
    """Let `write` fill a fresh folder, then give it its name.

    `write` leaves `config` in `plans_file`. A folder that already holds this very set is left as it
    is; any other content raises InputError. `name` is what messages call the set.
    """
    if is_written(folder, name, plans_file, config):
        log.info("%s: %s is there already", name, folder)
        return
    fill_folder(folder, write)


def fill_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a fresh folder, then give it its name; an empty folder may have that.

    On an error nothing is left. Raises InputError where the disk is full or takes no file.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write(partial)
            partial.chmod(0o755)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error


def is_written(folder: Path, name: str, plans_file: str, config: Mapping[str, object]) -> bool:
    """Whether a folder holds this very set. InputError where it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / plans_file).read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: holds something else than a {name} data set") from error
    wanted = json.loads(json.dumps(config))
    if found != wanted:
        raise InputError(f"{folder}: holds another {name} data set ({found}, not {wanted})")
    return True


def write_json(path: Path, content: object) -> None:
    """Indented, with a last newline."""
    path.write_text(json.dumps(content, indent=1) + "\n")
