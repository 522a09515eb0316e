"""Streams: every task once an epoch, the mixture's shares in every batch, exact resumption."""

import json
import resource
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyvision_rl.data.media import load_image
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.data.rows import write_rows
from pyvision_rl.data.stream import TaskSet, TaskStream
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.types import Task


def tasks(count: int, prefix: str = "t") -> list[Task]:
    return [Task(f"{prefix}{number}", "?", "!") for number in range(count)]


def ids(drawn: list[Task]) -> list[str]:
    return [task.id for task in drawn]


def test_every_task_once_an_epoch_in_a_new_order() -> None:
    stream = TaskStream(tasks(20), seed=0)
    first, second = ids(stream.next(20)), ids(stream.next(20))
    assert sorted(first) == sorted(second) == sorted(ids(tasks(20)))
    assert len({tuple(first), tuple(second), tuple(ids(tasks(20)))}) == 3
    assert stream.epoch() == 2.0
    assert ids(TaskStream(tasks(20), seed=0).next(40)) == first + second
    assert ids(TaskStream(tasks(20), seed=1).next(20)) != first


@given(st.integers(1, 12), st.lists(st.integers(0, 9), max_size=6), st.integers(0, 30))
def test_batch_sizes_do_not_matter(size: int, batches: list[int], seed: int) -> None:
    stream = TaskStream(tasks(size), seed)
    cut = [task for count in batches for task in stream.next(count)]
    assert cut == TaskStream(tasks(size), seed).next(sum(batches))


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.1, 10)), min_size=1, max_size=4),
    st.integers(0, 50),
    st.integers(0, 50),
)
def test_resumed_stream_equals_uninterrupted(
    sets: list[tuple[int, float]], before: int, after: int
) -> None:
    def stream() -> TaskStream:
        mixture = [TaskSet(tasks(size, f"{at}/"), w) for at, (size, w) in enumerate(sets)]
        return TaskStream(mixture, seed=3)

    interrupted = stream()
    interrupted.next(before)
    resumed = stream()
    resumed.restore(interrupted.state())
    assert resumed.next(after) == stream().next(before + after)[before:]


def test_shares_hold_in_every_batch() -> None:
    stream = TaskStream([TaskSet(tasks(5, "a"), 3), TaskSet(tasks(50, "b"), 1)], seed=0)
    for _ in range(10):
        assert Counter(name[0] for name in ids(stream.next(8))) == {"a": 6, "b": 2}
    assert (stream.epoch(0), stream.epoch(1)) == (12.0, 0.4)


def test_sets_are_interleaved_evenly_and_shuffled_apart() -> None:
    sets = [TaskSet(tasks(8, "a"), 8), TaskSet(tasks(9, "b"), 1), TaskSet(tasks(9, "c"), 1)]
    stream = TaskStream(sets, seed=0)
    # after n of 10 tasks set a is due 0.8 n, the others 0.1 n: never off by a whole task
    order = "".join(name[0] for name in ids(stream.next(10)))
    assert order == "aaaabcaaaa"
    drawn = ids(stream.next(80))
    numbers = {kind: [name[1:] for name in drawn if name[0] == kind] for kind in "bc"}
    assert numbers["b"] != numbers["c"]


def test_saved_and_loaded(tmp_path: Path) -> None:
    stream = TaskStream(tasks(9), seed=4)
    stream.next(13)
    stream.save(tmp_path)
    other = TaskStream(tasks(9), seed=4)
    other.load(tmp_path)
    assert other.next(30) == stream.next(30)
    assert [path.name for path in tmp_path.iterdir()] == ["stream.json"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (TaskStream(tasks(9), seed=5), "seed = 5, but the saved stream has 4; only the same"),
        (TaskStream(tasks(8), seed=4), "tasks = .*8 tasks .*, but the saved stream has .*9 tasks"),
        (TaskStream(tasks(9, "u"), seed=4), "tasks = "),
        (TaskStream([TaskSet(tasks(9), 2)], seed=4), "weights = "),
    ],
)
def test_another_stream_is_not_resumed(tmp_path: Path, other: TaskStream, expected: str) -> None:
    TaskStream(tasks(9), seed=4).save(tmp_path)
    with pytest.raises(InputError, match=expected):
        other.load(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    stream = TaskStream(tasks(9), seed=4)
    with pytest.raises(InputError, match=r"stream.json: not a saved stream \(.*No such file"):
        stream.load(tmp_path)
    stream.save(tmp_path)
    path = tmp_path / "stream.json"
    saved = json.loads(path.read_text())
    for broken in ({**saved, "drawn": [-1]}, {**saved, "drawn": []}, {**saved, "drawn": "x"}, {}):
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=r"not a saved stream|must be a count for each set"):
            stream.load(tmp_path)


def test_memory_is_flat_over_a_long_run(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (1000, 1000), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [{"id": n, "question": "?", "answer": "!", "image_path": f"{n}.png"} for n in range(4)]
    write_rows(tmp_path / "tasks.json", rows)
    stream = TaskStream(read_tasks(tmp_path / "tasks.json"), seed=0)

    def look(count: int) -> int:
        for task in stream.next(count):
            load_image(task.images[0])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before_kb = look(20)
    # Each of these images takes 3 MB while it is held.
    assert look(60) - before_kb < 20_000


def test_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="set 0 has no tasks"):
        TaskStream([], seed=0)
    with pytest.raises(InputError, match="set 1 has no tasks"):
        TaskStream([TaskSet(tasks(1)), TaskSet([])], seed=0)
    with pytest.raises(ConfigError, match=r"weight 0 of set 0; must be > 0"):
        TaskStream([TaskSet(tasks(1), 0)], seed=0)
