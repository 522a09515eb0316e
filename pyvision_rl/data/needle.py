"""The embedded task, "needle": visual search in images of which the policy sees a small view.

An item's image has a few coloured tags. In the 168 x 168 view every tag can be found, but only
large digits can be read. Three kinds of question, told apart by what the asked tag holds:

* easy: a large digit; looking at the view is enough.
* one_look: a small digit; legible only in a crop that the policy's own code shows.
* two_looks: a small letter, the initial of another colour, whose tag holds the (small) digit.

One-look and two-look tags look the same in the view. Also here: the oracle, which knows where to
look, and what it writes in the cold-start traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from pyvision_rl.data.needle_draw import (
    CELL_PX,
    COLOURS,
    CROP_MARGIN_PX,
    GRID,
    INITIALS,
    LARGE_DOT_PX,
    SMALL_DOT_PX,
    Pixels,
    cell_of,
    new_canvas,
    paint_clutter,
    paint_tag,
)
from pyvision_rl.errors import InputError

Kind = Literal["easy", "one_look", "two_looks"]
KINDS: tuple[Kind, ...] = ("easy", "one_look", "two_looks")
Split = Literal["train", "test", "base"]

MAX_ITEMS = 2**20
"""Items a split may have, and seeds that a data set may have."""

_SPLIT_INDEX: dict[Split, int] = {"train": 0, "test": 1, "base": 2}
_DIGITS = "0123456789"
TAG_KINDS: tuple[tuple[Kind, ...], ...] = (
    ("easy", "one_look", "one_look", "two_looks"),
    ("easy", "one_look", "two_looks", "two_looks"),
    ("easy", "easy", "one_look", "two_looks"),
    ("easy", "one_look", "one_look", "two_looks", "two_looks"),
)
"""Sets of tags an item's image may have: each holds every kind, so that any may be asked."""
_NUM_CLUTTER = 5


@dataclass(frozen=True)
class Tag:
    """A coloured tag in a cell. `digit` is the answer to the question about it.

    `points_to` is the index of the tag that its letter names, None for a tag with a digit.
    """

    colour: str
    row: int
    column: int
    kind: Kind
    digit: str
    glyph: str
    points_to: int | None


@dataclass(frozen=True)
class Look:
    """A place worth looking at: the tag of this colour lies in this cell (counted from 0)."""

    colour: str
    row: int
    column: int


@dataclass(frozen=True)
class NeedlePlan:
    """All the oracle needs: the places in order, the first being the asked tag, and the answer."""

    kind: Kind
    looks: tuple[Look, ...]
    answer: str


@dataclass(frozen=True)
class NeedleItem:
    """One item as generated. `image` is [672, 672, 3] bytes."""

    seed: int
    image: Pixels
    tags: tuple[Tag, ...]
    question: str
    plan: NeedlePlan


@dataclass(frozen=True)
class TraceTurn:
    """One assistant turn of a trace, without its end-of-turn token.

    `hidden` holds character spans [start, end) that a trace cannot know, such as the digit of a
    guess: a token that touches one must not be trained on, or the policy unlearns to read.
    `look` is what the turn's code shows, None for an answer.
    """

    text: str
    hidden: tuple[tuple[int, int], ...] = ()
    look: Look | None = None


def needed_looks(kind: Kind) -> int:
    """How many crops the answer takes: 0, 1 or 2."""
    return KINDS.index(kind)


def item_seed(split: Split, dataset_seed: int, index: int) -> int:
    """Seed of an item. Splits, data sets and items never share one."""
    if not (0 <= dataset_seed < MAX_ITEMS and 0 <= index < MAX_ITEMS):
        raise InputError(
            f"needle: seed {dataset_seed} and index {index} must be from 0 to {MAX_ITEMS - 1}"
        )
    return (_SPLIT_INDEX[split] * MAX_ITEMS + dataset_seed) * MAX_ITEMS + index


