"""Search in the turns: what is found, where it stands, and how a long search goes on."""

import pytest

from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.runs.records import record_path
from pyvision_rl.types import Group, Reward, StopReason, Task, Trajectory
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.query import parse_query
from pyvision_rl.viewer.said import fold
from pyvision_rl.viewer.search import find_excerpts, find_rows, read_ahead
from tests.viewer.odd import call, opening, turn

LOOK = turn(call("crop(RED_BOX)", "I Look at the tag."), "crop(RED_BOX)", "size: 40\n\u0130STANBUL")
FAIL = turn(call("print(gone)", "Maybe\0here."), "print(gone)", "NameError: gone")
DONE = turn("It says \u00c4PFEL.\n<answer>seven</answer>", None, "")
SAID = {(0, 0): (LOOK, DONE), (0, 1): (DONE,), (1, 0): (FAIL, LOOK, DONE), (1, 1): (FAIL,)}
"""Two groups of two trajectories, the same in each of three steps."""


def records() -> list[GroupRecord]:
    found = []
    for group in range(2):
        task = Task(f"task-{group}", "What does the tag say?", "seven")
        played = tuple(
            Trajectory(task, opening(task), SAID[group, index], StopReason.ANSWERED, "seven")
            for index in range(2)
        )
        found.append(GroupRecord(Group(task, played, (Reward(1.0, 0.0), Reward(0.0, 0.0)))))
    return found


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "a", "seed: 0\n") as run:
        for step in range(3):
            run.write_groups(step, "train", records())
        yield run


@pytest.fixture
def index(run):
    return Library([run.path]).run("a")


def found(index, **query: str) -> list[tuple[int, int, int]]:
    rows = index.table.take(find_rows(index, parse_query({"sort": "old", **query})).places)
    return [(row["step"], row["group"], row["index"]) for row in rows.to_pylist()]


@pytest.mark.parametrize(
    ("text", "part", "fits"),
    [
        ("look at", "", [(0, 0), (1, 0)]),
        ("look at", "thought", [(0, 0), (1, 0)]),
        ("look at", "code", []),
        ("red_box", "code", [(0, 0), (1, 0)]),
        ("red_box", "thought", []),
        ("RED_BOX", "output", []),
        ("nameerror", "output", [(1, 0), (1, 1)]),
        ("i\u0307stanbul", "output", []),
        ("istanbul", "output", [(0, 0), (1, 0)]),
        ("\u00e4pfel", "", [(0, 0), (0, 1), (1, 0)]),
        ("Text Result", "", []),
        ("```", "", []),
        ("say", "", [*SAID]),
        ("what does", "task", [*SAID]),
        ("what does", "thought", []),
        ("maybe here", "thought", [(1, 0), (1, 1)]),
        ("tag.\0I", "", []),
        ("tag.I", "", []),
    ],
)
def test_what_a_search_finds(index, text, part, fits):
    assert found(index, text=text, part=part) == [
        (step, *place) for step in range(3) for place in fits
    ]


def test_other_conditions_hold_too(index):
    assert found(index, text="crop", step="1", right="yes") == [(1, 0, 0), (1, 1, 0)]
    assert found(index, text="crop", right="no") == []


def test_an_excerpt_is_the_first_place_as_it_was_written(index):
    query = parse_query({"text": "RED_box", "sort": "old"})
    fit = find_rows(index, query)
    first, second = find_excerpts(index, query, fit.places)[:2]
    assert first
    assert second
    assert (first.turn, first.part) == (0, "code")
    assert (first.before, first.hit, first.after) == ("crop(", "RED_BOX", ")")
    assert second.turn == 1


def test_without_time_a_search_goes_on_where_it_stopped(index):
    """Newest steps first, as they are listed."""
    query = parse_query({"text": "crop"})
    fit = find_rows(index, query, budget_s=0)
    assert (fit.searched.done, fit.searched.total, len(fit.places)) == (0, 3, 0)
    whole = find_rows(index, query)
    again = find_rows(index, query, budget_s=0)
    assert (again.searched.done, len(again.places)) == (3, len(whole.places)) == (3, 6)


def test_texts_are_read_ahead_of_a_search(index):
    assert (read_ahead(index, 0).done, read_ahead(index, 0).total) == (0, 3)
    assert read_ahead(index, 60).done == 3
    assert find_rows(index, parse_query({"text": "crop"}), 0).searched.done == 0, (
        "none searched yet"
    )
    assert len(found(index, text="crop")) == 6


def test_steps_that_other_conditions_leave_out_are_not_searched(index):
    assert find_rows(index, parse_query({"text": "crop", "step": "2"})).searched.total == 1
    assert find_rows(index, parse_query({"text": "say", "part": "task"})).searched.total == 0


def test_new_and_unreadable_steps(run):
    library = Library([run.path])
    index = library.run("a")
    assert len(found(index, text="crop")) == 6
    run.write_groups(3, "train", records())
    path = record_path(run.path, "turns", "train", 1)
    path.write_bytes(path.read_bytes()[:100])
    library.refresh()
    assert len(found(index, text="crop")) == 8, "what was read before needs no file any more"
    fresh = Library([run.path]).run("a")
    assert len(found(fresh, text="crop")) == 6
    assert find_rows(fresh, parse_query({"text": "crop"})).searched.unreadable == 1


@pytest.mark.parametrize("text", ["\u0130", "\u00c4\u1e9e\u03a3", "A\U00010400b", "plain"])
def test_folding_keeps_the_length(text):
    assert len(fold(text)) == len(text)
