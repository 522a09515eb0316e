"""Bounded text: what a cell prints is kept as a head and a tail, in constant memory, with a count
of the rest.
"""

from __future__ import annotations

import io

NOTICE_CHARS = 64
"""Most that the count of what was cut adds to a bounded text."""


def clean_text(text: str) -> str:
    """`text` with lone surrogates and NUL replaced, so that it encodes as UTF-8 everywhere."""
    return (
        text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


class BoundedText:
    """Keeps the first and the last `max_chars // 2` characters written."""

    def __init__(self, max_chars: int) -> None:
        self._half = max_chars // 2
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._head: list[str] = []
        self._room = self._half
        self._tail: list[str] = []
        self._tail_chars = 0
        self._total = 0

    def write(self, text: str) -> None:
        """Append, dropping from the middle."""
        self._total += len(text)
        if self._room:
            head, text = text[: self._room], text[self._room :]
            self._head.append(head)
            self._room -= len(head)
        if text:
            text = text[-self._half :]
            self._tail.append(text)
            self._tail_chars += len(text)
            if self._tail_chars > 4 * self._half:
                self._squeeze()

    @property
    def at_line_start(self) -> bool:
        """Whether nothing was written, or a whole line."""
        last = (self._tail or self._head or ["\n"])[-1]
        return last.endswith("\n")

    def skip(self, num_chars: int) -> None:
        """Count `num_chars` as written and cut."""
        self._total += num_chars
        self._room = 0

    def _squeeze(self) -> None:
        tail = "".join(self._tail)[-self._half :]
        self._tail, self._tail_chars = [tail], len(tail)

    def text(self) -> str:
        """Head, the count of what was cut where something was, tail."""
        self._squeeze()
        head = "".join(self._head)
        cut = self._total - len(head) - self._tail_chars
        middle = f"\n[... {cut} characters cut ...]\n" if cut else ""
        return head + middle + "".join(self._tail)


class CapturedStream(io.TextIOBase):
    """`sys.stdout` and `sys.stderr` of a cell: text goes to a `BoundedText`, in the order
    written.
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, sink: BoundedText, descriptor: int) -> None:
        self._sink = sink
        self._descriptor = descriptor
        self.buffer = _Bytes(sink)

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The process's own descriptor, for C libraries that write there."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Keep `text` within the bound."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._sink.write(text)
        return len(text)


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, sink: BoundedText) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # pyrefly: ignore[bad-argument-type]
        self._sink.write(bytes(view).decode("utf-8", "replace"))
        return len(view)
