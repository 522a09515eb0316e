"""What a run trains on: one task file, or several that a YAML file mixes by weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyvision_rl.data.readers import usable_tasks
from pyvision_rl.data.spool import TaskSpool
from pyvision_rl.data.stream import TaskSet
from pyvision_rl.errors import InputError

MIXTURE_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Part:
    """A task file of a mixture; of what is drawn, weight / sum of weights is its."""

    path: Path
    image_root: Path | None
    weight: float


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    data: str
    weight: float = 1.0
    image_root: str = ""


def open_task_sets(data: str | Path, image_root: str | Path | None = None) -> list[TaskSet]:
    """The tasks of a file or of a mixture, checked row by row and kept out of memory.

    A mixture is a YAML list of `{data, weight, image_root}`, paths being relative to its folder.
    Raises InputError that names file, row, field and value at the first row that is not usable.
    """
    if Path(data).suffix not in MIXTURE_SUFFIXES:
        return [TaskSet(TaskSpool(usable_tasks(data, image_root)))]
    return [
        TaskSet(TaskSpool(usable_tasks(part.path, part.image_root)), part.weight)
        for part in read_mixture(data)
    ]


def read_mixture(file: str | Path) -> list[Part]:
    """The parts of a mixture. Raises InputError for a file that is none."""
    folder = Path(file).parent
    try:
        entries = msgspec.yaml.decode(Path(file).read_bytes(), type=list[_Entry])
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a mixture ({' '.join(str(error).split())})") from error
    if not entries:
        raise InputError(f"{file}: not a mixture (lists no data)")
    for entry in entries:
        if not 0 < entry.weight < float("inf"):
            raise InputError(f"{file}: weight {entry.weight} of {entry.data}; must be above 0")
    return [
        Part(
            folder / entry.data,
            folder / entry.image_root if entry.image_root else None,
            entry.weight,
        )
        for entry in entries
    ]
