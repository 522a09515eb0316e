"""What makes matplotlib draw sooner in a runtime, every pixel the same: fonts stay open over a
fork, marker styles are copied lightly, no garbage is looked for.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterator
from typing import Any

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.markers import MarkerStyle


class FontFile(io.BytesIO):
    """A font file in memory; writers of PDF and PostScript look for its `name`."""

    def __init__(self, path: str, mode: str = "rb") -> None:
        with open(path, mode) as file:
            super().__init__(file.read())
        self.name = path


@contextlib.contextmanager
def fonts_kept() -> Iterator[None]:
    """Fonts that are opened meanwhile stay open for this process and its forks.

    matplotlib closes its own at every fork, since they would share the offset of an open file;
    these lie in memory.
    """
    theirs = font_manager._get_font  # pyrefly: ignore[missing-attribute]
    kept: dict[object, FT2Font] = {}
    keeping = True

    def find(*fonts: Any, **options: Any) -> FT2Font:
        key = (fonts, frozenset(options.items()))
        if keeping and key not in kept:
            opened, vars(io)["open"] = io.open, FontFile  # FT2Font opens its files by this name
            try:
                kept[key] = theirs.__wrapped__(*fonts, **options)
            finally:
                vars(io)["open"] = opened
        return kept[key] if key in kept else theirs(*fonts, **options)

    font_manager._get_font = find  # pyrefly: ignore[missing-attribute]
    try:
        yield
    finally:
        keeping = False


def copy_markers_lightly() -> None:
    """A style made of another style shares its path, which nothing changes in place; matplotlib
    copies it deeply, eight times for each tick.
    """
    deeply = MarkerStyle._set_marker  # pyrefly: ignore[missing-attribute]

    def set_marker(style: MarkerStyle, marker: Any) -> None:
        if type(marker) is MarkerStyle and marker.get_user_transform() is None:
            style.__dict__ = dict(marker.__dict__)
        else:
            deeply(style, marker)

    MarkerStyle._set_marker = set_marker


@contextlib.contextmanager
def garbage_left() -> Iterator[None]:
    """Nothing looks for garbage meanwhile: a drawing leaves little, and it is looked for after each
    cell.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
