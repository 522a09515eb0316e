"""Answers as comparable values: cleaned text, formulas, numbers with units.

Characters are folded only where the meaning stays: full-width digits are digits, but `5²` is
never `52`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

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
    rf"(?P<whole>[-+]?[0-9]{{1,9}}\s+(?=[0-9]+\s*/))?(?P<number>{NUMBER})(?:\s*/\s*(?P<below>[0-9]+))?"
    r"(?P<unit>\s*(?:\\?%|°(?: ?[CFK])?)"
    r"|\s*[a-zA-Zµ]+(?: [a-zA-Z]+){0,2}(?:\^?[23])?(?:/[a-zA-Z]+(?:\^?[23])?)?)?",
    re.IGNORECASE,
)
NUMBER_IN_SENTENCE = re.compile(rf"(?<![\w.,]){NUMBER}(?![\w^]|[.,][0-9])")
HEDGES = re.compile(
    r"\b(?:or|and|not|no|never|than|least|most|between|over|under|either|neither|maybe|to|times|"
    r"plus|minus|hundred|thousand|million|billion|trillion|dozen|squared|cubed|pi|"
    r"half|halves|thirds?|quarters?|unknown|none)\b|n't|\?",
    re.IGNORECASE,
)
SCALES = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|squared|cubed|pi|e)s?\b", re.IGNORECASE
)
DOUBTS = re.compile(
    r"\b(?:or|not|no|never|than|least|most|either|neither|maybe|unknown|none)\b|n't|\?",
    re.IGNORECASE,
)
"""Words around a formula with which the text does not say that it is the answer."""
VARIABLE = re.compile(r"[abeijknopqruvwxyz]")
"""Letters that stand for no unit: `5x` is a formula."""
NAMES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
WORDS = {word: number for number, word in enumerate(NAMES.split())}
FIRST_WORD = re.compile(rf"({'|'.join(WORDS)})\b(?!-)", re.IGNORECASE)
COUNT_WORD = re.compile(rf"\b({'|'.join(WORDS.keys() - {'one'})})\b(?!-)", re.IGNORECASE)
"""In a sentence "one" may be no count: `the left one`."""
UNIT_SIGNS = {
    "percent": "%",
    "degree": "°",
    "degrees": "°",
    "°celsius": "°c",
    "meter": "m",
    "metre": "m",
    "centimeter": "cm",
    "centimetre": "cm",
    "millimeter": "mm",
    "millimetre": "mm",
    "kilometer": "km",
    "kilometre": "km",
    "inch": "in",
    "inche": "in",
    "foot": "ft",
    "feet": "ft",
    "gram": "g",
    "kilogram": "kg",
    "liter": "l",
    "litre": "l",
    "sec": "s",
    "second": "s",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "unit": "",
}
"""Units that are written in several ways; the others must be spelled alike, but for a last s."""
POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
COMMAND_NAMES = """\
frac dfrac tfrac cfrac sqrt pi cdot times div pm mp le leq ge geq lt gt ne neq infty left right
sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp angle measuredangle
triangle circ degree displaystyle cup cap in binom choose begin end emptyset varnothing overline
quad mathbf mathbb lfloor rfloor lceil rceil log lim sum prod int alpha beta gamma delta epsilon
varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon phi varphi
chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"""
COMMANDS = frozenset(COMMAND_NAMES.split())
LOST = re.compile(r"[0-9.]\s*\\overline|(?<![a-zA-Z\\])d(?![a-zA-Z])")
UNIT_IN_BRACES = r"\\(?:text|textrm|textnormal|mathrm|rm|mbox)\s*\{([^{}]*)\}"
TRAILING_UNIT = re.compile(
    rf"(?P<formula>[^ ~].*?)(?:[ ~]|\\[,;: ])*{UNIT_IN_BRACES}(?P<power>\^\{{?[23]\}}?)?"
)
MATH_SIGNS = str.maketrans({"π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge "})


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


def without_latex(text: str) -> str:
    """Numbers and units as plain text has them: `1,200 cm^2` of `1{,}200\\,\\text{cm}^2`."""
    text = re.sub(r"(?<=[0-9])(?:\{,\}|,?\\[,!])(?=[0-9]{3}(?![0-9]))", ",", text)
    text = re.sub(UNIT_IN_BRACES, lambda unit: " " + unit[1].replace("~", " "), text)
    text = re.sub(r"\s*\^?\{?\s*\\(?:circ|degree)\s*\}?", "°", text)
    text = re.sub(r"(?<=[a-zA-Z])\s*/\s*(?=[a-zA-Z])", "/", text)
    text = text.replace("\\$", "$").replace("²", "^2").replace("³", "^3")
    return " ".join(re.sub(r"\\[,;:! ]", " ", text).split())


def as_latex(formula: str) -> str:
    """A formula with its signs as LaTeX has them: `2\\sqrt{3}` of `2√3` and `2 sqrt(3)`."""
    formula = formula.translate(MATH_SIGNS)
    formula = re.sub(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi ", formula)
    root = r"(?:\\sqrt|(?<![a-zA-Z\\])sqrt|√)"
    formula = re.sub(rf"{root}\s*\(([^()]*)\)", r"\\sqrt{\1}", formula)
    return re.sub(r"√\s*([0-9]+(?:\.[0-9]+)?|[a-zA-Z])", r"\\sqrt{\1}", formula)


def without_blanks(formula: str) -> str:
    """The formula without blanks, but for those between digits."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", formula)


