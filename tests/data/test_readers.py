"""Every layout becomes the same Task; every bad row becomes one line with file, row and value."""

import json
import math
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pyvision_rl.data.readers import read_tasks
from pyvision_rl.data.rows import iter_rows, write_rows
from pyvision_rl.errors import InputError
from pyvision_rl.types import Task

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (30, 30)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "clip.mp4").write_bytes(b"not read here")
    return tmp_path


def plain(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "id": "q1",
        "question": "How many?",
        "answer": "4",
        "ability": "counting",
        "data_source": "mine",
        "image_path": "images/a.png",
    }
    row |= changes
    return {name: value for name, value in row.items() if value is not ...}


def released(**changes: object) -> dict[str, object]:
    return {
        "prompt": [{"role": "user", "content": "<image>\nWhat colour is it?"}],
        "data_source": "deepeyes",
        "ability": "search",
        "env_name": "pyvision_gym_w_image_hint",
        "reward_model": {"ground_truth": "A", "style": "model"},
        "extra_info": {"answer": "A", "index": 17, "question": "x", "split": "train"},
        "mm_hint": {"hint_path": "images/a.png", "hint_type": "image"},
    } | changes


def write(folder: Path, *rows: object) -> Path:
    path = folder / "tasks.json"
    path.write_text(json.dumps(rows))
    return path


def error_of(path: Path, image_root: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_tasks(path, image_root=image_root)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_validation_row(folder: Path) -> None:
    assert read_tasks(write(folder, plain())) == [
        Task(
            id="q1",
            question="How many?",
            answer="4",
            images=(folder / "images" / "a.png",),
            source="mine",
            ability="counting",
        )
    ]


def test_released_rl_row(folder: Path) -> None:
    assert read_tasks(write(folder, released())) == [
        Task(
            id="0",
            question="What colour is it?",
            answer="A",
            images=(folder / "images" / "a.png",),
            source="deepeyes",
            ability="search",
        )
    ]


def test_released_rl_row_with_a_video(folder: Path) -> None:
    row = released(
        prompt=[
            {"role": "system", "content": "Be good."},
            {"role": "user", "content": "How long?"},
        ],
        mm_hint={"hint_path": "clip.mp4", "hint_type": "video"},
    )
    (task,) = read_tasks(write(folder, row))
    assert task.images == ()
    assert task.videos == (folder / "clip.mp4",)
    assert task.question == "How long?"


def test_json_jsonl_and_parquet_give_the_same_tasks(folder: Path) -> None:
    rows = [
        plain(image_path=..., images_path=["images/a.png", "images/b.png"]),
        plain(id="q2", image_path=..., videos_path=["clip.mp4"], ability=...),
    ]
    expected = read_tasks(write(folder, *rows))
    lines = folder / "tasks.jsonl"
    lines.write_text("\n\n".join(json.dumps(row) for row in rows))
    table = folder / "tasks.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    assert expected[0].images == (folder / "images/a.png", folder / "images/b.png")
    assert expected[1].videos == (folder / "clip.mp4",)
    assert read_tasks(lines) == expected
    # A table has all columns in every row; those of the other kind hold nulls.
    names = {name for row in rows for name in row}
    full = [{name: row.get(name) for name in names} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(full), table)
    assert read_tasks(table) == expected


def test_images_as_bytes_are_refused_without_showing_them(folder: Path) -> None:
    table = folder / "tasks.parquet"
    image = {"bytes": b"x" * 100_000, "path": None}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([plain(image_path=image)]), table)
    expected = "'bytes': <100000 bytes>, 'path': None}: must be a path or a list of paths"
    assert expected in error_of(table)


def test_image_root_and_limit(folder: Path) -> None:
    rows = [plain(id=index, image_path="a.png") for index in range(5)]
    rows[3]["image_path"] = "missing.png"
    path = write(folder, *rows)
    tasks = read_tasks(path, image_root=folder / "images", limit=3)
    assert [task.id for task in tasks] == ["0", "1", "2"]
    absolute = plain(image_path=str(folder / "images/b.png"))
    assert read_tasks(write(folder, absolute), image_root="/nowhere")[0].images[0].exists()


