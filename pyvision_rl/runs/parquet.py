"""Parquet in and out for the records: versioned, and readable in part."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pyvision_rl.errors import InputError

SCHEMA_VERSION = "1"
_VERSION_KEY = b"pyvision_rl.schema"


@dataclass(frozen=True)
class Layout:
    """How a table lies on disk. Statistics and the Arrow schema are left out: they cost more to
    read than the small tables themselves.
    """

    schema: pa.Schema
    compression: str = "none"
    rows_per_group: int = 65536
    dictionary: tuple[str, ...] | bool = True
    split_bytes: tuple[str, ...] = ()
    """Doubles that hold float32 values: split into byte streams, their zeros cost nothing."""

    def write(self, file: BinaryIO, rows: Sequence[dict[str, object]]) -> None:
        """The rows as one Parquet file, a row group at a time: no more of them is there twice."""
        dictionary = self.dictionary if isinstance(self.dictionary, bool) else list(self.dictionary)
        with pq.ParquetWriter(
            file,
            self.schema,
            compression=self.compression,
            use_dictionary=dictionary,
            use_byte_stream_split=list(self.split_bytes),
            write_statistics=False,
            store_schema=False,
        ) as writer:
            for start in range(0, len(rows), self.rows_per_group):
                part = list(rows[start : start + self.rows_per_group])
                writer.write_table(pa.Table.from_pylist(part, schema=self.schema))
            writer.add_key_value_metadata({_VERSION_KEY: SCHEMA_VERSION.encode()})


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Some or all columns. Raises InputError where the file is missing, broken or of a later
    schema.
    """
    try:
        return _open(path).read(list(columns) if columns is not None else None, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_rows(path: Path, key: str, wanted: Collection[object]) -> pa.Table:
    """The rows whose `key` is wanted; only the row groups that hold one are read."""
    try:
        file = _open(path)
        keys = file.read([key], use_threads=False).column(0)
        is_wanted = pc.is_in(keys, value_set=pa.array(list(wanted), type=keys.type))
        needed = [
            number
            for number, (start, end) in enumerate(_row_groups(file))
            if pc.any(is_wanted.slice(start, end - start)).as_py()
        ]
        return keep_rows(file.read_row_groups(needed, use_threads=False), key, wanted)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def keep_rows(table: pa.Table, key: str, wanted: Collection[object]) -> pa.Table:
    """The rows whose `key` is wanted."""
    values = pa.array(list(wanted), type=table.schema.field(key).type)
    return table.filter(pc.is_in(table.column(key), value_set=values))


def _row_groups(file: pq.ParquetFile) -> Iterator[tuple[int, int]]:
    """First row and end of each row group."""
    end = 0
    for number in range(file.num_row_groups):
        start, end = end, end + file.metadata.row_group(number).num_rows
        yield start, end


def _open(path: Path) -> pq.ParquetFile:
    file = pq.ParquetFile(path)
    version = (file.metadata.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: record schema {version}; this version reads {SCHEMA_VERSION}")
    return file


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such records")
    return InputError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}")