def is_legible(formula: str) -> bool:
    """Whether math-verify reads all of it. Words in braces, arrows and dots it passes over, and
    what follows a repeating decimal or a letter d: different formulas would be equal.
    """
    commands = set(re.findall(r"\\([a-zA-Z]+)", formula))
    return commands <= COMMANDS and not LOST.search(formula)


def split_unit(formula: str) -> tuple[str, str]:
    """A formula and the unit that stands behind it in braces: `2\\pi\\text{ cm}`."""
    match = TRAILING_UNIT.fullmatch(formula)
    if match is None or HEDGES.search(match[2]) or re.search(r"[^a-zA-Z/ ~]", match[2]):
        return formula, ""
    return match["formula"], _unit(match[2].replace("~", " ") + (match["power"] or ""))


def quantity(text: str, sentence: bool = False) -> Quantity | None:
    """The number that a text is: `5`, `1,200 km`, `x = 3/4`, `1 1/2`, `seven`, `12\\%`.

    With `sentence`, also the only number of a short sentence that does not hedge.
    """
    text = clean(text)
    if len(text) > MAX_QUANTITY_CHARS:
        return None
    text = without_latex(text)
    if word := FIRST_WORD.match(text):
        text = f"{WORDS[word[1].casefold()]}{text[word.end() :]}"
    match = QUANTITY.fullmatch(text)
    unit = (match["unit"] or "") if match else ""
    if match and not (HEDGES.search(unit) or SCALES.search(unit)):
        if VARIABLE.fullmatch(unit.strip()) or COUNT_WORD.search(unit):
            return None
        return _quantity(match["number"], match["below"], unit, match["name"], match["whole"])
    return _of_sentence(text) if sentence else None


def _of_sentence(text: str) -> Quantity | None:
    """The only number of a sentence: other digits, formulas and hedges rule it out."""
    is_prose = re.search(r"[a-zA-Z]{2,} [a-zA-Z]", text) and not re.search(r"[\\^]", text)
    if not is_prose or HEDGES.search(text) or SCALES.search(text):
        return None
    if not re.search("[0-9]", text):
        text = COUNT_WORD.sub(lambda word: str(WORDS[word[1].casefold()]), text)
    numbers = NUMBER_IN_SENTENCE.findall(text)
    if len(numbers) != 1 or re.search("[0-9]", text.replace(numbers[0], "", 1)):
        return None
    return _quantity(numbers[0])


def _quantity(
    number: str, below: str | None = None, unit: str = "", name: str | None = None, whole: str = ""
) -> Quantity | None:
    if below is not None and not int(below):
        return None
    value = Fraction(number.replace(",", "")) / (int(below) if below else 1)
    if whole:
        value = int(whole) + (-value if whole.startswith("-") else value)
    num_decimals = len(re.split("[eE]", number)[0].partition(".")[2])
    return Quantity(value, num_decimals, _unit(unit), (name or "").casefold())


def _unit(written: str) -> str:
    """One spelling for each unit: `cm2` for `cm^{2}` and `square centimeters`."""
    words = re.sub(r"[\\{}^]", "", written).casefold().split()
    power = POWERS.get(words[0], "") if len(words) > 1 else ""
    name = "".join(words[1:] if power else words)
    if name[:-1].isalpha() and name[-1:] in ("2", "3"):
        name, power = name[:-1], name[-1]
    if len(name) > 2 and name.isalpha():
        name = name.removesuffix("s")
    name = UNIT_SIGNS.get(name, name)
    return name + power if name else ""
