import itertools
from random import Random
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from pyvision_rl.data.needle import (
    KINDS,
    MAX_ITEMS,
    Look,
    NeedlePlan,
    Split,
    TraceTurn,
    item_seed,
    make_item,
    needed_looks,
    oracle_turns,
    trace_turns,
)
from pyvision_rl.data.needle_draw import (
    CELL_PX,
    COLOURS,
    GLYPHS,
    INITIALS,
    SMALL_DOT_PX,
    cell_of,
    crop_of,
    new_canvas,
    paint_tag,
)
from pyvision_rl.errors import InputError

TWO_LOOKS = NeedlePlan("two_looks", (Look("red", 3, 5), Look("cyan", 1, 2)), "7")


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_item(kind):
    first, again = make_item(11, kind), make_item(11, kind)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.tags, first.question, first.plan) == (again.tags, again.question, again.plan)
    assert make_item(12, kind).image.tobytes() != first.image.tobytes()


def test_kinds_of_one_seed_share_the_image():
    easy, two_looks = make_item(5, "easy"), make_item(5, "two_looks")
    assert np.array_equal(easy.image, two_looks.image)
    assert easy.plan.looks[0] != two_looks.plan.looks[0]


@pytest.mark.parametrize("seed", range(30))
def test_plan_leads_to_the_digit(seed):
    item = make_item(seed, "two_looks")
    asked, target = item.plan.looks
    tags = {tag.colour: tag for tag in item.tags}
    assert len(tags) == len(item.tags), "a colour names one tag"
    assert item.question == f"Which digit is on the {asked.colour} tag?"
    assert tags[asked.colour].glyph == target.colour[0].upper()
    assert tags[target.colour].glyph == item.plan.answer
    assert (tags[target.colour].row, tags[target.colour].column) == (target.row, target.column)


@pytest.mark.parametrize("kind", ["easy", "one_look"])
def test_digit_is_on_the_asked_tag(kind):
    for seed in range(30):
        item = make_item(seed, kind)
        (look,) = item.plan.looks
        (tag,) = [tag for tag in item.tags if tag.colour == look.colour]
        assert (tag.row, tag.column, tag.glyph) == (look.row, look.column, item.plan.answer)


def test_tag_colour_is_painted_in_its_cell():
    item = make_item(3, "one_look")
    for tag in item.tags:
        painted = (cell_of(item.image, tag.row, tag.column) == COLOURS[tag.colour]).all(-1)
        # A disc of radius 51 less the 64 x 64 plate: 8171 - 4096 = 4075 pixels.
        assert painted.sum() == pytest.approx(4075, abs=60)


def test_tag_stays_inside_its_cell_and_its_glyph_inside_the_middle_token():
    for seed in range(40):
        image = new_canvas(Random(0))
        untouched = image.copy()
        paint_tag(cell_of(image, 2, 2), "red", "8", SMALL_DOT_PX, Random(seed))
        changed = np.argwhere((image != untouched).any(-1))
        assert changed.min() > 2 * CELL_PX
        assert changed.max() < 3 * CELL_PX - 1
        black = np.argwhere((crop_of(image, 2, 2) == 0).all(-1))
        assert black.min() >= 28
        assert black.max() < 56


def test_glyphs_and_initials_are_distinct():
    assert len(set(GLYPHS)) == 18
    assert sorted(INITIALS.values()) == sorted(GLYPHS[10:])


def test_seeds_of_splits_are_disjoint():
    edges = [0, 1, MAX_ITEMS - 1]
    splits: tuple[Split, ...] = ("train", "test", "base")
    seeds = [
        item_seed(split, dataset_seed, index)
        for split in splits
        for dataset_seed, index in itertools.product(edges, edges)
    ]
    assert len(set(seeds)) == len(seeds)
    with pytest.raises(InputError, match=f"index {MAX_ITEMS} must be from 0"):
        item_seed("train", 0, MAX_ITEMS)


def test_needed_looks():
    assert [needed_looks(kind) for kind in KINDS] == [0, 1, 2]


def test_oracle_looks_twice_then_answers():
    first, second, answer = oracle_turns(TWO_LOOKS)
    assert first == (
        "red 3 5\n<code>\n```python\nx, y = 5*112, 3*112\n"
        "plt.imshow(image_clue_0.crop((x+14, y+14, x+98, y+98)))\nplt.show()\n```\n</code>"
    )
    assert second.startswith("cyan 1 2\n<code>")
    assert answer == "I see 7.\n<answer>\n\\boxed{7}\n</answer>"


def test_oracle_answers_easy_items_at_once():
    plan = NeedlePlan("easy", (Look("red", 3, 5),), "7")
    assert oracle_turns(plan) == ["red 3 5\nclear 7.\n<answer>\n\\boxed{7}\n</answer>"]


def test_oracle_code_crops_the_tag():
    item = make_item(8, "one_look")
    code = oracle_turns(item.plan)[0].split("```python\n")[1].split("```")[0]
    plot = Mock()
    exec(code, {"plt": plot, "image_clue_0": Image.fromarray(item.image)})
    (look,) = item.plan.looks
    shown = np.asarray(plot.imshow.call_args.args[0])
    assert np.array_equal(shown, crop_of(item.image, look.row, look.column))
    plot.show.assert_called_once_with()


@pytest.mark.parametrize(
    ("kind", "num_looks", "known"),
    [
        ("easy", 0, True),
        ("easy", 1, True),
        ("one_look", 0, False),
        ("one_look", 1, True),
        ("two_looks", 0, False),
        ("two_looks", 1, False),
        ("two_looks", 2, True),
        ("two_looks", 3, True),
    ],
)
def test_guessed_digits_are_hidden(kind, num_looks, known):
    looks = TWO_LOOKS.looks if kind == "two_looks" else TWO_LOOKS.looks[:1]
    *calls, answer = trace_turns(NeedlePlan(kind, looks, "7"), num_looks)
    assert [turn.hidden for turn in calls] == [()] * num_looks
    assert all(turn.look is not None for turn in calls)
    assert [answer.text[start:end] for start, end in answer.hidden] == ([] if known else ["7"])
    assert answer.text.index("7") in {start for start, _ in answer.hidden} or known


def test_further_looks_repeat_the_last():
    turns = trace_turns(TWO_LOOKS, 3)
    assert [turn.look for turn in turns] == [*TWO_LOOKS.looks, TWO_LOOKS.looks[1], None]
    assert isinstance(turns[0], TraceTurn)
