"""Search in what was said in the turns: thoughts, programs and their output.

The texts of a step are read once, when first searched, and kept packed in a scratch file without a
name outside of the run, which goes with the process. Later searches unpack and scan them.
"""

from __future__ import annotations

import tempfile
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyvision_rl.errors import InputError
from pyvision_rl.runs.parquet import read_table
from pyvision_rl.runs.records import record_path
from pyvision_rl.viewer.turns import part_output, part_thought

Part = Literal["thought", "code", "output"]
PARTS: tuple[Part, ...] = ("thought", "code", "output")
StepKey = tuple[str, int, int]
"""Phase, step, and when its records were written."""

_COLUMNS = ("text", "code", "observation.text", "observation.num_visual_tokens")
_BETWEEN = "\0"
_MANY_SEARCHES = 8
_AROUND = 60
Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Excerpt:
    """The first place in a trajectory that holds a text, and what stands around it."""

    turn: int
    part: Part
    before: str
    hit: str
    after: str


@dataclass(frozen=True)
class Found:
    """Rows that hold a text, by step; `done` of the `total` steps were looked through so far, and
    `unreadable` ones were passed over.
    """

    rows: dict[StepKey, Places]
    done: int
    total: int
    unreadable: int = 0


@dataclass(frozen=True)
class _Block:
    """Text in the scratch file."""

    place: int
    num_packed: int
    num_bytes: int
    codec: str


@dataclass(frozen=True)
class _Pack:
    """One part of a step: its pieces one after the other, folded to lower case and as written."""

    folded: _Block
    written: _Block
    row_ends: array[int]  # of each row in the folded bytes, its last separator included
    rows: Places  # of each piece
    turns: Places  # of each piece


@dataclass
class _Search:
    """What is known of a search so far; excerpts by step and row."""

    rows: dict[StepKey, Places] = field(default_factory=dict)
    excerpts: dict[tuple[StepKey, int], Excerpt | None] = field(default_factory=dict)