def test_a_file_name_that_is_not_unicode_is_refused(folder: Path) -> None:
    name = b"\xff.png"
    (folder / os.fsdecode(name)).write_bytes((folder / "images" / "a.png").read_bytes())
    path = write(folder, plain(image_path=os.fsdecode(name)))
    assert error_of(path).endswith("is not Unicode text: it holds half of a character")


def test_later_marks_become_names(folder: Path) -> None:
    images = ["images/a.png", "images/b.png"]
    question = "<image>\nIs it the same as in <image>?"
    (task,) = read_tasks(write(folder, plain(image_path=images, question=question)))
    assert task.question == "Is it the same as in <image_clue_1>?"
    question = "<image><image>\nAre they the same? <b>"
    (task,) = read_tasks(write(folder, plain(image_path=images, question=question)))
    assert task.question == "Are they the same? <b>"


def test_numbers_are_taken_as_text(folder: Path) -> None:
    (task,) = read_tasks(write(folder, plain(id=7, answer=2.5)))
    assert (task.id, task.answer) == ("7", "2.5")
    (task,) = read_tasks(write(folder, plain(answer=10**400)))
    assert task.answer == "1" + "0" * 400


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (plain(), "auto"),
        (plain(rule=None), "auto"),
        (plain(rule="set"), "set"),
        (released(), "auto"),
        (released(rule="mra"), "mra"),
        (released(rule="mra", reward_model={"ground_truth": "5", "rule": None}), "mra"),
        (released(reward_model={"ground_truth": "5", "style": "rule", "rule": "number"}), "number"),
    ],
)
def test_rows_may_declare_their_rule(folder: Path, row: dict[str, object], rule: str) -> None:
    (task,) = read_tasks(write(folder, row))
    assert task.rule == rule


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (plain(rule="iou"), ": row 1: rule = 'iou': no such rule; there are auto, choice, judge, "),
        (plain(rule=["set"]), ": row 1: rule = ['set']: no such rule; there are auto, "),
        (
            released(reward_model={"ground_truth": "5", "rule": "best"}),
            ": row 1: reward_model.rule = 'best': no such rule; there are auto, choice, judge, "
            "math, mra, number, sequence, set, text",
        ),
        (plain(answer=...), ": row 1: answer: missing; fields are ability, data_source, id, "),
        (plain(answer="  "), ": row 1: answer = '  ': must not be empty"),
        (plain(answer="\ud83d."), ": is not Unicode text: it holds half of a character"),
        (plain(answer=["a"]), ": row 1: answer = ['a']: must be text or a number"),
        (plain(answer=math.nan), ": row 1: answer = nan: must be text or a number"),
        (plain(answer=-math.inf), ": row 1: answer = -inf: must be text or a number"),
        (plain(image_path="a\n\x1b[2J.png"), "image_path = 'a\\n\\x1b[2J.png': no file "),
        (plain(image_path="a\ud83d.png"), "/a\\ud83d.png"),
        (plain(answer=True), ": row 1: answer = True: must be text or a number"),
        (plain(question=""), ": row 1: question = '': must not be empty"),
        (plain(question="<image>"), ": row 1: question = '<image>': has no text"),
        (plain(question="<image><image> x"), "2 <image> for 1 images; must be none or as many"),
        (plain(question="<video> x"), "1 <video> for 0 videos; must be none or as many"),
        (plain(image_path="no.png"), ": row 1: image_path = 'no.png': no file "),
        (plain(image_path="images"), "images is empty or not a file"),
        (plain(image_path="a\0b"), "image_path = 'a\\x00b': no file "),
        (plain(image_path=[3]), ": row 1: image_path = 3: must be a path or a list of paths"),
        (plain(image_path=...), ": names no media; use one of image_path, "),
        (plain(images_path=[]), ": row 1: images_path = []: give either image_path or images_path"),
        (plain(id="first"), ": row 1: id = 'first': already the id of row 0"),
        (released(prompt="hello"), ": row 1: prompt = 'hello': must be a list of {role, content}"),
        (released(prompt=[]), ": row 1: prompt = []: has no message of role 'user'"),
        (released(reward_model={}), ": row 1: reward_model.ground_truth = None: must be text"),
        (released(mm_hint={"hint_type": "audio"}), "mm_hint.hint_type = 'audio': must be 'image' "),
        (released(mm_hint=3), ": row 1: mm_hint = 3: must be an object"),
        ("row", ": row 1: 'row': a row must be an object"),
    ],
)
def test_bad_row_is_named(folder: Path, row: object, expected: str) -> None:
    assert expected in error_of(write(folder, plain(id="first"), row))