def make_item(seed: int, kind: Kind) -> NeedleItem:
    """The item of this seed and kind; the image and its tags depend on the seed alone."""
    rng = Random(seed)
    image, tags = make_scene(rng)
    asked = rng.choice([tag for tag in tags if tag.kind == kind])
    looks = [Look(asked.colour, asked.row, asked.column)]
    if asked.points_to is not None:
        target = tags[asked.points_to]
        looks.append(Look(target.colour, target.row, target.column))
    plan = NeedlePlan(kind, tuple(looks), asked.digit)
    return NeedleItem(seed, image, tags, question_about(asked.colour), plan)


def question_about(colour: str) -> str:
    """The question of an item."""
    return f"Which digit is on the {colour} tag?"


def make_scene(
    rng: Random, tag_kinds: Sequence[tuple[Kind, ...]] = TAG_KINDS
) -> tuple[Pixels, tuple[Tag, ...]]:
    """An image and its tags, of one of the given sets of kinds (8 tags at most).

    A set that holds two_looks needs a one_look for its letters to point to.
    """
    image = new_canvas(rng)
    kinds = rng.choice(tag_kinds)
    cells = rng.sample(range(GRID * GRID), len(kinds) + _NUM_CLUTTER)
    for cell in cells[len(kinds) :]:
        paint_clutter(cell_of(image, *divmod(cell, GRID)), rng)
    colours = rng.sample(list(COLOURS), len(kinds))
    digits = [rng.choice(_DIGITS) for _ in kinds]
    with_digit = [index for index, kind in enumerate(kinds) if kind == "one_look"]
    tags = []
    for index, kind in enumerate(kinds):
        target = rng.choice(with_digit) if kind == "two_looks" else None
        digit = digits[index if target is None else target]
        glyph = digit if target is None else INITIALS[colours[target]]
        row, column = divmod(cells[index], GRID)
        dot_px = LARGE_DOT_PX if kind == "easy" else SMALL_DOT_PX
        paint_tag(cell_of(image, row, column), colours[index], glyph, dot_px, rng)
        tags.append(Tag(colours[index], row, column, kind, digit, glyph, target))
    return image, tuple(tags)


def locate_text(look: Look) -> str:
    """Where the tag is, in the words that every turn opens with: `red 3 5`."""
    return f"{look.colour} {look.row} {look.column}"


def crop_code(look: Look) -> str:
    """The Python that shows the middle of a cell at native resolution."""
    near, far = CROP_MARGIN_PX, CELL_PX - CROP_MARGIN_PX
    return (
        f"x, y = {look.column}*{CELL_PX}, {look.row}*{CELL_PX}\n"
        f"plt.imshow(image_clue_0.crop((x+{near}, y+{near}, x+{far}, y+{far})))\n"
        "plt.show()"
    )


def call_turn(look: Look) -> TraceTurn:
    """The turn that looks at a place."""
    text = f"{locate_text(look)}\n<code>\n```python\n{crop_code(look)}\n```\n</code>"
    return TraceTurn(text, look=look)


def answer_text(digit: str) -> str:
    """The final answer block."""
    return f"<answer>\n\\boxed{{{digit}}}\n</answer>"


def _answer_turn(reading: str, digit: str, known: bool) -> TraceTurn:
    start = len(reading) + 1
    hidden = () if known else ((start, start + len(digit)),)
    return TraceTurn(f"{reading} {digit}.\n{answer_text(digit)}", hidden)


def trace_turns(plan: NeedlePlan, num_looks: int) -> list[TraceTurn]:
    """The turns of a policy that looks `num_looks` times and then answers.

    Looks beyond those planned repeat the last one. Where they are too few to know the digit, the
    answer is written as a guess: its reading is hidden (the boxed copy of it is not).
    """
    places = [plan.looks[min(index, len(plan.looks) - 1)] for index in range(num_looks)]
    known = num_looks >= needed_looks(plan.kind)
    if not places:
        return [_answer_turn(f"{locate_text(plan.looks[0])}\nclear", plan.answer, known)]
    return [*map(call_turn, places), _answer_turn("I see", plan.answer, known)]


def oracle_turns(plan: NeedlePlan) -> list[str]:
    """Completions that solve the item with exactly the looks it needs."""
    return [turn.text for turn in trace_turns(plan, needed_looks(plan.kind))]
