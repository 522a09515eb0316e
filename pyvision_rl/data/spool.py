"""Tasks kept in a temporary file instead of in memory, for sets that do not fit there."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import msgspec

from pyvision_rl.types import Task

MEMORY_BYTES = 2**24
"""Up to this size the file itself stays in memory."""

_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_decoder = msgspec.msgpack.Decoder(Task, dec_hook=lambda kind, value: Path(value))


class TaskSpool(Sequence[Task]):
    """A sequence of tasks that takes 8 bytes of memory a task; any of them is read in microseconds.

    The file has no name, so that it is gone with the process, however that ends. Not for several
    threads at once.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115
        self._ends = array("Q", [0])
        for task in tasks:
            self._ends.append(self._ends[-1] + self._file.write(_encoder.encode(task)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...

    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        places = range(len(self))[index]
        return self._read(places) if isinstance(places, int) else [self._read(at) for at in places]

    def _read(self, place: int) -> Task:
        start, end = self._ends[place], self._ends[place + 1]
        self._file.seek(start)
        return _decoder.decode(self._file.read(end - start))
