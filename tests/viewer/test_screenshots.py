"""The pictures of docs/viewer.md, made anew into $VIEWER_IMAGES (a folder), else thrown away."""

import os
from pathlib import Path

import pytest
from PIL import Image

from pyvision_rl.viewer.app import view_routes
from pyvision_rl.viewer.detail import list_rows
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.query import parse_query
from pyvision_rl.viewer.search import find_rows
from tests.viewer.conftest import serving
from tests.viewer.make_run import write_run
from tests.viewer.make_video_run import write_video_run


@pytest.fixture
def images(tmp_path) -> Path:
    return Path(os.environ.get("VIEWER_IMAGES", tmp_path))


@pytest.fixture
def library(tmp_path) -> Library:
    """A run that learns to look, one that forgets it, and one about videos."""
    names = ("run-a", "run-b", "videos")
    for seed, name in enumerate(names[:2]):
        write_run(tmp_path / name, 12, 6, 6, seed=seed, falling=name == "run-b")
    write_video_run(tmp_path / "videos")
    return Library([tmp_path / name for name in names])


@pytest.mark.slow
def test_pictures_of_the_documentation(browser, images, library):
    run = library.run("run-a")
    query = parse_query({"kind": "two_looks", "right": "yes", "calls": "3", "kept": "yes"})
    row = list_rows(run, find_rows(run, query).places)[0]
    place = f"run-a/{row['phase']}/{row['step']}/{row['group']}"
    pages = {
        "viewer-curves": ("?runs=run-a%2Crun-b", 1280, 860, False),
        "viewer-warning": ("?runs=run-b", 1280, 700, False),
        "viewer-groups": (f"groups/run-a/train/{row['step']}", 1280, 760, False),
        "viewer-search": ("list/run-a?text=mean&part=output", 1280, 560, False),
        "viewer-trajectory": (f"t/{place}/{row['index']}", 1280, 1000, False),
        "viewer-trajectory-dark": (f"t/{place}/{row['index']}", 1280, 1000, True),
        "viewer-side-by-side": (f"compare/{place}", 1280, 900, False),
        "viewer-video": ("t/videos/train/1/0/0", 1280, 900, False),
        "viewer-phone": (f"t/{place}/{row['index']}", 390, 844, False),
        "viewer-phone-list": ("list/run-a", 390, 844, False),
    }
    with serving(view_routes(library)) as url:
        for name, (page, width, height, dark) in pages.items():
            tab = browser.tab(width, height, dark=dark).goto(f"{url}/#/{page}")
            if name == "viewer-warning":
                tab.send("Page.bringToFront")
                tab.click(".monitor .link")
                tab.wait_for(".tip:not([hidden])")
            if name == "viewer-video":
                tab.hover(".timeline .frame:last-child")
            loaded = "image.complete || image.loading === 'lazy'"
            tab.wait(f"[...document.images].every((image) => {loaded})")
            tab.screenshot(images / f"{name}.png")
            tab.close()
            assert tab.complaints == []
            with Image.open(images / f"{name}.png") as image:
                assert image.width in (width, 2 * width)
                assert len(image.convert("P").getcolors() or ()) > 20, "a page, not a blank"
