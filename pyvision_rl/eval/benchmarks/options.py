"""Options of a question: read from columns or lists, shuffled by a seed, shown, found in texts."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from string import ascii_uppercase

from pyvision_rl.data.rows import Row
from pyvision_rl.reward.rules import MAX_ANSWER_CHARS
from pyvision_rl.reward.text import plain

LETTERED = re.compile(r"^\(?([A-Z])[).:]\s*")
SIGNS = r"(?:[\s\"'*:(\[{$`]|\\(?:boxed|text|textbf|mathrm|mathbf)\b)*+"
GAP = rf"{SIGNS}(?:(?i:option|choice)\b{SIGNS})?"
END = r"(?![A-Za-z]|'[a-z])"
HERE = rf"(?:([A-Z]){END}|([a-z])(?=[.,:)\]}}*\"'$]|\s*(?:\n|$)))"
"""A letter; a small one only where nothing goes on, as the article would."""
IS = r"(?i:\s+(?:is|was|must be|should be|would be)|\s*:)"
BOXED = re.compile(r"\\boxed\{(?:\\(?:text|textbf|mathrm|mathbf)\{|[\s(])*([A-Z])[.:)}]")
ANSWER = re.compile(
    rf"(?i:\banswer\b){IS}?{GAP}{HERE}"
    rf"|(?i:\b(?:option|choice|(?:correct|right|best) one)\b){IS}{GAP}{HERE}"
)
MENTION = re.compile(rf"(?i:\b(?:option|choice)\b){GAP}{HERE}")
LEADING = re.compile(r"\W*([A-Z])(?:[).:*]|,(?!\s*[A-Z]\b)|$)")
ARTICLE = r"[AI] (?!or\b|and\b|is\b)[a-z]"
ALONE = re.compile(rf"(?<![A-Za-z])(?<![A-Za-z]')(?!{ARTICLE})([A-Z]){END}")


def by_letter(texts: Sequence[str]) -> dict[str, str]:
    """Options in order, named A, B, C ...; letters that the texts bring along are taken off."""
    marks = [LETTERED.match(text) for text in texts]
    if texts and all(m and m[1] == c for m, c in zip(marks, ascii_uppercase, strict=False)):
        texts = [LETTERED.sub("", text, count=1) for text in texts]
    return dict(zip(ascii_uppercase, (text.strip() for text in texts), strict=False))


def column_options(row: Row) -> dict[str, str]:
    """The options in columns A, B, C ... of a table, as far as they go."""
    found: dict[str, str] = {}
    for letter in ascii_uppercase:
        if letter not in row.fields:
            break
        found[letter] = row.text(letter)
    return found


def as_letter(text: str, letters: Collection[str]) -> str:
    """The option that a gold answer is, however it is written (`b`, `(B)`, `B.`); else as it is."""
    letter = text.strip("(). ").upper()
    return letter if letter in letters else text


def right_letter(row: Row, name: str, options: Mapping[str, str]) -> str:
    """The letter of the right option; notes a problem on the row where it is none of them."""
    letter = as_letter(row.text(name), options)
    if letter not in options:
        allowed = ", ".join(options) or "the options in columns A, B ..., of which there are none"
        row.fail(name, row.fields.get(name), f"must be one of {allowed}")
    return letter


def shuffled(texts: Sequence[str], right: int, *seed: object) -> tuple[dict[str, str], str]:
    """The options in an order that depends on the seed alone, and the letter of the right one."""
    order = list(range(len(texts)))
    random.Random("/".join(map(str, seed))).shuffle(order)
    return by_letter([texts[at] for at in order]), ascii_uppercase[order.index(right)]


def with_options(question: str, options: Mapping[str, str]) -> str:
    """The question with its options below, a line each."""
    lines = [f"{letter}. {text}" for letter, text in options.items()]
    return "\n".join([question, *lines])


def letter_in(text: str, letters: Collection[str]) -> str | None:
    """The option that a free text takes: the last one in a box, else the last one it calls its
    answer, else the last one it calls an option, else the one it opens with, else the only one it
    names.
    """
    return _told(text, letters) or _alone(text, letters)


def _told(text: str, letters: Collection[str]) -> str | None:
    bare = text.strip("()[].*'\"` \n").upper()
    if bare and bare in letters:
        return bare
    for marks in (BOXED, ANSWER, MENTION):
        found = ["".join(filter(None, mark.groups())).upper() for mark in marks.finditer(text)]
        if taken := [letter for letter in found if letter in letters]:
            return taken[-1]
    opening = LEADING.match(text)
    return opening[1] if opening and opening[1] in letters else None


def _alone(text: str, letters: Collection[str]) -> str | None:
    named = {letter for letter in ALONE.findall(text) if letter in letters}
    return named.pop() if len(named) == 1 else None


def option_in(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a free text takes by its letter, or by its words: those of one option only,
    in a text that is not much longer than all the options (VLMEvalKit's rule).
    """
    letter = _told(text, options)
    if letter or len(text) >= MAX_ANSWER_CHARS:
        return letter or _alone(text, options)
    said, words = plain(text), {letter: plain(option) for letter, option in options.items()}
    taken = [letter for letter, option in words.items() if option == said]
    if not taken and len(text) <= 2 * sum(map(len, options.values())):
        taken = [letter for letter, option in words.items() if option and _holds(said, option)]
    alone = _alone(text, options)
    # The letter may be one of the option's words: "point C" is the option "A. point C".
    if len(taken) == 1 and (alone is None or _holds(options[taken[0]], alone)):
        return taken[0]
    return alone


def _holds(text: str, words: str) -> bool:
    """As words of their own: 7 is not in 7.5, -7 or 7/8."""
    return re.search(rf"(?<![\w.\-/]){re.escape(words)}(?![\w/^]|[.,]\d)", text) is not None
