"""The files that users download, as rows: TSV, json (a list or an object of rows), jsonl, Parquet,
or a folder of them.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet

from pyvision_rl.data.rows import Row, iter_rows
from pyvision_rl.errors import InputError

SUFFIXES = (".tsv", ".parquet", ".jsonl", ".json")
MAX_CELL_CHARS = 2**30
REST = "\t"
"""Name of what a row has beyond its columns: none of theirs, which are parted by it."""
PARQUET_ROWS = 8
"""Rows in memory at once: an 8K image in a row is several megabytes."""


def iter_table(path: Path, split: str = "", limit: int = 0) -> Iterator[Row]:
    """The rows of a file, or of all files of a folder that belong to the split.

    Empty cells are left out of a row's fields. Rows of an object of objects get its key as `key`.
    Raises InputError where a file cannot be read or there is no such split.
    """
    rows = (row for file in table_files(path, split) for row in _rows(file))
    for row in islice(rows, limit or None):
        row.raise_first()
        yield row


def table_files(path: Path, split: str = "") -> list[Path]:
    """The table files of a download; raises InputError that lists what is there."""
    if path.is_file():
        if split and split != split_name(path):
            raise InputError(
                f"{path}: is of split {split_name(path)!r}, not {split!r}; a file needs no split"
            )
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    for suffix in SUFFIXES:
        files = sorted([*path.glob(f"*{suffix}"), *path.glob(f"data/*{suffix}")])
        if files:
            break
    else:
        raise InputError(f"{path}: holds no table; need one of {', '.join(SUFFIXES)}")
    chosen = [file for file in files if not split or split_name(file) == split]
    if not chosen:
        found = ", ".join(sorted({split_name(file) for file in files}))
        raise InputError(f"{path}: has no split {split!r}; there are {found}")
    return chosen


def split_name(file: Path) -> str:
    """Name of a file's split: `test-00000-of-00001.parquet` is of `test`."""
    head, mark, _ = file.stem.rpartition("-of-")
    return head.rpartition("-")[0] if mark else file.stem


def _rows(file: Path) -> Iterator[Row]:
    readers = {".tsv": _tsv, ".parquet": _parquet, ".json": _json, ".jsonl": iter_rows}
    if file.suffix not in readers:
        raise InputError(f"{file}: unknown format {file.suffix!r}; use {', '.join(readers)}")
    return readers[file.suffix](file)


def _tsv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARS)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines, delimiter="\t", restkey=REST)
            for index, cells in enumerate(table):
                rest = cells.pop(REST, [])
                fields = {name: cell for name, cell in cells.items() if name and cell}
                row = Row(file, index, table.line_num, fields)
                if any(rest):
                    row.fail("", rest, "more cells than columns, so that none is surely its own")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a readable table ({error})") from error


def _parquet(file: Path) -> Iterator[Row]:
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            batches = table.iter_batches(batch_size=PARQUET_ROWS)
            for index, value in enumerate(v for batch in batches for v in batch.to_pylist()):
                fields = {name: held for name, held in value.items() if held is not None}
                yield Row(file, index, None, fields)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: not a readable Parquet file ({reason})") from error


def _json(file: Path) -> Iterator[Row]:
    """A list of rows, or an object of them by key."""
    try:
        with file.open("rb") as stream:
            is_object = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        if not is_object:
            yield from iter_rows(file)
            return
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    for index, (key, value) in enumerate(json_object(file).items()):
        row = Row(file, index, None, {"key": key})
        if isinstance(value, Mapping):
            row.fields = {"key": key, **value}
        else:
            row.fail("", value, "a row must be an object")
        yield row


def json_object(file: Path) -> Mapping[str, object]:
    """The object that a json file holds; raises InputError for any other content."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not readable as json ({error})") from error
    if not isinstance(value, Mapping):
        raise InputError(f"{file}: must hold an object, not {type(value).__name__}")
    return value


def plain_columns(row: Row) -> dict[str, str]:
    """What a row says, as text, its images left out."""
    held = {name: value for name, value in row.fields.items() if "image" not in name}
    texts = {name: str(v) for name, v in held.items() if isinstance(v, str | int | float)}
    return texts | {name: str(v) for name, v in held.items() if isinstance(v, list)}


def text_list(row: Row, name: str) -> tuple[str, ...]:
    """A field that is a list of texts, or one written as a Python list; empty where it lacks."""
    value = row.fields.get(name)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            row.fail(name, value, "must be a list of texts")
    if value is None:
        return ()
    if not isinstance(value, list):
        row.fail(name, value, "must be a list of texts")
        return ()
    return tuple(str(entry) for entry in value)
