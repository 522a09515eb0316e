"""Answers as comparable values: cleaned text, numbers with units, the options of a question.

Characters are folded only where the meaning stays: full-width digits are digits, but `5²` is
never `52`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from string import ascii_uppercase

FOLDED = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord(seen): meant
    for seen, meant in zip(
        "\u2212\u2013\u2018\u2019\u201c\u201d\u00a0\u202f\u2009\u3000", "--''\"\"    ", strict=True
    )
}
"""Full-width ASCII, typographic minus, quotes and spaces."""

WRAPPERS = (
    ("\\boxed{", "}"),
    ("\\text{", "}"),
    ("\\textbf{", "}"),
    ("\\mathrm{", "}"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("$$", "$$"),
    ("$", "$"),
    ("**", "**"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
    ("{", "}"),
)
MAX_WRAPPERS = 8
MAX_QUANTITY_CHARS = 120

LEAD = (
    r"(?:(?:so,? |thus,? |hence,? )?(?:the )?(?:final |correct |right |best )?"
    r"(?:answer|option|choice|result|value|total)(?: is|:| =)?:?\s*)?"
)
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
NUMBER = rf"[-+]?(?:{DIGITS})(?:[eE][-+]?[0-9]{{1,3}})?"
QUANTITY = re.compile(
    rf"{LEAD}(?:(?P<name>[a-z]) ?= ?|= ?|≈ ?|~ ?|about |approximately |approx\. )?[$€£]?"
    rf"(?P<number>{NUMBER})(?:\s*/\s*(?P<below>[0-9]+))?"
    r"(?P<unit>\s*(?:%|\\%|°|\^?\{?\\circ\}?|\^\{\\circ\})"
    r"|\s*[a-zA-Zµ]+(?: [a-zA-Z]+){0,2}(?:\^?[23²³])?(?:/[a-zA-Z]+)?)?",
    re.IGNORECASE,
)
NUMBER_IN_SENTENCE = re.compile(rf"(?<![\w.,]){NUMBER}(?![\w^]|[.,][0-9])")
HEDGES = re.compile(
    r"\b(?:or|and|not|no|never|than|least|most|between|over|under|either|neither|maybe|to|times|"
    r"plus|minus|hundred|thousand|million|billion|trillion|dozen|squared|cubed|pi|"
    r"half|third|quarter|unknown|none)\b|n't|\?",
    re.IGNORECASE,
)
SCALES = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|squared|cubed|pi|e)s?\b", re.IGNORECASE
)
WORDS = {
    word: number
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
UNIT_SIGNS = {
    "circ": "°",
    "degree": "°",
    "degrees": "°",
    "percent": "%",
    "meter": "m",
    "meters": "m",
    "metres": "m",
    "centimeters": "cm",
    "kilometers": "km",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "minutes": "min",
    "hours": "h",
    "unit": "",
    "units": "",
}
"""Units that are written in several ways; the others must be spelled alike."""


@dataclass(frozen=True)
class Quantity:
    """A number as written: its value, the decimals it was given with, and if it has them its
    unit (`cm`) and its name (`x` of `x = 5`)."""

    value: Fraction
    num_decimals: int = 0
    unit: str = ""
    name: str = ""


def clean(text: str) -> str:
    """The text without quotes, boxes, dollar signs and the like around all of it."""
    text = text.translate(FOLDED).strip()
    for _ in range(MAX_WRAPPERS):
        bare = _unwrap(text.removesuffix(".").strip())
        if bare == text:
            break
        text = bare
    return text


def _unwrap(text: str) -> str:
    for opening, closing in WRAPPERS:
        inner = text[len(opening) : len(text) - len(closing)]
        long_enough = len(text) >= len(opening) + len(closing)
        wrapped = long_enough and text.startswith(opening) and text.endswith(closing)
        if wrapped and _whole(inner, opening[-1], closing):
            return inner.strip()
    return text


def _whole(inner: str, opening: str, closing: str) -> bool:
    """Whether the inner text is one piece, unlike that of `{a} and {b}` or `$a$ and $b$`."""
    if opening == "{":
        depth = 0
        for character in inner:
            depth += (character == "{") - (character == "}")
            if depth < 0:
                return False
        return depth == 0
    return closing not in inner


def plain(text: str) -> str:
    """A form in which equal texts are equal: case, spacing, braces and end marks do not count."""
    text = re.sub(r"[{}$*`\"']|\\[,;! ]", "", clean(text)).casefold()
    text = re.sub(r"[\s,;~]+", " ", text)
    text = re.sub(r" ?([=:()]) ?", r"\1", text).strip(" .!:")
    return re.sub(r"^(?:the|an|a) (?=\S)", "", text)


def quantity(text: str, sentence: bool = False) -> Quantity | None:
    """The number that a text is: `5`, `1,200 km`, `x = 3/4`, `seven`, `12%`.

    With `sentence`, also the only number of a short sentence that does not hedge.
    """
    text = clean(text)
    if len(text) > MAX_QUANTITY_CHARS:
        return None
    if text.casefold() in WORDS:
        return Quantity(Fraction(WORDS[text.casefold()]))
    match = QUANTITY.fullmatch(text)
    if match and not HEDGES.search(match["unit"] or "") and not SCALES.search(match["unit"] or ""):
        return _quantity(match["number"], match["below"], match["unit"], match["name"])
    return _of_sentence(text) if sentence else None


def _of_sentence(text: str) -> Quantity | None:
    """The only number of a sentence: other digits, formulas and hedges rule it out."""
    is_prose = re.search(r"[a-zA-Z]{2,} [a-zA-Z]", text) and not re.search(r"[\\^]", text)
    if not is_prose or HEDGES.search(text) or SCALES.search(text):
        return None
    numbers = NUMBER_IN_SENTENCE.findall(text)
    if len(numbers) != 1 or re.search("[0-9]", text.replace(numbers[0], "", 1)):
        return None
    return _quantity(numbers[0])


def _quantity(
    number: str, below: str | None = None, unit: str | None = None, name: str | None = None
) -> Quantity | None:
    if below is not None and not int(below):
        return None
    value = Fraction(number.replace(",", "")) / (int(below) if below else 1)
    num_decimals = len(re.split("[eE]", number)[0].partition(".")[2])
    unit = re.sub(r"[\\{}^\s]", "", unit or "").casefold()
    return Quantity(value, num_decimals, UNIT_SIGNS.get(unit, unit), (name or "").casefold())


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
