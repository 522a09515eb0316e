"""Data files as rows: json, jsonl and Parquet in, json out, each row knowing where it stands.

What the fields of a row mean is for the readers to say.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow
import pyarrow.parquet

from pyvision_rl.errors import InputError

FORMATS = (".json", ".jsonl", ".parquet")
PLACEHOLDER = re.compile(r"<(image|video)>")
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that a terminal acts on, or that cannot be printed at all."""
SHOWN_CHARS = 200
BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one row: printed as a line that names file, row, field and value.

    `row` is the 0-based index in the file (None: the file as a whole); `line` is set for jsonl.
    """

    file: Path
    row: int | None
    line: int | None
    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        parts = [str(self.file)]
        if self.row is not None:
            parts.append(f"row {self.row}" + (f" (line {self.line})" if self.line else ""))
        parts.append(" = ".join(part for part in (self.field, self.value) if part))
        line = ": ".join(part for part in (*parts, self.reason) if part)
        # A path may hold anything, and a problem is one line.
        return CONTROL.sub(lambda found: repr(found[0])[1:-1], line)


@dataclass
class Row:
    """One row while it is read: its fields, and the problems found in them so far.

    The getters never raise: they note a problem and return an empty value, so that a validator
    sees every problem of a row and not only the first.
    """

    file: Path
    index: int
    line: int | None
    fields: Mapping[str, object]
    problems: list[Problem] = field(default_factory=list)

    def fail(self, name: str, value: object, reason: str) -> None:
        """Note that the field `name` holds a `value` that cannot be used, and why."""
        self.problems.append(Problem(self.file, self.index, self.line, name, shown(value), reason))

    def text(self, name: str, default: str | None = None) -> str:
        """A text field, not blank; numbers are taken as text. A field with `default` may lack."""
        if name not in self.fields:
            if default is None:
                found = ", ".join(sorted(self.fields)) or "none"
                self.problems.append(
                    Problem(
                        self.file, self.index, self.line, name, "", f"missing; fields are {found}"
                    )
                )
            return default or ""
        value = self.fields[name]
        if default is not None and value is None:
            return default
        return as_text(self, name, value, blank=default is not None)

    def section(self, name: str) -> Mapping[str, object]:
        """A field that holds an object; empty where it is missing."""
        value = self.fields.get(name)
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return value
        self.fail(name, value, "must be an object")
        return {}

    def raise_first(self) -> None:
        """Raise the first problem as an InputError, if there is any."""
        if self.problems:
            raise InputError(str(self.problems[0]))


class _Shown(reprlib.Repr):
    """Shortens before it formats: a value may be an image of megabytes."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHOWN_CHARS

    def repr_bytes(self, value: bytes, level: int) -> str:
        return f"<{len(value)} bytes>"


_shown = _Shown()


def shown(value: object) -> str:
    """A value as an error message shows it: quoted, on one line, shortened."""
    text = _shown.repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


def as_text(row: Row, name: str, value: object, blank: bool = False) -> str:
    """The value as stripped text; notes a problem on `row` for other types and for blank text."""
    is_number = isinstance(value, float) and math.isfinite(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, str) or is_number or is_whole):
        # NaN is what table programs write for an empty cell.
        row.fail(name, value, "must be text or a number")
        return ""
    text = str(value).strip()
    if not text and not blank:
        row.fail(name, value, "must not be empty")
    check_unicode(row, name, text)
    return text


def check_unicode(row: Row, name: str, text: str) -> None:
    """Note a problem on `row` where a text cannot be encoded."""
    if not text.isascii() and LONE_SURROGATE.search(text):
        row.fail(name, text, "is not Unicode text: it holds half of a character")


def iter_rows(path: str | Path, limit: int | None = None) -> Iterator[Row]:
    """The rows of a .json (a list of objects), .jsonl or .parquet file, in order.

    jsonl and Parquet are read as a stream; a line that is not json gives a row with that problem.
    Raises InputError where the file as a whole cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file ({', '.join(FORMATS)})")
    if file.suffix not in FORMATS:
        raise InputError(f"{file}: unknown format {file.suffix!r}; use {', '.join(FORMATS)}")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    values = {".json": _json_values, ".jsonl": _jsonl_values, ".parquet": _parquet_values}
    for index, (line, value) in enumerate(islice(values[file.suffix](file), limit)):
        row = Row(file, index, line, value if isinstance(value, Mapping) else {})
        if isinstance(value, Malformed):
            row.problems.append(Problem(file, index, line, "", "", value.reason))
        elif not isinstance(value, Mapping):
            row.fail("", value, "a row must be an object")
        yield row


@dataclass(frozen=True)
class Malformed:
    """Text that is not json, and why."""

    reason: str


def _decode(data: bytes) -> object:
    """The json value of a text, or `Malformed`."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The standard library is slower, but it says where in the text the mistake is.
        return _decode_slowly(data)


def _decode_slowly(data: bytes) -> object:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        lines = f"line {error.lineno}, " if b"\n" in data.strip() else ""
        hint = "; one object a line? Name it .jsonl" if error.msg == "Extra data" and lines else ""
        return Malformed(f"{lines}column {error.colno}: not json ({error.msg}){hint}")
    except UnicodeDecodeError as error:
        return Malformed(f"byte {error.start}: not UTF-8 text")
    except ValueError as error:
        return Malformed(f"not json ({error})")
    except RecursionError:
        return Malformed("nested too deeply to read")


def _json_values(file: Path) -> Iterator[tuple[None, object]]:
    rows = _decode(_read(file))
    if isinstance(rows, Malformed):
        raise InputError(f"{file}: {rows.reason}")
    if not isinstance(rows, list):
        raise InputError(f"{file}: must hold a list of objects, not {type(rows).__name__}")
    for value in rows:
        yield None, value


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error


def _jsonl_values(file: Path) -> Iterator[tuple[int, object]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _decode(line.rstrip(b"\r\n"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error


def _parquet_values(file: Path) -> Iterator[tuple[None, object]]:
    try:
        # Without read-ahead a row group is not in memory as a whole.
        with pyarrow.parquet.ParquetFile(file, buffer_size=2**16, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=_batch_size(table)):
                for value in batch.to_pylist():
                    yield None, {name: held for name, held in value.items() if held is not None}
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: not a readable Parquet file ({reason})") from error


def _batch_size(table: pyarrow.parquet.ParquetFile) -> int:
    """Rows to hold at once: few where a row is large, as one with an image in it."""
    groups = [table.metadata.row_group(at) for at in range(table.metadata.num_row_groups)]
    row_bytes = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)
    return max(1, min(1024, BATCH_BYTES // max(row_bytes, 1)))


def write_rows(path: str | Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as a json list, one a line, all or nothing: a crash leaves the old file."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            separator = b"[\n"
            for row in rows:
                out.write(separator + json.dumps(row, ensure_ascii=False).encode())
                separator = b",\n"
            out.write(b"[]\n" if separator == b"[\n" else b"\n]\n")
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
