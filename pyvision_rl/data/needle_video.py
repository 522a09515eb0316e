"""The embedded video task, "needle-video": visual search in clips that the policy fetches itself.

A clip has 144 frames, each with a place in a 6 x 6 grid of time that its background colour tells.
Coloured tags appear for two to four frames each; the asked digit is legible in those frames only.
A contact sheet of every fourth frame shows where a tag is, as the view of a needle image does.
Two kinds of question, told apart by when the asked tag appears:

* on_sheet: one of its frames is on the first sheet, which starts at frame 2.
* between: it appears between the frames of that sheet; the one that starts at frame 0 has it.

Also here: the oracle, which knows when to look, and what it writes in the cold-start traces.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np

from pyvision_rl.data.needle import TraceTurn, answer_text, question_about
from pyvision_rl.data.needle_draw import (
    CELL_PX,
    COLOURS,
    CROP_MARGIN_PX,
    GRID,
    SMALL_DOT_PX,
    Pixels,
    cell_of,
    new_canvas,
    paint_clutter,
    paint_tag,
)

ClipKind = Literal["on_sheet", "between"]
CLIP_KINDS: tuple[ClipKind, ...] = ("on_sheet", "between")

STRIDE = 4
"""Frames from one on a sheet to the next."""
NUM_FRAMES = STRIDE * GRID**2
OFFSETS = (STRIDE // 2, 0)
"""Where the two sheets start: together they show every tag. The first has the middle frame of each
of 36 equal parts, as a uniform context of so many frames does."""
FPS = 12

_DIGITS = "0123456789"
_NUM_TAGS = (4, 4, 4, 5)
_NUM_CLUTTER = 5
_LENGTHS = (2, 3, 4)
_LENGTH_WEIGHTS = (5, 3, 2)


@dataclass(frozen=True)
class Event:
    """A coloured tag with a digit that shows in frames [first, end).

    The one that is asked for is all the oracle needs to know.
    """

    colour: str
    digit: str
    first: int
    end: int

    def frame_on(self, offset: int) -> int | None:
        """The frame of this event on the sheet that starts at `offset`, None where none is."""
        number = self.first + (offset - self.first) % STRIDE
        return number if number < self.end else None

    @property
    def kind(self) -> ClipKind:
        """Whether the first sheet has it."""
        return "between" if self.frame_on(OFFSETS[0]) is None else "on_sheet"


@dataclass(frozen=True)
class Clip:
    """One item as generated. `frames` is [144, 112, 112, 3] bytes, before any compression."""

    seed: int
    frames: Pixels
    events: tuple[Event, ...]
    asked: Event

    @property
    def question(self) -> str:
        """The question of the item."""
        return question_about(self.asked.colour)


def make_clip(seed: int) -> Clip:
    """The clip of this seed."""
    rng = Random(seed)
    canvas = new_canvas(rng)
    places = [cell_of(canvas, *divmod(slot, GRID)) for slot in range(GRID * GRID)]
    frames = np.repeat(np.stack(places), STRIDE, axis=0)
    num_tags = rng.choice(_NUM_TAGS)
    spans = _draw_spans(rng, num_tags + _NUM_CLUTTER)
    for first, end in spans[num_tags:]:
        _paint_clutter(frames[first:end], rng)
    colours = rng.sample(list(COLOURS), num_tags)
    events = []
    for colour, (first, end) in zip(colours, spans[:num_tags], strict=True):
        digit = rng.choice(_DIGITS)
        for frame in frames[first:end]:
            paint_tag(frame, colour, digit, SMALL_DOT_PX, rng)
        events.append(Event(colour, digit, first, end))
    return Clip(seed, frames, tuple(events), rng.choice(events))


def _draw_spans(rng: Random, num: int) -> list[tuple[int, int]]:
    """Spans of frames of which no two meet; each starts anywhere."""
    spans: list[tuple[int, int]] = []
    while len(spans) < num:
        (length,) = rng.choices(_LENGTHS, _LENGTH_WEIGHTS)
        first = rng.randrange(NUM_FRAMES - length + 1)
        if all(first >= end or first + length <= start for start, end in spans):
            spans.append((first, first + length))
    return spans


def _paint_clutter(frames: Pixels, rng: Random) -> None:
    seed = rng.random()
    for frame in frames:
        paint_clutter(frame, Random(seed))


def needed_looks(kind: ClipKind) -> int:
    """How many calls the answer takes: the sheets up to the one that has the tag, and its frame."""
    return 2 + CLIP_KINDS.index(kind)


def sheet_code(offset: int) -> str:
    """The Python that shows every fourth frame from `offset` on as a 6 x 6 sheet.

    One sheet is 672 x 672 pixels; the policy sees it at a quarter of that.
    """
    shape = f"{GRID}, {GRID}, {CELL_PX}, {CELL_PX}, 3"
    return (
        f"s = {offset}\n"
        f"plt.imshow(np.hstack(np.hstack(video_clue_0[s::{STRIDE}].reshape({shape}))))\n"
        "plt.show()"
    )


def frame_code(row: int, column: int) -> str:
    """The Python that shows the middle of the frame in this cell of the last sheet."""
    near, far = CROP_MARGIN_PX, CELL_PX - CROP_MARGIN_PX
    middle = f"{near}:{far}"
    return (
        f"x, y = {column}, {row}\n"
        f"plt.imshow(video_clue_0[s + {STRIDE}*(x + {GRID}*y)][{middle}, {middle}])\n"
        "plt.show()"
    )


def _call(lead: str, code: str) -> TraceTurn:
    return TraceTurn(f"{lead}\n<code>\n```python\n{code}\n```\n</code>")


def _place(event: Event, offset: int) -> str:
    """What a sheet says about the event: `red 3 5`, its row and column, or `red none`."""
    number = event.frame_on(offset)
    if number is None:
        return f"{event.colour} none"
    row, column = divmod(number // STRIDE, GRID)
    return f"{event.colour} {row} {column}"


def _calls(event: Event) -> list[TraceTurn]:
    """The calls that lead to the digit: sheets until one has the tag, then its frame."""
    calls = []
    lead = event.colour
    for offset in OFFSETS:
        calls.append(_call(lead, sheet_code(offset)))
        lead = _place(event, offset)
        if (number := event.frame_on(offset)) is not None:
            calls.append(_call(lead, frame_code(*divmod(number // STRIDE, GRID))))
            break
    return calls


def clip_turns(event: Event, num_looks: int) -> list[TraceTurn]:
    """The turns of a policy that calls `num_looks` times, at most as often as needed, and answers.

    Where that is too few to know the digit, the answer is a guess and its reading hidden.
    """
    calls = _calls(event)
    if num_looks >= len(calls):
        text = f"I see {event.digit}.\n{answer_text(event.digit)}"
        return [*calls, TraceTurn(text)]
    lead = _place(event, OFFSETS[num_looks - 1]) if num_looks else event.colour
    reading = f"{lead}\nclear "
    text = f"{reading}{event.digit}.\n{answer_text(event.digit)}"
    # The token of the digit starts at the blank before it.
    return [*calls[:num_looks], TraceTurn(text, ((len(reading), len(reading) + 1),))]


def oracle_clip_turns(event: Event) -> list[str]:
    """Completions that answer with exactly the calls that it takes."""
    return [turn.text for turn in clip_turns(event, needed_looks(event.kind))]
