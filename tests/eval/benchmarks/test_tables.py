"""Files as downloaded become rows and image files, or one line that says what is wrong."""

import base64
import hashlib
import multiprocessing

import pytest
from PIL import Image

from pyvision_rl.data.rows import Row
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.eval.benchmarks.cells import ImageCache, ImageCells
from pyvision_rl.eval.benchmarks.hrbench import HRBENCH_4K
from pyvision_rl.eval.benchmarks.item import first_clusters, pick_scorer, read_items
from pyvision_rl.eval.benchmarks.registry import BENCHMARKS
from pyvision_rl.eval.benchmarks.tables import iter_table, split_name, table_files
from tests.eval.benchmarks.files import (
    as_json,
    base64_png,
    item,
    parquet,
    picture,
    png,
    scored,
    source,
    tsv,
)

HR_ROW = {
    "index": 0,
    "question": "What is the number on the boat?",
    "A": "1",
    "B": "2",
    "C": "3",
    "D": "4",
    "answer": "B",
    "category": "single",
    "cycle_category": "0",
}


def hr(tmp_path, **changes):
    rows = [{**HR_ROW, "image": base64_png(), **changes}]
    return source(tsv(tmp_path / "hr.tsv", rows))


def test_the_split_of_a_shard(tmp_path):
    names = {name: split_name(tmp_path / name) for name in ("test-00000-of-00012.parquet", "a.tsv")}
    assert list(names.values()) == ["test", "a"]


def test_a_folder_is_read_by_split(tmp_path):
    parquet(tmp_path / "data" / "hrbench_4k-00000-of-00002.parquet", [{"a": 1}])
    parquet(tmp_path / "data" / "hrbench_4k-00001-of-00002.parquet", [{"a": 2}])
    parquet(tmp_path / "data" / "hrbench_8k-00000-of-00001.parquet", [{"a": 3}])
    assert [row.fields["a"] for row in iter_table(tmp_path, "hrbench_4k")] == [1, 2]
    with pytest.raises(InputError, match=r"no split '2k'; there are hrbench_4k, hrbench_8k"):
        table_files(tmp_path, "2k")
    with pytest.raises(InputError, match="no such file or folder"):
        table_files(tmp_path / "nowhere")


def test_an_object_of_rows_keeps_its_keys(tmp_path):
    path = as_json(tmp_path / "t.json", {"a": {"x": 1}, "b": {"x": 2}})
    assert [row.fields for row in iter_table(path)] == [{"key": "a", "x": 1}, {"key": "b", "x": 2}]
    with pytest.raises(InputError, match=r"row 0.*must be an object"):
        list(iter_table(as_json(tmp_path / "u.json", {"a": 3})))


def test_embedded_images_become_files_named_by_content(tmp_path):
    cells = ImageCells(ImageCache(tmp_path / "cache"), tmp_path)
    wrapped = base64.encodebytes(png()).decode()
    cell_values = [
        wrapped,
        png(),
        {"bytes": png(), "path": None},
        f"data:image/png;base64,{base64_png()}",
    ]
    rows = [Row(tmp_path, at, None, {"image": value}) for at, value in enumerate(cell_values)]
    files = {cells.read(row, "image") for row in rows}
    name = hashlib.sha256(png()).hexdigest()[:32] + ".png"
    assert files == {(tmp_path / "cache" / name,)}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [name]
    assert Image.open(tmp_path / "cache" / name).size == (40, 40)


