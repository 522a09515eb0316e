"""Filters against a count by hand, and an index that keeps up with a run."""

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunFolder
from pyvision_rl.viewer.detail import find_neighbours, list_rows
from pyvision_rl.viewer.index import Ref
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.query import parse_query
from pyvision_rl.viewer.search import find_rows
from tests.runs.examples import records


@pytest.fixture
def run(tmp_path):
    """Four steps of two groups of three; an evaluation in step 2."""
    with RunFolder.create(tmp_path / "a", "seed: 0\n") as run:
        for step in range(4):
            run.log(step, {"reward/mean": step / 10})
            run.write_groups(step, "train", records(step))
        run.write_groups(2, "eval", records(2))
        yield run


@pytest.fixture
def index(run):
    return Library([run.path]).run("a")


def rows_of(index, query: dict[str, str]) -> list[dict]:
    return list_rows(index, find_rows(index, parse_query(query)).places)


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({}, lambda row: True),
        ({"phase": "eval"}, lambda row: row["phase"] == "eval"),
        ({"step": "2"}, lambda row: row["step"] == 2),
        ({"right": "yes"}, lambda row: row["accuracy"] == 1),
        ({"right": "no", "step": "0"}, lambda row: row["accuracy"] == 0 and row["step"] == 0),
        ({"stop": "max_tokens"}, lambda row: row["stop"] == "max_tokens"),
        ({"kept": "yes"}, lambda row: row["dropped"] is None),
        ({"kept": "no"}, lambda row: row["dropped"] is not None),
        ({"kept": "max_tokens"}, lambda row: row["dropped"] == "max_tokens"),
        ({"calls": "2"}, lambda row: row["num_tool_calls"] == 2),
        ({"calls": "1+"}, lambda row: row["num_tool_calls"] >= 1),
        ({"kind": "easy"}, lambda row: row["ability"] == "easy"),
        ({"source": "needle"}, lambda row: True),
        ({"task": "task-1-0"}, lambda row: row["task_id"] == "task-1-0"),
        ({"text": "TASK-3"}, lambda row: "task-3" in row["task_id"]),
        ({"text": "RÖD"}, lambda row: True),
        ({"text": ".*"}, lambda row: False),
    ],
)
def test_a_filter_keeps_exactly_what_fits(index, query, fits):
    rows = rows_of(index, query)
    expected = [row for row in index.table.to_pylist() if fits(row)]
    assert len(rows) == len(expected)
    assert all(map(fits, rows))


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("new", lambda row: (-row["step"], row["phase"], row["group"], row["index"])),
        ("reward", lambda row: -row["reward"]),
        ("slow", lambda row: -row["seconds"]),
    ],
)
def test_order(index, sort, key):
    rows = rows_of(index, {"sort": sort})
    assert list(map(key, rows)) == sorted(map(key, rows))


def test_neighbours_follow_the_query(index):
    query = parse_query({"phase": "train", "right": "yes", "sort": "old"})
    fit = find_rows(index, query)
    found = find_neighbours(index, fit, Ref("train", 1, 0, 1))
    assert (found.total, found.position) == (8, 2)
    assert found.previous == Ref("train", 0, 1, 1)
    assert found.next == Ref("train", 1, 1, 1)
    outside = find_neighbours(index, fit, Ref("train", 1, 0, 0))
    assert (outside.position, outside.previous, outside.next) == (None, None, None)


def test_new_steps_appear_and_dropped_ones_go(run):
    library = Library([run.path])
    assert library.state("a").num_trajectories == 30
    version = library.state("a").version
    run.write_groups(9, "train", records(9))
    run.log(9, {"reward/mean": 0.9})
    library.refresh()
    state = library.state("a")
    assert (state.num_trajectories, state.num_steps) == (36, 5)
    assert state.latest == {"reward/mean": 0.9}
    assert state.running
    assert state.version > version
    run.rewind()
    library.refresh()
    assert library.state("a").num_trajectories == 0


def write_small_run(folder):
    with RunFolder.create(folder, "seed: 0\n") as run:
        run.log(0, {"reward/mean": 0.0})


def test_runs_below_a_folder_are_found_as_they_appear(tmp_path):
    with pytest.raises(InputError, match="no run in or below"):
        Library([tmp_path])
    write_small_run(tmp_path / "all" / "one")
    library = Library([tmp_path])
    assert library.names == ("all/one",)
    write_small_run(tmp_path / "all" / "two")
    library.refresh()
    assert library.names == ("all/one", "all/two")


def test_a_run_without_steps_is_shown_where_it_is_alone(tmp_path):
    with RunFolder.create(tmp_path / "new", "seed: 0\n"):
        state = Library([tmp_path / "new"]).state("new")
    assert (state.num_steps, state.num_trajectories, state.running) == (0, 0, True)
