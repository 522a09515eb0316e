"""Finished items on the disk, also where it is full."""

import asyncio
import resource

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.eval.store import ItemStore, read_items_file
from pyvision_rl.runs import RunFolder
from pyvision_rl.types import Group, Reward, Task
from tests.build import trajectory


def group(name: str) -> Group:
    return Group(Task(name, "q", "7"), (trajectory(),), (Reward(1.0, 0.0),))


def test_a_line_that_does_not_fit_leaves_no_half_of_itself(tmp_path, monkeypatch):
    with RunFolder.create(tmp_path / "run", "seed: 0\n") as run:
        # The trajectories would not fit either: only the lines are written here.
        monkeypatch.setattr(run, "write_groups", lambda *_: None)
        store = ItemStore(run, "eval")
        items = tmp_path / "run" / "items.jsonl"
        asyncio.run(store.add(group("a"), 1.0))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (items.stat().st_size + 20, before[1]))
        try:
            with pytest.raises(
                InputError, match=r"items\.jsonl: cannot be written: File too large"
            ):
                asyncio.run(store.add(group("b"), 1.0))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        asyncio.run(store.add(group("c"), 1.0))
    assert [record.id for record in read_items_file(items)] == ["a", "c"]
    assert store.done == {"a", "c"}
