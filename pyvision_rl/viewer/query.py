"""Which trajectories to list, and in which order: the query of a page's address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from typing import Annotated, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pyvision_rl.errors import InputError
from pyvision_rl.reward.reward import RIGHT_FROM
from pyvision_rl.viewer.said import PARTS, Part

Order = Literal["new", "old", "reward", "calls", "tokens", "slow", "advantage"]

_ORDERS: dict[Order, tuple[tuple[str, str], ...]] = {
    "new": (("step", "descending"),),
    "old": (("step", "ascending"),),
    "reward": (("reward", "descending"),),
    "calls": (("num_tool_calls", "descending"),),
    "tokens": (("num_completion_tokens", "descending"),),
    "slow": (("seconds", "descending"),),
    "advantage": (("advantage", "descending"),),
}
_CALLS = re.compile(r"\d{1,9}\+?")
_TEXT_COLUMNS = ("question", "answer", "gold", "task_id")
_KEY = (("phase", "ascending"), ("group", "ascending"), ("index", "ascending"))


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions that all must hold; an empty one holds always.

    `right` is yes or no; `kept` is yes, no or a reason for which trajectories were dropped. `calls`
    is a number, or one followed by + (at least). `text` is looked for, whatever its case, in
    question, answers and task id (`part` task), thoughts, programs or output, else in all of them.
    """

    phase: str = ""
    step: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None
    task: str = ""
    stop: str = ""
    right: Literal["", "yes", "no"] = ""
    kept: str = ""
    calls: str = ""
    source: str = ""
    kind: str = ""
    text: str = ""
    part: Literal["", "task", "thought", "code", "output"] = ""
    sort: Order = "new"

    @property
    def said_parts(self) -> tuple[Part, ...]:
        """The parts of the turns that the text is looked for in."""
        if not self.text or self.part == "task":
            return ()
        return PARTS if self.part == "" else (self.part,)

    def mask(self, table: pa.Table, said: pa.Array | None = None) -> pa.ChunkedArray | None:
        """Which rows fit, None for all. `said` tells the rows whose turns hold the text."""
        conditions = [
            pc.equal(table[column], value)
            for column, value in (
                ("phase", self.phase),
                ("step", "" if self.step is None else self.step),
                ("task_id", self.task),
                ("stop", self.stop),
                ("source", self.source),
                ("ability", self.kind),
            )
            if value != ""
        ]
        if self.right:
            is_right = pc.greater_equal(table["accuracy"], RIGHT_FROM)
            conditions.append(is_right if self.right == "yes" else pc.invert(is_right))
        if self.kept:
            conditions.append(_fate(table, self.kept))
        if self.calls:
            conditions.append(_calls(table, self.calls))
        if self.text:
            conditions.append(self._text_mask(table, said))
        return reduce(pc.and_, conditions) if conditions else None

    def _text_mask(self, table: pa.Table, said: pa.Array | None) -> pa.ChunkedArray:
        told = pa.chunked_array([said]) if said is not None else None
        if self.part in ("", "task"):
            held = _holds(table, self.text)
            return held if told is None else pc.or_(held, told)
        return told if told is not None else pa.chunked_array([[False] * len(table)])

    def rows(self, table: pa.Table, said: pa.Array | None = None) -> pa.Array:
        """Places in the table of the rows that fit, in the order asked for; `said` as in mask."""
        mask = self.mask(table, said)
        places = pa.array(range(len(table)), pa.int64()) if mask is None else _places(mask)
        if self.sort == "old":
            return places
        keys = [*_ORDERS[self.sort], *_KEY] if self.sort == "new" else [*_ORDERS[self.sort]]
        columns = table.select([name for name, _ in keys]).take(places)
        return places.take(pc.sort_indices(columns, sort_keys=keys))


def parse_query(values: Mapping[str, str]) -> Query:
    """The query of an address. Raises InputError for a name or value that is not allowed."""
    given = {key: value for key, value in values.items() if value != ""}
    try:
        query = msgspec.convert(given, Query, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"query {given}: {error}") from error
    if query.calls and not _CALLS.fullmatch(query.calls):
        raise InputError(f"query calls={query.calls}: a number, or a number and + for at least")
    return query


def _places(mask: pa.ChunkedArray) -> pa.Array:
    return pc.cast(pc.indices_nonzero(mask), pa.int64())


def _fate(table: pa.Table, kept: str) -> pa.ChunkedArray:
    if kept == "yes":
        return pc.and_(pc.is_valid(table["rank"]), pc.is_null(table["dropped"]))
    if kept == "no":
        return pc.is_valid(table["dropped"])
    return pc.fill_null(pc.equal(table["dropped"], kept), False)


def _calls(table: pa.Table, calls: str) -> pa.ChunkedArray:
    count = int(calls.removesuffix("+"))
    compare = pc.greater_equal if calls.endswith("+") else pc.equal
    return compare(table["num_tool_calls"], count)


def _holds(table: pa.Table, text: str) -> pa.ChunkedArray:
    found = [
        pc.fill_null(pc.match_substring(table[column], text, ignore_case=True), False)
        for column in _TEXT_COLUMNS
    ]
    return reduce(pc.or_, found)
