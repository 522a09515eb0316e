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


@pytest.fixture
def images(tmp_path) -> Path:
    return Path(os.environ.get("VIEWER_IMAGES", tmp_path))


@pytest.mark.slow
def test_pictures_of_the_documentation(browser, images, tmp_path):
    for seed, name in enumerate(("run-a", "run-b")):
        write_run(tmp_path / name, num_steps=12, num_groups=6, group_size=6, seed=seed)
    library = Library([tmp_path / "run-a", tmp_path / "run-b"])
    query = parse_query({"kind": "two_looks", "right": "yes", "calls": "3", "kept": "yes"})
    run = library.run("run-a")
    row = list_rows(run, find_rows(run, query).places)[0]
    place = f"run-a/{row['phase']}/{row['step']}/{row['group']}"
    pages = {
        "viewer-curves": ("?runs=run-a%2Crun-b", 1280, 860, False),
        "viewer-groups": (f"groups/run-a/train/{row['step']}", 1280, 760, False),
        "viewer-trajectory": (f"t/{place}/{row['index']}", 1280, 1000, False),
        "viewer-trajectory-dark": (f"t/{place}/{row['index']}", 1280, 1000, True),
        "viewer-side-by-side": (f"compare/{place}", 1280, 900, False),
        "viewer-phone": (f"t/{place}/{row['index']}", 390, 844, False),
    }
    with serving(view_routes(library)) as url:
        for name, (page, width, height, dark) in pages.items():
            tab = browser.tab(width, height, dark=dark).goto(f"{url}/#/{page}")
            tab.wait("[...document.images].every((i) => i.complete || i.loading === 'lazy')")
            tab.screenshot(images / f"{name}.png")
            tab.close()
            assert tab.complaints == []
            with Image.open(images / f"{name}.png") as image:
                assert image.width in (width, 2 * width)
                assert len(image.convert("P").getcolors() or ()) > 20, "a page, not a blank"
