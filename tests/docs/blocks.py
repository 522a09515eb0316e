"""The fenced blocks of a page that are files: the fence says the language and the name."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
# A file may hold fences of its own, which no blank line precedes.
BLOCK = re.compile(r"(?<=\n\n)```(\w+) ?([\w.]*)\n(.*?)\n```\n(?=\n)", re.DOTALL)


def blocks_of(page: str) -> list[tuple[str, str, str]]:
    """Language, file name (empty: not a file) and text of each block of a page's text."""
    return BLOCK.findall(page)


def write_files(page: Path, folder: Path) -> None:
    """Write the files of a page."""
    for _, name, text in blocks_of(page.read_text()):
        if name:
            (folder / name).write_text(text + "\n")