class SaidText:
    """The texts of a run's turns, and the last searches in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packs: dict[StepKey, dict[Part, _Pack] | None] = {}
        self._searches: OrderedDict[tuple[str, tuple[Part, ...]], _Search] = OrderedDict()
        self._scratch = tempfile.TemporaryFile(prefix="pyvision-said-")  # noqa: SIM115

    def search(
        self, text: str, parts: tuple[Part, ...], steps: Sequence[StepKey], budget_s: float | None
    ) -> Found:
        """Look for a text, whatever its case, in parts of the turns of some steps, in that order.

        After `budget_s` it stops where it is; the same call again goes on from there.
        """
        end = time.monotonic() + budget_s if budget_s is not None else float("inf")
        known = self._search(text, parts).rows
        needle = fold(text).encode()
        done = 0
        for step in steps:
            if step not in known:
                if time.monotonic() >= end:
                    break
                known[step] = self._scan(step, parts, needle)
            done += 1
        rows = {step: known[step] for step in steps if step in known}
        unreadable = sum(step in self._packs and self._packs[step] is None for step in rows)
        return Found(rows, done, len(steps), unreadable)

    def read_ahead(self, steps: Sequence[StepKey], budget_s: float) -> int:
        """Read what a search in these steps will need; how many of them are read by then."""
        end = time.monotonic() + budget_s
        for step in steps:
            if time.monotonic() >= end:
                break
            if step not in self._packs:
                self._packs[step] = self._pack(step)
        return sum(step in self._packs for step in steps)

    def excerpt(
        self, text: str, parts: tuple[Part, ...], step: StepKey, row: int
    ) -> Excerpt | None:
        """Where a row of a searched step holds the text first; None where it does not."""
        known = self._search(text, parts).excerpts
        if (step, row) not in known:
            known[step, row] = self._find_excerpt(fold(text), parts, step, row)
        return known[step, row]

    def _find_excerpt(
        self, needle: str, parts: tuple[Part, ...], step: StepKey, row: int
    ) -> Excerpt | None:
        packs = self._packs.get(step)
        if packs is None:
            return None
        found = [
            (int(packs[part].turns[piece]), PARTS.index(part), content, place)
            for part in parts
            for piece, content in self._pieces(packs[part], row)
            if (place := fold(content).find(needle)) >= 0
        ]
        if not found:
            return None
        turn, number, content, place = min(found)
        last = place + len(needle)
        return Excerpt(
            turn=turn,
            part=PARTS[number],
            before=content[max(0, place - _AROUND) : place],
            hit=content[place:last],
            after=content[last : last + 2 * _AROUND],
        )

    def _search(self, text: str, parts: tuple[Part, ...]) -> _Search:
        """What earlier calls of the same search found."""
        key = (fold(text), parts)
        known = self._searches.setdefault(key, _Search())
        self._searches.move_to_end(key)
        if len(self._searches) > _MANY_SEARCHES:
            self._searches.popitem(last=False)
        return known

    def _scan(self, step: StepKey, parts: tuple[Part, ...], needle: bytes) -> Places:
        if step not in self._packs:
            self._packs[step] = self._pack(step)
        packs = self._packs[step]
        if packs is None or _BETWEEN.encode() in needle:
            return np.empty(0, np.int32)
        rows = [_rows_with(self._read(packs[part].folded), needle, packs[part]) for part in parts]
        return np.unique(np.concatenate(rows))

    def _pack(self, step: StepKey) -> dict[Part, _Pack] | None:
        """Read the texts of a step and put them away; None where they cannot be read."""
        phase, number, _ = step
        try:
            table = read_table(
                record_path(self._folder, "turns", phase, number),
                [f"turns.list.element.{column}" for column in _COLUMNS],
            )
        except InputError:
            return None
        texts = _Texts.of(table)
        return {part: self._pack_part(texts, part) for part in PARTS}

    def _pack_part(self, texts: _Texts, part: Part) -> _Pack:
        """Empty pieces are left out."""
        pieces = texts.parts[part]
        kept = np.array([place for place, text in enumerate(pieces) if text], np.int32)
        written = [pieces[place].replace(_BETWEEN, " ") for place in kept]
        folded = [fold(text).encode() for text in written]
        rows = texts.rows[kept]
        lengths = np.bincount(rows, [len(text) + 1 for text in folded], texts.num_rows)
        return _Pack(
            folded=self._write(_BETWEEN.encode().join(folded), "lz4"),
            written=self._write(_BETWEEN.join(written).encode(), "zstd"),
            row_ends=array("q", np.cumsum(lengths).astype(np.int64).tobytes()),
            rows=rows,
            turns=texts.turns[kept],
        )

    def _pieces(self, pack: _Pack, row: int) -> Iterator[tuple[int, str]]:
        """Pieces of a row by number, as they were written."""
        first, last = np.searchsorted(pack.rows, [row, row + 1])
        if first < last:
            pieces = self._read(pack.written).decode().split(_BETWEEN)
            yield from ((piece, pieces[piece]) for piece in range(first, last))

    def _write(self, data: bytes, codec: str) -> _Block:
        packed = pa.compress(data, codec=codec, asbytes=True)
        try:
            place = self._scratch.seek(0, 2)
            self._scratch.write(packed)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room to search in ({error.strerror}); free some, or "
                "set TMPDIR to another folder"
            ) from error
        return _Block(place, len(packed), len(data), codec)

    def _read(self, block: _Block) -> bytes:
        if block.num_bytes == 0:
            return b""
        self._scratch.seek(block.place)
        packed = self._scratch.read(block.num_packed)
        return pa.decompress(packed, block.num_bytes, codec=block.codec, asbytes=True)


def fold(text: str) -> str:
    """Lower case in which every character stays one: the only one that would become two is I with
    a dot.
    """
    return text.replace("\u0130", "i").lower()


def _rows_with(text: bytes, needle: bytes, pack: _Pack) -> Places:
    """Rows that hold the needle; after a hit the search goes on with the next row."""
    found: list[int] = []
    place = text.find(needle)
    while place >= 0:
        found.append(row := bisect_right(pack.row_ends, place))
        place = text.find(needle, pack.row_ends[row])
    return np.array(found, np.int32)


@dataclass(frozen=True)
class _Texts:
    """What was said in each turn of a step, turn by turn, with its row and its number there."""

    parts: dict[Part, list[str]]
    rows: Places
    turns: Places
    num_rows: int

    @classmethod
    def of(cls, table: pa.Table) -> _Texts:
        column = table["turns"].combine_chunks()
        turn, seen = column.values, column.values.field("observation")
        shown = seen.field("num_visual_tokens").fill_null(0).to_pylist()
        outputs = zip(seen.field("text").to_pylist(), shown, strict=True)
        codes = [code or "" for code in turn.field("code").to_pylist()]
        lengths = np.diff(column.offsets.to_numpy())
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return cls(
            parts={
                "thought": list(map(part_thought, turn.field("text").to_pylist(), codes)),
                "code": codes,
                "output": [part_output(text or "", has_figures=n > 0) for text, n in outputs],
            },
            rows=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
            turns=(np.arange(len(starts)) - starts).astype(np.int32),
            num_rows=len(lengths),
        )
