"""Rules that grade an answer against the gold one without a model, cheap ones first.

An answer is judged as it stands: empty, hedged, multiple or over-long answers are wrong, and no
text can make a rule raise or hang.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

from pyvision_rl.reward import symbolic
from pyvision_rl.reward.text import (
    DOUBTS,
    FOLDED,
    Quantity,
    as_latex,
    clean,
    is_legible,
    plain,
    quantity,
    split_unit,
    without_blanks,
)

Rule = Literal["auto", "choice", "number", "text", "math", "mra", "set", "sequence"]

NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
MAX_ANSWER_CHARS = 1000
"""Longer answers are wrong (the paper's code)."""
MAX_MATH_CHARS = 200

LETTER = r"(?:\(?(?P<letter>[A-Ja-j])\)?)"
LETTER_ONLY = re.compile(rf"{LETTER}[.:)]?")
LETTER_AND_TEXT = re.compile(r"\(?(?P<letter>[A-J])\)?[.:)]\s*(?P<text>\S.*)", re.DOTALL)
SAID = (
    r"(?i:(?:so |thus,? |therefore,? )?(?:the )?(?:final |correct |right |best )?"
    r"(?:answer|option|choice)(?: is|:)?:? *(?:option |choice )?[\"'*$]*)"
)
TEXT_SAID = re.compile(
    r"^(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct |right |best )?"
    r"answer(?: is|:|:? is:)\s+",
    re.IGNORECASE,
)
LETTER_SAID = re.compile(rf"{SAID}\(?(?P<letter>[A-Ja-j])\)?[\"'*$]*\.?")
ANSWER_AND_TEXT = re.compile(
    rf"(?:{SAID})?\(?(?P<letter>[A-J])\)?(?P<mark>[.:)]\s*|,\s+|\s+-\s+)(?P<text>\S.*)", re.DOTALL
)
MATH_MARKS = re.compile(
    r"\\[a-zA-Z]|[\^√π°=]|[0-9)a-z]\s*[-+*/:]\s*[0-9(a-z]|^\(.*,.*\)$|\d\s*[a-z]\b"
    r"|^\\\{.*,.*\\\}$|^[\[(][^,]*,[^,]*[\])]$"
)
PROSE = re.compile(
    r"(?<![\\a-zA-Z])(?!(?:sqrt|frac|sin|cos|tan|log|pi|ln|exp|degrees)\b)[a-zA-Z]{3,}"
)
DIGIT_CODE = re.compile(r"[0-9]+\s*(?:[-:.][0-9\s]+)+")
"""Times, dates, ranges and ratios: `2019-05-06` is no subtraction. Blanks fit in one place only:
in two the matcher would try every way to share them out."""
NUMBER_LIST = re.compile(
    r"[\[({]?\s*[0-9]{1,9}(?:(?:\s*[,;]\s*|\s+|\s*and\s*)[0-9]{1,9})*\s*[\])}]?"
)
UNITS = re.compile(r"\\(?:mathrm|text)\b|%")
MRA_THRESHOLDS = (*(0.5 + step * ((0.95 - 0.5) / 9) for step in range(9)), 0.95)
"""As numpy's linspace(0.5, 0.95, 10) rounds them, on which the official scores depend."""


def grade_answer(
    answer: str, gold: str, rule: Rule = "auto", options: Mapping[str, str] = NO_OPTIONS
) -> float:
    """How right an answer is, in [0, 1]; `options` are the choices of the question by letter.

    * auto: the rule that `route` finds
    * choice: the letter or the text of an option
    * number: equal value; a gold with decimals is a rounded one; equal units where both have one
    * text: equal but for case, spacing, quotes and an article
    * math: number or text, else math-verify finds the expressions equal
    * mra: mean relative accuracy of VSI-Bench, with values between 0 and 1
    * set: intersection over union of two sets of whole numbers (TIR-Bench), likewise
    * sequence: share of the gold list's places that hold its number (TIR-Bench's jigsaw), likewise
    """
    if not answer.strip() or len(answer) >= MAX_ANSWER_CHARS:
        return 0.0
    if rule == "auto":
        rule = route(gold, options)
    shares = {"mra": mean_relative_accuracy, "set": set_overlap, "sequence": places_right}
    if rule in shares:
        return shares[rule](answer, gold)
    graders = {"choice": _choice, "number": _number, "text": _text, "math": _math}
    return float(graders[rule](answer, gold, options))


def route(gold: str, options: Mapping[str, str] = NO_OPTIONS, source: str = "") -> Rule:
    """The rule for a gold answer: by its source where that is known, else by what it looks like.

    Sources that end in `_rule_verifiable` and numbers of VSI sets are graded by "mra"; number
    lists of TIR-Bench by "set".
    """
    source = source.casefold()
    is_number = quantity(gold) is not None
    if is_number and not options and source.startswith("vsi"):
        return "mra"
    if is_number and source.endswith("_rule_verifiable"):
        return "mra"
    if source.startswith("tir") and len(_number_set(gold)) > 1:
        return "set"
    if _gold_letter(gold, options):
        return "choice"
    if is_number:
        return "number"
    return "math" if _is_math(clean(gold)) else "text"


def can_grade(rule: Rule, gold: str) -> bool:
    """Whether there is an answer that the rule takes for right: some need a gold with numbers."""
    if rule == "mra":
        return quantity(gold) is not None
    return rule not in ("set", "sequence") or bool(_number_list(gold))


def _is_math(text: str) -> bool:
    text = as_latex(text)
    bare = re.sub(r"\\[a-zA-Z]+|\{[a-zA-Z ]+\}", " ", text)
    if len(text) > MAX_MATH_CHARS or DIGIT_CODE.fullmatch(text):
        return False
    return bool(MATH_MARKS.search(text)) and not PROSE.search(bare)


def _gold_letter(gold: str, options: Mapping[str, str]) -> str | None:
    """The letter of the right option: the gold is a letter, a letter with a text, or a text."""
    gold = clean(gold)
    if match := LETTER_ONLY.fullmatch(gold):
        letter = match["letter"].upper()
        if match["letter"].isupper() or letter in options:
            return letter
    if (match := LETTER_AND_TEXT.fullmatch(gold)) and match["letter"] in options:
        return match["letter"]
    return _letter_of_text(gold, options)


def _letter_of_text(text: str, options: Mapping[str, str]) -> str | None:
    """The only option that has this text."""
    wanted = plain(text)
    letters = [letter for letter, option in options.items() if plain(option) == wanted]
    return letters[0] if len(letters) == 1 else None


def _choice(answer: str, gold: str, options: Mapping[str, str]) -> bool:
    letter = _gold_letter(gold, options)
    if letter is None:
        return _text(answer, gold, options)
    if letter not in options:
        options = NO_OPTIONS
    chosen = _answer_letter(clean(answer), options)
    if chosen is not None:
        return chosen == letter
    # The value of an option counts where it is a bare number or formula; with a unit, its text.
    value = options.get(letter, "")
    is_bare = not UNITS.search(value) and not getattr(quantity(value), "unit", "")
    return is_bare and route(value) in ("number", "math") and _math(answer, value, options)


def _answer_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option that an answer takes; None where it takes none or several."""
    if match := LETTER_ONLY.fullmatch(answer) or LETTER_SAID.fullmatch(answer):
        return match["letter"].upper()
    match = ANSWER_AND_TEXT.fullmatch(answer)
    # `A, no` is no way to write the option "no", as `A no` is: there A may be an article.
    if not (match and match["mark"].startswith(",")) and (
        letter := _letter_of_text(answer, options)
    ):
        return letter
    if match:
        fits = _fits if options else _names_no_other
        return match["letter"] if fits(match["letter"], match["text"], options) else None
    return None


def _fits(letter: str, text: str, options: Mapping[str, str]) -> bool:
    """Whether the text after a letter is that option's, and not another's."""
    text = plain(text)
    named = {at for at, option in options.items() if plain(option) and plain(option) in text}
    return letter in named and all(
        at == letter or plain(options[at]) in plain(options[letter]) for at in named
    )


def _names_no_other(letter: str, text: str, options: Mapping[str, str]) -> bool:
    # "I" may be the writer.
    return not re.search(r"\b[A-HJ]\b|\bor\b", text)


def _text(answer: str, gold: str, options: Mapping[str, str]) -> bool:
    answer, gold = plain(TEXT_SAID.sub("", clean(answer), count=1)), plain(gold)
    if gold in ("yes", "no", "true", "false"):
        words = re.findall(r"\w+", answer)
        opposite = {"yes": "no", "no": "yes", "true": "false", "false": "true"}[gold]
        return bool(words) and words[0] == gold and opposite not in words and "or" not in words
    return answer == gold and bool(gold)


def _number(answer: str, gold: str, options: Mapping[str, str]) -> bool:
    right = quantity(gold)
    if right is None:
        return _text(answer, gold, options)
    given = quantity(answer, sentence=True)
    if given is None:
        return _symbolic(answer, gold, float(_tolerance(right)))
    values = [given.value]
    if {given.unit, right.unit} == {"%", ""}:
        # A share may be written either way, and the sign be left out.
        values.append(given.value / 100 if given.unit else given.value * 100)
    elif _differ(given.unit, right.unit):
        return False
    if _differ(given.name, right.name):
        return False
    return any(abs(value - right.value) <= _tolerance(right) for value in values)


def _differ(one: str, other: str) -> bool:
    """Whether both are given, and not the same."""
    return bool(one and other) and one != other


def _tolerance(gold: Quantity) -> Fraction:
    """None for whole numbers. Decimals are rounded: half of the last one, or 1 in 10,000."""
    if gold.num_decimals == 0:
        return Fraction(0)
    half = Fraction(1, 2 * 10**gold.num_decimals) if gold.num_decimals >= 2 else Fraction(0)
    return max(half, abs(gold.value) / 10_000)


def _math(answer: str, gold: str, options: Mapping[str, str]) -> bool:
    if _text(answer, gold, options):
        return True
    if quantity(gold) is not None:
        return _number(answer, gold, options)
    return _symbolic(answer, gold)


def _symbolic(answer: str, gold: str, tolerance: float = 0.0) -> bool:
    (gold_math, gold_unit), (answer_math, answer_unit) = _one_formula(gold), _one_formula(answer)
    if not _is_math(answer_math) and quantity(answer_math) is None:
        return False
    if (right := quantity(gold)) is not None:
        gold_unit = right.unit
    if _differ(gold_unit, answer_unit) or ("%" in gold_math) != ("%" in answer_math):
        return False
    # math-verify takes a point or an interval for the set of its two numbers.
    if gold_math.startswith("(") and answer_math.startswith("\\{"):
        return False
    if without_blanks(gold_math) == without_blanks(answer_math):
        return True
    if not (is_legible(gold_math) and is_legible(answer_math)):
        return False
    return symbolic.is_equal(gold_math, answer_math, tolerance)


def _one_formula(text: str) -> tuple[str, str]:
    """The text or a sentence's only formula, as LaTeX, and its unit; empty where ambiguous."""
    text = clean(text)
    if "$" in text:
        pieces = text.translate(FOLDED).split("$")
        is_said = len(pieces) == 3 and not DOUBTS.search(f"{pieces[0]} {pieces[2]}")
        text = pieces[1].strip() if is_said else ""
    return split_unit(as_latex(text).strip())


def mean_relative_accuracy(answer: str, gold: str) -> float:
    """Share of the thresholds 0.50, 0.55 ... 0.95 for which the relative error is at most
    1 - threshold, as VSI-Bench's own scorer counts (`<=`); for a gold 0, whether it is equal.
    """
    right, given = quantity(gold), quantity(answer, sentence=True)
    if right is None or given is None:
        return 0.0
    if right.value == 0:
        return float(given.value == 0)
    error = abs(given.value - right.value) / abs(right.value)
    if error > 1:
        return 0.0
    return sum(float(error) <= 1 - threshold for threshold in MRA_THRESHOLDS) / 10


def set_overlap(answer: str, gold: str) -> float:
    """Intersection over union of the whole numbers that answer and gold list, in any order.

    A text with anything but numbers between separators and brackets lists none.
    """
    right, given = _number_set(gold), _number_set(answer)
    return len(right & given) / len(right | given) if right and given else 0.0


def _number_set(text: str) -> frozenset[int]:
    return frozenset(_number_list(text))


def places_right(answer: str, gold: str) -> float:
    """Share of the places at which answer and gold list the same whole number.

    A longer answer is wrong altogether: it would be several guesses.
    """
    right, given = _number_list(gold), _number_list(answer)
    if not right or len(given) > len(right):
        return 0.0
    return sum(one == other for one, other in zip(given, right, strict=False)) / len(right)


def _number_list(text: str) -> list[int]:
    text = clean(text)
    if not NUMBER_LIST.fullmatch(text):
        return []
    return [int(number) for number in re.findall(r"[0-9]+", text)]
