"""The options that a question lists, letter to text."""

from __future__ import annotations

import re
from itertools import takewhile
from string import ascii_uppercase

OPTION_MARKS = (
    re.compile(r"^[ \t]*\(?([A-Z])[).:]\s*(?=\S)", re.MULTILINE),
    re.compile(r"\(([A-Z])\)\s*"),
    re.compile(r"(?:^|(?<=[\s;,]))([A-Z])[.):]\s*(?=\S)"),
)


def parse_options(question: str) -> dict[str, str]:
    """The options written in a question, letter to text: `... (A) yes (B) no`, `A. yes\\nB. no`.

    Empty where it has none. Of several lists the last one counts.
    """
    for marks in OPTION_MARKS:
        found = list(marks.finditer(question))
        starts = [at for at, mark in enumerate(found) if mark[1] == "A"]
        for start in reversed(starts):
            run = _run_from_a(found[start:])
            if len(run) >= 2:
                return _option_texts(question, run)
    return {}


def _run_from_a(marks: list[re.Match[str]]) -> list[re.Match[str]]:
    """The first marks, as far as they go A, B, C ..."""
    pairs = takewhile(lambda pair: pair[0][1] == pair[1], zip(marks, ascii_uppercase, strict=False))
    return [mark for mark, _ in pairs]


def _option_texts(question: str, run: list[re.Match[str]]) -> dict[str, str]:
    ends = [mark.start() for mark in run[1:]]
    texts = [question[mark.end() : end] for mark, end in zip(run, ends, strict=False)]
    texts.append(question[run[-1].end() :].partition("\n")[0])
    return {mark[1]: text.strip(" \n\t;,.") for mark, text in zip(run, texts, strict=True)}
