"""Sets on disk: the same tasks in the same order, in memory that does not grow."""

import json
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pyvision_rl.data import spool
from pyvision_rl.data.mixture import open_task_sets, read_mixture
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.data.spool import TaskSpool
from pyvision_rl.data.stream import TaskStream
from pyvision_rl.data.validate import validate_file
from pyvision_rl.errors import InputError
from pyvision_rl.types import Task

NUM_ROWS = 10_000


def row(number: int, **more: object) -> dict[str, object]:
    question = f"How many of the {number} things are there?" + " See above." * 20
    return {
        "id": number,
        "question": question,
        "answer": str(number),
        "image_path": "a.png",
    } | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    Image.new("RGB", (30, 30)).save(folder / "a.png")
    rows = [row(number, ability="x", rule="number") for number in range(NUM_ROWS)]
    with (folder / "large.jsonl").open("w") as lines:
        lines.writelines(json.dumps(values) + "\n" for values in rows)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "large.parquet", row_group_size=5000)
    return folder


@pytest.mark.parametrize("name", ["large.jsonl", "large.parquet"])
def test_a_set_on_disk_is_the_set(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_BYTES", 1000)
    tasks = read_tasks(folder / name)
    ((held, weight),) = [(part.tasks, part.weight) for part in open_task_sets(folder / name)]
    assert (len(held), weight) == (NUM_ROWS, 1.0)
    for place in (0, 1, 4999, -1):
        assert held[place] == tasks[place]
    assert held[10:13] == tasks[10:13]
    with pytest.raises(IndexError):
        held[NUM_ROWS]
    on_disk, in_memory = TaskStream(held, seed=3), TaskStream(tasks, seed=3)
    drawn = on_disk.next(500)
    assert drawn == in_memory.next(500)
    assert on_disk.state() == in_memory.state()
    resumed = TaskStream(open_task_sets(folder / name), seed=3)
    resumed.restore(on_disk.state())
    assert resumed.next(500) == in_memory.next(500)


@pytest.mark.parametrize("name", ["large.jsonl", "large.parquet"])
def test_memory_is_small_and_stays_flat(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As objects the tasks take 9 MB; on disk 8 bytes each, twice as much with the order."""
    monkeypatch.setattr(spool, "MEMORY_BYTES", 1000)
    tracemalloc.start()
    stream = TaskStream(open_task_sets(folder / name), seed=0)
    stream.next(100)
    stream.state()
    opened, peak = tracemalloc.get_traced_memory()
    assert opened < 40 * NUM_ROWS
    for _ in range(NUM_ROWS // 100):
        stream.next(100)
    later, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert later - opened < 50_000
    assert peak < 3_000_000


def test_bad_rows_of_a_large_file_are_named(folder: Path, tmp_path: Path) -> None:
    path = folder / "bad.jsonl"
    lines = [json.dumps(row(number)) for number in range(50)]
    for place, value, message in (
        (30, row(7), r"row 30 \(line 31\): id = '7': already the id of row 7$"),
        (40, row(40, answer=""), r"row 40 \(line 41\): answer = '': must not be empty$"),
    ):
        path.write_text("\n".join([*lines[:place], json.dumps(value), *lines[place + 1 :]]))
        with pytest.raises(InputError, match=message):
            open_task_sets(path)
        (problem,) = validate_file(path).problems
        assert str(problem).startswith(f"{path}: row {place} ")


def test_a_mixture(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text("\n".join(json.dumps(row(n)) for n in range(3)))
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(
        f"- {{data: few.jsonl, image_root: {folder}, weight: 3}}\n- data: {folder}/large.jsonl\n"
    )
    few, large = open_task_sets(mixture)
    assert (len(few.tasks), few.weight, few.tasks[0].images) == (3, 3.0, (folder / "a.png",))
    drawn = TaskStream([few, large], seed=0).next(400)
    assert sum("See" in task.question and int(task.id) < 3 for task in drawn) >= 300
    report = validate_file(mixture)
    assert (report.ok, report.num_rows) == (True, NUM_ROWS + 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: a.json", "not a mixture (Expected `array`, got `object`)"),
        ("[]", "not a mixture (lists no data)"),
        ("- {data: a.json, wieght: 2}", "unknown field `wieght` - at `$[0]`)"),
        ("- {weight: 2}", "missing required field `data` - at `$[0]`)"),
        ("- {data: a.json, weight: 0}", "weight 0.0 of a.json; must be above 0"),
        ("- {data: [", "not a mixture (while parsing"),
    ],
)
def test_what_is_no_mixture(tmp_path: Path, text: str, message: str) -> None:
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(text)
    with pytest.raises(InputError) as caught:
        read_mixture(mixture)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{mixture}: ")
    assert "\n" not in str(caught.value)
    assert not validate_file(mixture).ok


def test_paths_of_every_kind_come_back() -> None:
    task = Task("ü", "?", "!", (Path("a b.png"), Path("/c.png")), (Path("d.mp4"),), rule="set")
    assert list(TaskSpool([task, task])) == [task, task]
