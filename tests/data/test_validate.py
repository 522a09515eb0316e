"""A report names every problem of a file, not only the first."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pyvision_rl.data.validate import validate_file
from tests.clips import encode

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    return tmp_path


def row(name: object, **changes: object) -> dict[str, object]:
    return {
        "id": name,
        "question": "How many?",
        "answer": "4",
        "ability": "counting",
        "data_source": "mine",
        "image_path": "a.png",
    } | changes


def write(folder: Path, *rows: object) -> Path:
    path = folder / "tasks.json"
    path.write_text(json.dumps(rows))
    return path


def test_a_good_file(folder: Path) -> None:
    report = validate_file(write(folder, row(1), row(2, data_source="other")), decode=True)
    assert report.ok
    assert (report.kind, report.num_rows, report.num_images) == ("tasks", 2, 2)
    assert report.sources == Counter(mine=1, other=1)
    assert report.abilities == Counter(counting=2)
    assert report.lines() == [
        f"{folder / 'tasks.json'}: 2 tasks, 2 images, 0 videos; 0 problems in 0 rows",
        "data_source: mine 1, other 1",
        "ability: counting 2",
    ]


def test_all_problems_are_named(folder: Path) -> None:
    path = write(
        folder,
        row("a"),
        row("a", answer="", question="<image><image> x", image_path=["no.png", "a.png", 3]),
        "row",
        row("b", question="x" * 100_001),
        row("c"),
    )
    report = validate_file(path)
    found = [(problem.row, problem.field) for problem in report.problems]
    assert sorted(found) == [
        (1, "answer"),
        (1, "id"),
        (1, "image_path"),
        (1, "image_path"),
        (2, ""),
        (3, "question"),
    ]
    assert (report.num_rows, report.num_bad_rows) == (5, 3)
    assert report.lines(max_problems=2)[2] == "... and 4 more problems"
    assert report.sources == Counter(mine=2)


def test_malformed_lines_do_not_hide_others(folder: Path) -> None:
    path = folder / "tasks.jsonl"
    good = json.dumps(row(1))
    path.write_text(f'{good}\n{{"id": }}\n{json.dumps(row(2, answer=""))}\n[1,\n')
    report = validate_file(path)
    assert [str(problem).removeprefix(f"{path}: ") for problem in report.problems] == [
        "row 1 (line 2): column 8: not json (Expecting value)",
        "row 2 (line 3): answer = '': must not be empty",
        "row 3 (line 4): column 4: not json (Expecting value)",
    ]
    assert (report.num_rows, report.num_bad_rows) == (4, 3)


def test_media_are_decoded_on_request(folder: Path) -> None:
    video = {"image_path": None, "video_path": "broken.mp4"}
    path = write(folder, row(1, image_path="broken.png"), row(2, **video), row(3))
    assert validate_file(path).ok
    report = validate_file(path, decode=True)
    assert [problem.row for problem in report.problems] == [0, 1]
    assert "broken.png'" in str(report.problems[0])
    assert "not a readable image" in str(report.problems[0])
    assert "not a readable video" in str(report.problems[1])


def test_videos_are_opened_on_request(folder: Path) -> None:
    encode(folder / "good.mp4", [4 * n for n in range(20)])
    whole = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    names = [["good.mp4", "good.mp4"], "cut.mp4", ["good.mp4", "a.png"]]
    rows = [row(n, image_path=None, videos_path=name) for n, name in enumerate(names)]
    report = validate_file(write(folder, *rows), decode=True)
    assert (report.num_videos, report.num_images) == (5, 0)
    (problem,) = map(str, report.problems)
    assert problem.startswith(f"{folder / 'tasks.json'}: row 1: '/")
    # a path is shown whole, up to 200 characters
    words = "cut.mp4': not a readable video (Invalid data found when processing input)"
    assert problem.endswith(words)


def test_videos_of_traces_are_opened_too(folder: Path) -> None:
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    path = write(folder, {"conversations": talk, "images": [], "videos": ["broken.mp4"]})
    assert validate_file(path).num_videos == 1
    (problem,) = validate_file(path, decode=True).problems
    assert "broken.mp4': not a readable video (Invalid data" in str(problem)


def test_traces_are_told_apart(folder: Path) -> None:
    talk = [{"role": "user", "content": "<image>x"}, {"role": "assistant", "content": "y"}]
    path = write(
        folder,
        {"conversations": talk, "images": ["a.png"], "source_dataset": "mmpr"},
        {"conversations": talk[:1], "images": []},
    )
    report = validate_file(path)
    assert (report.kind, report.num_rows, report.sources) == ("traces", 2, Counter(mmpr=1))
    assert [(problem.row, problem.field) for problem in report.problems] == [
        (1, "conversations"),
        (1, "images"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [("[]", "has no rows"), ("[", "column 2: not json (Expecting value)"), ("{}", "must hold a")],
)
def test_a_file_that_is_no_list_of_rows(folder: Path, content: str, expected: str) -> None:
    path = folder / "tasks.json"
    path.write_text(content)
    report = validate_file(path)
    assert [problem.row for problem in report.problems] == [None]
    assert str(report.problems[0]).startswith(f"{path}: {expected}")
    assert not validate_file(folder / "none.json").ok


def test_many_rows(folder: Path) -> None:
    rows = [row(number) for number in range(50_000)]
    rows[1234]["answer"] = " "
    rows[49_999]["image_path"] = "none.png"
    report = validate_file(write(folder, *rows))
    assert report.num_rows == 50_000
    assert [problem.row for problem in report.problems] == [1234, 49_999]


@pytest.mark.skipif(not REAL_DATA.exists(), reason="no ../shared/data beside the repository")
def test_real_set() -> None:
    report = validate_file(REAL_DATA / "vlms_are_blind" / "test.json", decode=True)
    assert report.ok
    assert report.num_images == 115