def test_empty_image_file(folder: Path) -> None:
    (folder / "images/a.png").write_bytes(b"")
    assert "a.png is empty or not a file" in error_of(write(folder, plain()))


def test_jsonl_names_the_line(folder: Path) -> None:
    path = folder / "tasks.jsonl"
    path.write_text(json.dumps(plain()) + "\n\n" + json.dumps(plain(id="q2", answer="")))
    assert error_of(path) == ": row 1 (line 3): answer = '': must not be empty"
    path.write_text(json.dumps(plain()) + '\n{"id": }\n')
    assert error_of(path) == ": row 1 (line 2): column 8: not json (Expecting value)"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"id": 1},\n {"id" 2}]', ": line 2, column 8: not json (Expecting ':' delimiter)"),
        (b'{"id": 1}\n{"id": 2}', "(Extra data); one object a line? Name it .jsonl"),
        (b'{"id": 1}', ": must hold a list of objects, not dict"),
        (b"", ": column 1: not json (Expecting value)"),
        (b'["\xff"]', ": byte 2: not UTF-8 text"),
        (b"[" * 100_000, ": nested too deeply to read"),
        (b"[" + b"1" * 5000 + b"]", ": not json (Exceeds the limit"),
    ],
)
def test_malformed_json(folder: Path, content: bytes, expected: str) -> None:
    path = folder / "tasks.json"
    path.write_bytes(content)
    assert expected in error_of(path)


def test_files_that_cannot_be_read(folder: Path) -> None:
    assert error_of(folder / "no.json") == ": no such file"
    (folder / "more.json").mkdir()
    assert error_of(folder / "more.json") == ": is a folder; name a file (.json, .jsonl, .parquet)"
    assert "unknown format '.csv'; use .json, .jsonl, .parquet" in error_of(folder / "tasks.csv")
    bad_text = pyarrow.array([b"\xff"]).cast(pyarrow.string(), safe=False)
    not_unicode = folder / "not_unicode.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": bad_text}), not_unicode)
    assert ": not a readable Parquet file ('utf-8' codec can't decode" in error_of(not_unicode)
    broken = folder / "broken.parquet"
    broken.write_bytes(b"PAR1 but no table")
    assert ": not a readable Parquet file (" in error_of(broken)


def test_long_values_are_shortened(folder: Path) -> None:
    assert len(error_of(write(folder, plain(image_path=["x" * 9000, 3])), image_root="i")) < 10000
    assert len(error_of(write(folder, plain(answer=list(range(9000)))))) < 200


@given(
    st.lists(
        st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-(2**53), 2**53), st.none()))
    )
)
def test_written_rows_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.json"
    write_rows(path, rows)
    assert [row.fields for row in iter_rows(path)] == rows


def test_a_failed_write_leaves_the_old_file(folder: Path) -> None:
    path = folder / "rows.json"
    write_rows(path, [{"a": 1}])
    with pytest.raises(TypeError):
        write_rows(path, [{"a": 2}, {"a": object()}])
    assert json.loads(path.read_text()) == [{"a": 1}]
    assert sorted(os.listdir(folder)) == ["clip.mp4", "images", "rows.json"]


@pytest.mark.skipif(not REAL_DATA.exists(), reason="no ../shared/data beside the repository")
def test_real_set() -> None:
    tasks = read_tasks(REAL_DATA / "vlms_are_blind" / "test.json")
    assert len(tasks) == 115
    assert all(task.images[0].is_file() for task in tasks)
    assert tasks[0].ability == "line_intersection"
