"""Trajectories about videos, played through the real sandbox: which frames, and where."""

from pathlib import Path

import pytest

from pyvision_rl.viewer.app import view_routes
from pyvision_rl.viewer.detail import view_trajectory
from pyvision_rl.viewer.export import export_page
from pyvision_rl.viewer.index import Ref
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.looks import Fetch
from pyvision_rl.viewer.query import parse_query
from tests.viewer.conftest import serving
from tests.viewer.make_video_run import CLIP, write_video_run

REAL_CLIP = Path(__file__).parents[3] / "shared/data/videos/bigbuckbunny.mp4"
SHEET = tuple(range(2, 144, 4))
ON_DEMAND, HYBRID, REAL = (Ref("train", step, 0, 0) for step in (1, 2, 3))


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    folder = tmp_path_factory.mktemp("video") / "clips"
    write_video_run(folder, REAL_CLIP if REAL_CLIP.is_file() else None)
    return Library([folder])


@pytest.fixture(scope="module")
def url(library):
    with serving(view_routes(library)) as address:
        yield address


@pytest.fixture
def shown_frame() -> int:
    """The frame that the oracle looks at after the sheet."""
    assert CLIP.asked.kind == "on_sheet"
    return next(frame for frame in SHEET if CLIP.asked.first <= frame < CLIP.asked.end)


def test_every_frame_that_was_fetched_is_known(library, shown_frame):
    view = view_trajectory(library.run("clips"), ON_DEMAND)
    assert view.row["accuracy"] == 1
    assert (view.videos[0].num_frames, view.videos[0].fps) == (144, 12)
    assert view.looks.fetches == (Fetch(0, 0, SHEET), Fetch(1, 0, (shown_frame,)))
    assert [len(turn.result.figures) for turn in view.turns if turn.result] == [1, 1]


def test_frames_of_the_prompt_come_first(library):
    """The middle of each quarter of 144 frames."""
    view = view_trajectory(library.run("clips"), HYBRID)
    assert view.videos[0].first_seen == (18, 54, 90, 126)
    assert [frame.name for frame in view.frames] == [f"image_clue_{k}" for k in range(4)]
    assert [turn.result.first_figure for turn in view.turns if turn.result] == [4, 5]


def test_the_page_marks_them_on_the_film(tab, url, shown_frame):
    tab.goto(f"{url}/#/t/clips/train/1/0/0")
    assert "144 frames, 0:12 \u00b7 37 fetched" in tab.text(".timeline .caption")
    lefts = tab.js(
        "[...document.querySelectorAll('.timeline .frame')].map((n) => parseFloat(n.style.left))"
    )
    expected = [100 * frame / 143 for frame in (*SHEET, shown_frame)]
    assert lefts == pytest.approx(expected, abs=0.001)
    tab.wait("document.querySelector('.film').naturalWidth === 8 * 96")
    tab.hover(".timeline .frame:last-child")
    tab.wait("document.querySelector('.peek img')?.naturalWidth === 112")
    assert f"turn 2: 0:{shown_frame // 12:02d}, frame {shown_frame}" in tab.text(".peek")
    tab.wait("[...document.querySelectorAll('.turn img')].every((image) => image.naturalWidth)")
    assert tab.texts(".figures code") == ["image_clue_0", "image_clue_1"]


def test_the_page_shows_the_frames_of_the_prompt(tab, url):
    tab.goto(f"{url}/#/t/clips/train/2/0/0")
    assert "37 fetched, 4 in the prompt" in tab.text(".timeline .caption")
    assert tab.count(".timeline .first") == 4
    tab.click(".starting summary")
    tab.wait("document.querySelector('.starting img').naturalWidth > 0")
    assert tab.texts(".turn .figures code") == ["image_clue_4", "image_clue_5"]


def test_an_exported_file_has_the_film(tab, library, tmp_path):
    query = parse_query({"task": "clip"})
    (tmp_path / "out.html").write_bytes(export_page(library.run("clips"), "clips", query, 9))
    tab.goto(f"{(tmp_path / 'out.html').as_uri()}#/t/clips/train/1/0/0")
    tab.wait("document.querySelector('.film').naturalWidth === 8 * 96")
    tab.hover(".timeline .frame:last-child")
    assert tab.text(".peek").startswith("turn 2")
    assert tab.count(".peek img") == 0, "single frames are not in the file"


@pytest.mark.skipif(not REAL_CLIP.is_file(), reason="no real clip here")
def test_a_real_clip(library):
    view = view_trajectory(library.run("clips"), REAL)
    result = view.turns[0].result
    assert result
    assert result.output.startswith("132 25.0 (3, 720, 1280, 3)")
    assert view.looks.fetches == (Fetch(0, 0, (66, 98, 131)),)
