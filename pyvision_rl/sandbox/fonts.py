"""Fonts that stay open across forks, so that a runtime's first figure need not parse them again.

matplotlib closes its fonts at every fork, since they would share the offset of an open file. These
lie in memory.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any
from unittest import mock

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font


class FontFile(io.BytesIO):
    """A font file in memory; writers of PDF and PostScript look for its `name`."""

    def __init__(self, path: str, mode: str = "rb") -> None:
        with open(path, mode) as file:
            super().__init__(file.read())
        self.name = path


@contextlib.contextmanager
def fonts_kept() -> Iterator[None]:
    """Fonts that are opened meanwhile stay open for this process and its forks."""
    theirs = font_manager._get_font  # pyrefly: ignore[missing-attribute]
    kept: dict[object, FT2Font] = {}
    keeping = True

    def find(*fonts: Any, **options: Any) -> FT2Font:
        key = (fonts, frozenset(options.items()))
        if keeping and key not in kept:
            with mock.patch("io.open", FontFile):  # FT2Font opens its files by this name
                kept[key] = theirs.__wrapped__(*fonts, **options)
        return kept[key] if key in kept else theirs(*fonts, **options)

    font_manager._get_font = find  # pyrefly: ignore[missing-attribute]
    try:
        yield
    finally:
        keeping = False
