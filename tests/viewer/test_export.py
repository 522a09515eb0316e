"""The exported file: whole by itself, shown by the same browser from disk."""

import re

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.viewer.export import MODULES, bundle, export_page
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.query import parse_query
from pyvision_rl.viewer.serve import ViewConfig, run_view
from tests.viewer.odd import ATTACK


def test_a_file_shows_its_trajectories_without_a_server(browser, runs, tmp_path):
    said = []
    path = tmp_path / "out.html"
    config = ViewConfig([str(runs)], export=str(path), where="step=3&right=yes", limit=5, run="rl")
    run_view(config, said.append)
    assert said == [f"export  {path}"]
    tab = browser.tab().goto(path.as_uri())
    assert tab.text("h1") == "Trajectories of rl"
    assert tab.count(".list tbody tr") == 5
    tab.click(".list .question a")
    tab.wait_for(".turn")
    tab.wait("[...document.images].every((image) => image.naturalWidth > 0)")
    assert tab.js("document.querySelector('.boxed img').naturalWidth") == 672
    tab.press("t")
    tab.wait_for(".stream .sampled")
    tab.press("c")
    tab.wait_for(".column")
    tab.press("d")
    tab.close()
    assert tab.complaints == []


def test_nothing_in_the_file_reaches_out_or_breaks_out(browser, runs, tmp_path):
    path = tmp_path / "odd.html"
    page = export_page(Library([runs / "odd"]).run("odd"), "odd", parse_query({}), 50)
    path.write_bytes(page)
    text = page.decode()
    assert ATTACK not in text
    assert not re.search(r"(src|href)=\"(https?:)?//", text)
    assert "script-src 'sha256-" in text
    tab = browser.tab().goto(path.as_uri())
    assert tab.count(".list tbody tr") == 5
    tab.goto(f"{path.as_uri()}#/t/odd/eval/0/0/0")
    assert tab.text(".answered b") == ATTACK
    assert tab.js("window.hacked ?? null") is None
    tab.close()
    assert tab.complaints == []


def test_modules_do_not_share_names():
    """They become one script: a name declared twice would be an error there."""
    names = re.findall(r"^(?:async )?(?:function\*?|class|const|let) (\w+)", bundle(), re.MULTILINE)
    assert len(names) == len(set(names)) > 60
    assert "import" not in {line.split(" ")[0] for line in bundle().splitlines()}
    assert MODULES[-1] == "main.js"


def test_what_cannot_be_exported_is_said(runs, tmp_path):
    out = str(tmp_path / "out.html")
    with pytest.raises(InputError, match="name one with --run: odd, rl"):
        run_view(ViewConfig([str(runs)], export=out), print)
    with pytest.raises(InputError, match="no trajectory fits"):
        run_view(ViewConfig([str(runs)], export=out, run="rl", where="step=99"), print)
    with pytest.raises(InputError, match="unknown field `stepp`"):
        run_view(ViewConfig([str(runs)], export=out, run="rl", where="stepp=1"), print)
