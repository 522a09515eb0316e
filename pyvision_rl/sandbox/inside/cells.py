"""The running of cells: one namespace, bounded text, figures, a time limit, errors told as the code
that made them would see them.
"""

from __future__ import annotations

import inspect
import io
import linecache
import os
import signal
import sys
import time
import traceback
import types
from types import FrameType
from typing import Any, NoReturn

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from pyvision_rl.sandbox.inside.figures import FigureCapture
from pyvision_rl.sandbox.inside.output import BoundedText, CapturedStream, clean_text
from pyvision_rl.sandbox.inside.seeds import Seeds
from pyvision_rl.sandbox.limits import Limits
from pyvision_rl.sandbox.memory import tidy

TIDY_AFTER_S = 0.01
"""A cell shorter than this leaves too little behind to be worth collecting."""

setitimer = signal.setitimer
set_handler = inspect.unwrap(signal.signal)
"""As they are now, whatever a cell puts in their place; and without the search for an enum member
that `signal.signal` makes of the last handler.
"""


class CellTimeout(BaseException):
    """Raised inside a cell by the alarm; a BaseException so that `except Exception` does not
    swallow it.
    """


def on_alarm(number: int, frame: FrameType | None) -> NoReturn:
    """Interrupt the cell."""
    raise CellTimeout


class Cells:
    """The namespace of a runtime and the running of one cell after the other in it. Made before the
    fork, opened in it.
    """

    def __init__(self, limits: Limits, seeds: Seeds) -> None:
        self._limits = limits
        self._seeds = seeds
        self._output = -1
        self._text = BoundedText(limits.max_text_chars)
        self._num_cells = 0
        self._module = types.ModuleType("__main__")
        names = self._module.__dict__
        names.update(np=np, numpy=np, plt=plt, Image=Image, matplotlib=matplotlib, io=io)
        names.update({name: sys.modules[name] for name in ("base64", "json", "math", "os", "sys")})
        figure_limits = (limits.max_figures, limits.max_figure_px)
        self._figures = FigureCapture(names, limits.figures, figure_limits)
        self._prepare()

    def _prepare(self) -> None:
        """Be ready for a cell, whatever the last one put in place of what it found."""
        self._text.clear()
        self._figures.begin()
        self._streams = CapturedStream(self._text, 1), CapturedStream(self._text, 2), io.StringIO()

    def open(self, seed: int, images: list[Image.Image], videos: list[int], output: int) -> None:
        """Bind what the runtime is given; `output` is the file behind descriptors 1 and 2."""
        self._output = output
        sys.modules["__main__"] = self._module
        names = self._module.__dict__
        names.update({f"image_clue_{k}": image for k, image in enumerate(images)})
        names.update(open_videos(videos))
        self._figures.next_index = len(images)
        self._seeds.plant(seed)

    def run(self, code: str) -> tuple[Any, str, list[Image.Image]]:
        """Kind, text and figures of one cell. Whatever it raises is part of the answer."""
        if self._num_cells:  # for the first one all is ready since before the fork
            self._prepare()
        self._num_cells += 1
        set_handler(signal.SIGALRM, on_alarm)
        sys.stdout, sys.stderr, sys.stdin = self._streams
        started = time.monotonic()
        kind, trace = "ok", ""
        try:
            try:
                setitimer(signal.ITIMER_REAL, self._limits.timeout_s)
                self._execute(code)
            finally:
                setitimer(signal.ITIMER_REAL, 0)
                sys.settrace(None)
        except CellTimeout as error:
            late = f"TimeoutError: the cell ran longer than {self._limits.timeout_s:g} s"
            kind, trace = "timeout", trim_traceback(error, late)
        except BaseException as error:  # noqa: BLE001 - the boundary: model code may raise anything
            kind, trace = "error", trim_traceback(error)
        text = self._collect(trace)
        images = self._figures.shown
        if time.monotonic() - started > TIDY_AFTER_S:
            tidy()
        return kind, text, images

    def _execute(self, code: str) -> None:
        name = f"<cell {self._num_cells}>"
        linecache.cache[name] = (len(code), None, (code + "\n").splitlines(keepends=True), name)
        exec(compile(code, name, "exec", dont_inherit=True), self._module.__dict__)

    def _collect(self, trace: str) -> str:
        text = self._text
        take_file(self._output, text, self._limits.max_text_chars)
        if self._figures.num_dropped:
            text.write(
                f"\n[{self._figures.num_dropped} more figures were shown: "
                f"at most {self._limits.max_figures} per cell are returned]\n"
            )
        if trace and not text.at_line_start:
            text.write("\n")
        text.write(trace)
        return clean_text(text.text())


def open_videos(descriptors: list[int]) -> dict[str, Any]:
    """`video_clue_k` for each descriptor, and the reader's own names as code written for decord
    uses them.
    """
    if not descriptors:
        return {}
    from pyvision_rl.sandbox import video

    readers = {f"video_clue_{k}": video.open_descriptor(fd) for k, fd in enumerate(descriptors)}
    return {"VideoReader": video.VideoReader, "cpu": video.cpu, **readers}


def trim_traceback(error: BaseException, last_line: str | None = None) -> str:
    """The traceback with only the frames of cells, chained causes included."""
    summary = traceback.TracebackException.from_exception(error, compact=True)
    pending, seen = [summary], set()
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        kept = [frame for frame in part.stack if frame.filename.startswith("<cell ")]
        part.stack = traceback.StackSummary.from_list(kept)
        pending += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or [])]
    lines = list(summary.format())
    if last_line is not None:
        lines[-1] = last_line + "\n"
    return "".join(lines).rstrip("\n")


def take_file(descriptor: int, sink: BoundedText, max_chars: int) -> None:
    """Move what C code or `os.write` put behind descriptors 1 and 2 into `sink`; empty the file."""
    try:
        size = os.fstat(descriptor).st_size
        if not size:
            return
        head = os.pread(descriptor, min(size, max_chars), 0)
        tail_bytes = min(max_chars, size - len(head))
        tail = os.pread(descriptor, tail_bytes, size - tail_bytes)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        return
    sink.write(head.decode("utf-8", "replace"))
    if cut := size - len(head) - len(tail):
        sink.skip(cut)
    sink.write(tail.decode("utf-8", "replace"))
