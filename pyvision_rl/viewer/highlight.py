"""Python as coloured pieces of plain text: the browser gets no markup."""

from __future__ import annotations

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, _TokenType

_CLASSES: tuple[tuple[_TokenType, str], ...] = (
    (Comment, "comment"),
    (Keyword, "keyword"),
    (String, "string"),
    (Number, "number"),
    (Name.Builtin, "builtin"),
    (Name.Function, "function"),
    (Name.Class, "function"),
    (Operator.Word, "keyword"),
)
_MAX_CHARS = 100_000
_LEXER = PythonLexer(ensurenl=False, stripnl=False)

Piece = tuple[str, str]
"""A style's name, empty for plain text, and the text."""


def highlight(code: str) -> tuple[Piece, ...]:
    """The code cut into pieces, which joined give it back; a very long one stays in one piece."""
    if len(code) > _MAX_CHARS:
        return (("", code),)
    pieces: list[Piece] = []
    for kind, text in _LEXER.get_tokens(code):
        style = next((name for parent, name in _CLASSES if kind in parent), "")
        if pieces and pieces[-1][0] == style:
            pieces[-1] = (style, pieces[-1][1] + text)
        else:
            pieces.append((style, text))
    return tuple(pieces)
