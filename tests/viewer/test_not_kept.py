"""A run that keeps the images of some groups only: what is missing is said, not asked for."""

import pytest

from pyvision_rl.runs import RunFolder
from pyvision_rl.viewer.app import view_routes
from pyvision_rl.viewer.export import export_page
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.query import parse_query
from tests.runs.examples import records
from tests.viewer.conftest import serving


@pytest.fixture
def library(tmp_path) -> Library:
    """Step 0 keeps the images of its first group, step 1 none."""
    with RunFolder.create(tmp_path / "a", "seed: 0\n") as run:
        for step, image_groups in enumerate((1, 0)):
            run.write_groups(step, "train", records(step), image_groups)
    return Library([tmp_path])


def test_pages_say_what_was_not_kept(tab, library):
    with serving(view_routes(library)) as url:
        tab.goto(f"{url}/#/groups/a/train/0")
        tab.wait("document.querySelector('.thumb img')?.naturalWidth === 56")
        assert tab.texts(".thumb") == ["", "picture not kept"]

        # A figure that the first group showed too is there all the same.
        tab.goto(f"{url}/#/t/a/train/0/1/1")
        assert tab.count(".figures .picture") == 2
        assert tab.count(".unkept") == 0
        assert "the run did not keep what the policy saw of it" in tab.text(".given-image")

        tab.goto(f"{url}/#/t/a/train/1/0/1")
        assert tab.texts(".figures .unkept") == ["picture not kept"] * 2
        assert tab.texts(".figures code") == ["image_clue_2", "image_clue_3"]
        assert tab.count("main img") == 0
        assert tab.text(".answered b") == "7", "all else is there"
        tab.goto(f"{url}/#/compare/a/train/1/0")
        assert tab.count(".unkept") == 4


def test_an_exported_file_says_it_too(tab, library, tmp_path):
    path = tmp_path / "out.html"
    path.write_bytes(export_page(library.run("a"), "a", parse_query({"step": "1"}), 50))
    tab.goto(f"{path.as_uri()}#/t/a/train/1/0/1")
    assert tab.texts(".figures .unkept") == ["picture not kept"] * 2
