"""Images inside tables: base64 text, bytes, references to other rows, paths; all become files."""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from pyvision_rl.data.media import BROKEN_FILE
from pyvision_rl.data.rows import Row
from pyvision_rl.runs.files import write_file, writing

MAX_REFERENCE_CHARS = 64
"""A shorter `image` of a VLMEvalKit table is the index of the row that has the image."""


@dataclass(frozen=True)
class ImageCache:
    """Files of images that were embedded in tables, named by their content: each is there once."""

    folder: Path

    def store(self, data: bytes) -> Path | None:
        """The file of an encoded image; None where it is not one, or not a whole one.

        Raises InputError where the file cannot be written.
        """
        try:
            with Image.open(io.BytesIO(data)) as image:
                suffix = (image.format or "img").lower()
                path = self.folder / f"{hashlib.sha256(data).hexdigest()[:32]}.{suffix}"
                if os.path.isfile(path):
                    return path
                # Its end may lack: said here, where the row is known, not in the midst of a run.
                image.load()
        except BROKEN_FILE:
            return None
        # Of several runs that begin at once each writes a file of its own first.
        draft = path.with_name(f".{os.getpid()}-{path.name}")
        write_file(draft, data)
        with writing(path):
            draft.replace(path)
        return path


@dataclass
class ImageCells:
    """Reads the image cells of one table, row by row; remembers which index had which image."""

    cache: ImageCache
    root: Path
    by_index: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    def read(self, row: Row, name: str) -> tuple[Path, ...]:
        """The images of a cell; notes a problem on the row where there is none that can be used.

        A reference must name an earlier row, as in every released table.
        """
        value = row.fields.get(name)
        if value is None or value == "":
            row.fail(name, value, f"missing; fields are {', '.join(sorted(row.fields))}")
            return ()
        parts = _parts(value)
        if not parts:
            row.fail(name, value, "holds no image")
        images = tuple(path for part in parts for path in self._one(row, name, part))
        if index := str(row.fields.get("index", "")):
            self.by_index[index] = images
        return images

    def _one(self, row: Row, name: str, value: object) -> tuple[Path, ...]:
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return self._stored(row, name, value)
        if not isinstance(value, str):
            row.fail(name, value, "must be an image: base64 text, bytes or a path")
            return ()
        if len(value) <= MAX_REFERENCE_CHARS and value in self.by_index:
            return self.by_index[value]
        if path := self._file(value):
            return (path,)
        if len(value) <= MAX_REFERENCE_CHARS:
            row.fail(name, value, f"neither the index of an earlier row nor a file in {self.root}")
            return ()
        return self._decoded(row, name, value)

    def _file(self, value: str) -> Path | None:
        if len(value) > 1000 or "\n" in value:
            return None
        path = self.root / value
        # The text of a small image may be too long for a name, which is no mistake.
        return path if os.path.isfile(path) and path.stat().st_size else None

    def _decoded(self, row: Row, name: str, value: str) -> tuple[Path, ...]:
        text = value.partition(",")[2] if value.startswith("data:") else value
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except binascii.Error as error:
            row.fail(name, value, f"neither a file in {self.root} nor whole base64 ({error})")
            return ()
        return self._stored(row, name, data)

    def _stored(self, row: Row, name: str, data: bytes) -> tuple[Path, ...]:
        path = self.cache.store(data)
        if path is None:
            row.fail(name, data, "no image that can be read")
            return ()
        return (path,)


def _parts(value: object) -> list[object]:
    """A cell's images: a list, a list written as text (several images in a TSV), or one."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return [value]
    return list(value) if isinstance(value, list) else [value]
