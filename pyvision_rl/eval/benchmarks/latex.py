r"""Values of short LaTeX or plain arithmetic: `\frac{3\sqrt{2}}{4}`, `2^{10}`, `1/3`.

Knows numbers and operations only, no variables or units; bounded, so that no answer
can make it hang.
"""

from __future__ import annotations

import math
import re

MAX_CHARS = 200
MAX_EXPONENT = 64
TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[a-zA-Z]+|[-+*/^(){}]")
IGNORED = re.compile(
    r"\\left|\\right|\\[,;! ]|\\displaystyle|\$|\s"
    r"|(?<=\d),(?=\d{3})"
)
NAMES = {"\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cdot": "*", "\\times": "*", "\\div": "/"}
PLAIN = {
    "π": "\\pi",
    "√": "\\sqrt",
    "\N{MINUS SIGN}": "-",
    "\N{MULTIPLICATION SIGN}": "*",
    "sqrt": "\\sqrt",
    "pi": "\\pi",
}


def latex_value(text: str) -> float | None:
    """The value of an expression, None for anything that is not one."""
    if not text.strip() or len(text) > MAX_CHARS:
        return None
    try:
        parser = _Parser(_tokens(text))
        value = parser.sum()
    except (ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
    return value if not parser.left and math.isfinite(value) else None


def _tokens(text: str) -> list[str]:
    for written, meant in PLAIN.items():
        text = re.sub(rf"(?<![\\a-z]){re.escape(written)}", lambda _, name=meant: name, text)
    text = IGNORED.sub("", text)
    tokens = TOKEN.findall(text)
    if "".join(tokens) != text:
        raise ValueError(text)
    return [NAMES.get(token, token) for token in tokens]


class _Parser:
    """Recursive descent; a product needs no sign between its factors."""

    def __init__(self, tokens: list[str]) -> None:
        self.left = tokens[::-1]

    def peek(self) -> str:
        return self.left[-1] if self.left else ""

    def take(self, wanted: str = "") -> str:
        if not self.left or (wanted and self.left[-1] != wanted):
            raise ValueError(wanted)
        return self.left.pop()

    def sum(self) -> float:
        value = self.product()
        while self.peek() in ("+", "-"):
            value += self.product() if self.take() == "+" else -self.product()
        return value

    def product(self) -> float:
        sign = 1.0
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        value = sign * self.power()
        while self.left and self.peek() not in ("+", "-", ")", "}"):
            if self.peek() == "/":
                self.take()
                value /= self.power()
            else:
                if self.peek() == "*":
                    self.take()
                value *= self.power()
        return value

    def power(self) -> float:
        value = self.atom()
        if self.peek() != "^":
            return value
        self.take()
        sign = -1.0 if self.peek() == "-" and self.take() else 1.0
        exponent = sign * self.atom()
        if abs(exponent) > MAX_EXPONENT or (value < 0 and exponent % 1):
            raise ValueError(exponent)
        return float(value**exponent)

    def atom(self) -> float:
        token = self.take()
        if token in ("(", "{"):
            value = self.sum()
            self.take(")" if token == "(" else "}")
            return value
        if token == "\\frac":
            return self.atom_or_digit() / self.atom_or_digit()
        if token == "\\sqrt":
            return math.sqrt(self.atom())
        return math.pi if token == "\\pi" else float(token)

    def atom_or_digit(self) -> float:
        r"""An argument of `\frac`, which may be written as bare digits: `\frac12`."""
        token = self.peek()
        if token.isdecimal() and len(token) > 1:
            self.left[-1:] = [token[1:], token[0]]
        return self.atom()