def test_images_that_cannot_be_written_are_not_called_broken(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cache.*: cannot be written"):
        read_items(HRBENCH_4K, hr(tmp_path))


def test_runs_that_begin_at_once_share_the_images(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)

    def store():
        barrier.wait()
        for size in range(1, 30):
            path = ImageCache(tmp_path).store(png(size=size))
            assert path is not None
            Image.open(path).load()

    processes = [context.Process(target=store) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 29


def test_references_paths_and_lists(tmp_path):
    cells = ImageCells(ImageCache(tmp_path / "cache"), tmp_path)
    there = picture(tmp_path / "images" / "a.png", "blue")
    first = cells.read(Row(tmp_path, 0, None, {"index": "7", "image": base64_png()}), "image")
    again = cells.read(Row(tmp_path, 1, None, {"index": "8", "image": "7"}), "image")
    path = cells.read(Row(tmp_path, 2, None, {"image": "images/a.png"}), "image")
    both = cells.read(
        Row(tmp_path, 3, None, {"image": f"['{base64_png()}', '{base64_png('blue')}']"}), "image"
    )
    assert again == first
    assert path == (there,)
    assert both[0] == first[0]
    assert both[1].read_bytes() == there.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": base64_png()[:-3] + "!"}, r"row 0.*image.*whole base64"),
        ({"image": base64.b64encode(b"x" * 90).decode()}, r"row 0.*no image that can be read"),
        # Text that could be a file's name, but for its length.
        ({"image": base64.b64encode(b"x" * 300).decode()}, r"row 0.*no image that can be read"),
        ({"image": base64.b64encode(png()[:-20]).decode()}, r"row 0.*no image that can be read"),
        ({"image": "12"}, r"row 0.*image = '12': neither the index of an earlier row nor a file"),
        ({"image": ""}, r"row 0.*image.*missing; fields are"),
        ({"image": "[]"}, r"row 0.*image = '\[\]': holds no image"),
        ({"answer": "E"}, r"row 0.*answer = 'E': must be one of A, B, C, D"),
        ({"answer": "2"}, r"row 0.*answer = '2': must be one of A, B, C, D"),
        ({"category": "both"}, r"row 0.*must be 'single' or 'cross'"),
        ({"cycle_category": ""}, r"row 0.*cycle_category: missing; fields are A, B, C"),
    ],
)
def test_one_clear_line_for_a_bad_row(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read_items(HRBENCH_4K, hr(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("written", ["b", "(B)", " B. ", "(b)"])
def test_a_letter_is_read_however_it_is_written(tmp_path, written):
    (one,) = read_items(HRBENCH_4K, hr(tmp_path, answer=written))
    assert one.task.answer == "B"


def test_letters_of_the_mathematical_sets_and_tir(tmp_path):
    image = base64_png()
    vision = {"index": 0, "question": "?", "choices": "['3', '4']", "answer": "b", "category": "k"}
    verse = {
        "index": 0,
        "problem_index": 1,
        "problem_version": "Vision Only",
        "question_type": "multi-choice",
        "answer": "c",
    }
    tir = {"key": {"task": "color", "prompt": "?", "answer": "d", "image_1": "a.png"}}
    picture(tmp_path / "a.png")
    files = {
        "mathvision": tsv(tmp_path / "vision.tsv", [{**vision, "image": image}]),
        "mathverse": tsv(tmp_path / "verse.tsv", [{**verse, "image": image}]),
        "tirbench": as_json(tmp_path / "tir.json", tir),
    }
    golds = {}
    for name, path in files.items():
        (one,) = read_items(BENCHMARKS[name], source(path))
        golds[name] = one.task.answer
    assert golds == {"mathvision": "B", "mathverse": "C", "tirbench": "D"}


def test_a_file_is_of_one_split(tmp_path):
    path = tsv(tmp_path / "hrbench_8k.tsv", [HR_ROW])
    assert table_files(path, "hrbench_8k") == [path]
    with pytest.raises(InputError, match=r"is of split 'hrbench_8k', not 'hrbench_4k'"):
        table_files(path, "hrbench_4k")


def test_formats_that_are_not_read_are_told_those_that_are(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    message = r"unknown format '\.csv'; use \.tsv, \.parquet, \.json, \.jsonl"
    with pytest.raises(InputError, match=message):
        list(iter_table(tmp_path / "t.csv"))


def test_a_row_with_more_cells_than_columns(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("index\tquestion\n0\tHow many?\t\n1\tHow\tmany?\n")
    rows = iter_table(path)
    assert next(rows).fields == {"index": "0", "question": "How many?"}
    with pytest.raises(
        InputError, match=r"row 1 \(line 3\): \['many\?'\]: more cells than columns"
    ):
        next(rows)


def test_a_table_of_another_benchmark(tmp_path):
    path = tsv(tmp_path / "x.tsv", [{"index": 1, "question": "q", "image": base64_png()}])
    for name, benchmark in BENCHMARKS.items():
        with pytest.raises(InputError, match=r"x\.tsv: row 0 .*(missing|holds no options)"):
            read_items(benchmark, source(path))
        assert benchmark.name == name


def test_no_items_at_all(tmp_path):
    with pytest.raises(ConfigError, match="holds no item of HR-Bench 4K"):
        read_items(HRBENCH_4K, source(as_json(tmp_path / "t.json", [])))


def test_a_protocol_that_a_benchmark_lacks():
    with pytest.raises(
        ConfigError, match="TIR-Bench has no protocol 'vlmevalkit'; there are paper, official, str"
    ):
        pick_scorer(BENCHMARKS["tirbench"], "vlmevalkit")


def test_a_limit_keeps_whole_clusters():
    members = [item(str(n), cluster=c) for n, c in enumerate("abcabcab")]  # a, b: 3, c: 2
    kept = {
        limit: "".join(i.cluster for i in first_clusters(members, limit)) for limit in (1, 6, 7)
    }
    assert kept == {1: "aaa", 6: "ababab", 7: "ababab"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_numbers_of_nothing(name):
    # Every sandbox was lost: the headline is still there, and says that it is about no item.
    lost = item("A", cluster="c", member="multi", labels={"key": "2steps_multi", "steps": "2"})
    for entries in ([], [scored(lost, None)]):
        found = {metric.name: metric for metric in BENCHMARKS[name].metrics(entries)}
        headline = found[BENCHMARKS[name].headline]
        assert (headline.value, headline.count, headline.ci95) == (0.0, 0, (0.0, 1.0))
