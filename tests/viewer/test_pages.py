"""Each page in a real browser: what it says, what keys and clicks do."""

from dataclasses import asdict

import pytest

from pyvision_rl.rl.monitor import CollapseMonitor
from pyvision_rl.runs import RunFolder
from pyvision_rl.viewer.app import view_routes
from pyvision_rl.viewer.detail import list_rows
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.query import parse_query
from pyvision_rl.viewer.search import find_rows
from tests.runs.examples import records
from tests.viewer.conftest import serving
from tests.viewer.make_run import write_zoom_run


def rows(library, **query: str) -> list[dict]:
    run = library.run("rl")
    return list_rows(run, find_rows(run, parse_query(query)).places)


def address(row, page: str = "t") -> str:
    return f"{page}/rl/{row['phase']}/{row['step']}/{row['group']}/{row['index']}"


def test_overview_lists_runs_and_draws_their_curves(tab, url, library):
    tab.goto(url)
    assert tab.texts(".runs .name a") == ["odd", "rl"]
    state = library.state("rl")
    cells = tab.texts(".runs tbody tr:nth-child(2) td")
    assert cells[2] == f"{state.latest['reward/accuracy']:.2f}"
    assert cells[6:8] == ["3", "48"]
    titles = tab.texts(".chart figcaption span")
    assert "Accuracy of rollouts" in titles
    assert "Dropped, by reason" in titles
    assert "SFT loss per token" not in titles
    assert tab.count("section:first-child .chart:first-child path.curve.thin") == 3, (
        "a line for each kind"
    )
    tab.hover(".plot svg")
    assert "step 2" in tab.text(".tip:not([hidden])")
    tab.click("input[aria-label='draw rl']")
    tab.wait("document.querySelector('.curves .notice')")


def test_a_click_into_a_curve_opens_the_groups_of_the_step(tab, url):
    tab.goto(url)
    tab.click(".plot svg")
    tab.wait("location.hash === '#/groups/rl/train/2'")
    tab.wait("document.querySelectorAll('.group').length === 4")


@pytest.fixture
def collapsed(tmp_path) -> RunFolder:
    """Ten steps of two calls a trajectory, ten of none, watched as a training run is."""
    monitor = CollapseMonitor()
    with RunFolder.create(tmp_path / "fallen", "seed: 0\n") as run:
        for step in range(1, 21):
            values = {"rollout/tool_calls": 2.0 * (step <= 10), "loss/entropy": 0.5}
            monitor.watch(step, values)
            run.log(step, values | monitor.metrics())
        run.write_warnings([asdict(warned) for warned in monitor.warnings])
    return run


def test_the_monitor_marks_the_step_in_its_curve_and_says_why(tab, collapsed):
    with serving(view_routes(Library([collapsed.path]))) as url:
        tab.goto(url)
        assert tab.texts(".runs .pill") == ["1 warning"]
        assert tab.texts(".monitor .pill") == ["step 12"], "the mean of three falls below a half"
        said = tab.text(".monitor li p")
        assert said.startswith("Tool calls fell from 2.00 to 0.67 a trajectory")
        marked = (
            "document.querySelector('.mark').closest('.chart').querySelector('figcaption span')"
        )
        assert tab.js(f"{marked}.textContent") == "Tool calls per trajectory"
        assert tab.count(".mark") == 1
        assert float(tab.js("document.querySelector('.mark line').getAttribute('x1')")) == (
            pytest.approx(40 + 330 * 11 / 19)
        ), "step 12 on an axis from 1 to 20 that is 330 wide and begins at 40"
        tab.hover(".mark .reach")
        assert tab.text(".tip:not([hidden])").split("\n") == ["step 12", "", said]
        tab.hover("h1")
        assert tab.count(".tip:not([hidden])") == 0
        tab.send("Page.bringToFront")
        tab.click(".monitor .link")
        tab.wait("document.activeElement.matches('.mark')")
        assert "gives up its tool" in tab.text(".tip:not([hidden])")
        assert tab.count(".band") == 1
        (collapsed.path / "warnings.json").write_text("[{")
        tab.wait("document.querySelector('.notice.bad')?.textContent.includes('warnings.json')")
        assert tab.count(".chart") == 2, "the curves are shown all the same"


def test_groups_say_what_became_of_them(tab, url, library):
    tab.goto(f"{url}/#/groups/rl/train/3")
    assert tab.count(".group") == 4
    part = library.run("rl").part("train", 3).to_pylist()
    kept = {row["group"] for row in part if row["rank"] is not None}
    assert tab.count(".group.kept") == len(kept) == 2
    assert tab.texts(".group.kept .pill.good") == ["kept · rank 1", "kept · rank 2"]
    assert tab.count(".group .square") == 16
    out = sum(row["dropped"] is not None for row in part)
    assert tab.count(".group .square.dropped") == out
    assert "ranked below the cut" in tab.text(".summary")
    images = "[...document.querySelectorAll('.thumb img')]"
    tab.wait(f"{images}.every((image) => image.complete && image.naturalWidth)")


def test_groups_without_a_step_are_the_newest_and_arrows_go_back(tab, url):
    tab.goto(f"{url}/#/groups/rl")
    assert "4 groups drawn" in tab.text(".summary")
    tab.press("ArrowLeft")
    tab.wait("location.hash === '#/groups/rl/train/2'")


def test_list_filters_as_the_address_says(tab, url, library):
    tab.goto(f"{url}/#/list/rl?right=no")
    wrong = rows(library, right="no")
    assert tab.text(".count b").split() == [str(len(wrong)), "trajectories"]
    assert set(tab.texts(".list .mark")) == {"✗"}
    tab.click(".field.narrow input")
    tab.type("2")
    tab.wait("location.hash.includes('step=2')")
    expected = len(rows(library, right="no", step="2"))
    tab.wait(f"document.querySelector('.count b').textContent.startsWith('{expected} ')")
    tab.click(".count .link")
    tab.wait("document.querySelector('.count b').textContent === '48 trajectories'")


def test_search_finds_text_in_questions(tab, url, library):
    tab.goto(f"{url}/#/list/rl")
    tab.press("/")
    colour = rows(library)[0]["question"].split()[-2]
    tab.type(colour.upper())
    expected = len(rows(library, text=colour))
    assert 0 < expected < 48
    tab.wait(f"document.querySelector('.count b').textContent.startsWith('{expected} ')")
    tab.type(" no such thing")
    tab.wait("document.querySelector('.list .notice')")


def test_search_goes_through_the_turns(tab, url, library):
    """What a program printed: the list shows where, and the trajectory marks it."""
    tab.goto(f"{url}/#/list/rl?sort=old")
    tab.press("/")
    tab.type("Quarter 0 1: MEAN")
    expected = rows(library, sort="old", text="quarter 0 1: mean", part="output")
    assert 0 < len(expected) < 48
    tab.wait(f"document.querySelector('.count b').textContent.startsWith('{len(expected)} ')")
    assert set(tab.texts(".excerpt mark")) == {"quarter 0 1: mean"}
    assert tab.text(".excerpt").startswith("turn 1")
    tab.choose("In", "code")
    tab.wait("document.querySelector('.list .notice')")
    tab.goto(f"{url}/#/{address(expected[0])}?text=quarter+0+1%3A+MEAN&sort=old")
    tab.wait(
        f"document.querySelector('.stepper span').textContent === '1 of {len(expected)} filtered'"
    )
    hits = "[...CSS.highlights.get('hit')].map((range) => range.toString())"
    assert tab.js(hits) == ["quarter 0 1: mean"]


def test_a_crop_of_a_figure_is_drawn_on_the_figure(tab, tmp_path):
    run = write_zoom_run(tmp_path / "zoom")
    with serving(view_routes(Library([run]))) as address:
        tab.goto(f"{address}/#/t/zoom/train/1/0/0")
        tab.wait("[...document.images].every((image) => image.naturalWidth)")
        assert tab.texts(".boxed .box title") == [
            "turn 1: 100, 100, 268, 268",
            "turn 2: 110, 120, 194, 204",
        ]
        assert tab.texts("#turn-0 .box title") == ["turn 2: 10, 20, 94, 104"]
        figure, box = (
            f"document.querySelector('#turn-0 {part}').getBoundingClientRect()"
            for part in (".picture img", ".box .edge")
        )
        assert tab.js(f"{box}.width / {figure}.width") == pytest.approx(84 / 168, abs=0.03)
        assert tab.js(f"({box}.top - {figure}.top) / {figure}.height") == pytest.approx(
            20 / 168, abs=0.03
        )


def test_keys_walk_through_a_list_and_its_trajectories(tab, url, library):
    tab.goto(f"{url}/#/list/rl?calls=1%2B&sort=old")
    tab.press("j")
    tab.press("j")
    tab.press("Enter")
    wanted = rows(library, calls="1+", sort="old")
    tab.wait(f"location.hash.startsWith('#/{address(wanted[1])}?')")
    tab.wait("document.querySelector('.stepper span')?.textContent.startsWith('2 of ')")
    tab.press("j")
    tab.wait(f"location.hash.startsWith('#/{address(wanted[2])}?')")
    tab.wait("document.querySelector('.stepper span').textContent.startsWith('3 of ')")
    tab.press("u")
    tab.wait("location.hash.startsWith('#/list/rl?')")


@pytest.fixture
def two_looks(library) -> dict:
    """A right trajectory of two crops, no other call."""
    found = [
        row
        for row in rows(library, kind="two_looks", right="yes", calls="2")
        if row["num_ok_tool_calls"] == 2 and row["reward"] == pytest.approx(1.2)
    ]
    return next(
        row
        for row in found
        if len(library.run("rl").reader.stored(row["step"], "train", [row["group"]])) == 4
    )


def test_trajectory_shows_turns_crops_figures_and_reward(tab, url, two_looks):
    tab.goto(f"{url}/#/{address(two_looks)}")
    assert tab.text("h1.question") == two_looks["question"]
    assert tab.text(".verdict .pill") == "✓ right"
    assert tab.texts(".reward .part b")[:3] == ["1.00", "0.20", "1.20"]
    assert tab.count(".turn") == 3
    assert tab.texts(".turn .label .notes") == ["turn 1", "turn 2", "turn 3"]
    assert "plt.imshow(image_clue_0.crop(" in tab.text(".code")
    assert tab.count(".code .py-number") > 5
    assert tab.text(".answered b") == two_looks["answer"]
    assert tab.texts(".figures code") == ["image_clue_1", "image_clue_2"]
    assert tab.count(".boxed .box") == 2
    assert tab.texts(".boxed .box text") == ["1", "2"]
    corners = tab.text(".box title").split(": ")[1].split(", ")
    left, top, right, bottom = map(int, corners)
    assert (right - left, bottom - top) == (84, 84), "the oracle's crops"
    tab.wait("document.querySelector('.boxed img').naturalWidth === 672")
    tab.press("o")
    tab.wait("document.querySelector('.boxed img').naturalWidth === 168")


def test_tokens_come_on_demand_with_mask_and_log_probs(tab, url, two_looks):
    tab.goto(f"{url}/#/{address(two_looks)}")
    assert tab.count(".tokens") == 0
    tab.press("t")
    tab.wait_for(".tokens")
    assert tab.count(".stream .sampled") == two_looks["num_completion_tokens"]
    title = tab.js("document.querySelector('.stream .sampled').title")
    assert "loss mask 1" in title
    assert "log-prob -" in title
    assert "<|im_start|>" in tab.text(".stream .given")
    assert "36" in [text.lstrip("\u00d7") for text in tab.texts(".stream sup")]
    tab.press("t")
    assert tab.count(".tokens") == 0


def test_figures_open_at_full_size(tab, url, two_looks):
    tab.goto(f"{url}/#/{address(two_looks)}")
    tab.click("button[aria-label='enlarge image_clue_1']")
    tab.wait_for(".lightbox img")
    tab.wait("document.querySelector('.lightbox figcaption').textContent.includes('84 \\u00d7 84')")
    tab.press("ArrowRight")
    tab.wait("document.querySelector('.lightbox figcaption').textContent.includes('clue_2')")
    tab.press("Escape")
    tab.wait("!document.querySelector('.lightbox')")


def test_siblings_side_by_side(tab, url, two_looks):
    tab.goto(f"{url}/#/{address(two_looks)}")
    assert tab.count(".siblings .square") == 4
    assert tab.count(".siblings .square[aria-current]") == 1
    tab.press("c")
    tab.wait_for(".side-by-side")
    assert tab.texts(".column header > a") == ["#0", "#1", "#2", "#3"]


def test_light_and_dark(tab, url):
    tab.goto(url)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.js(ground)
    tab.press("d")
    assert tab.js(ground) != light
    tab.press("?")
    assert "side by side" in tab.text("dialog.help")


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_on_a_phone(browser, url, dark, two_looks):
    tab = browser.tab(360, 780, dark=dark)
    pages = ("", "groups/rl", "list/rl", address(two_looks), address(two_looks, "compare"))
    for page in (*pages, "t/odd/eval/0/0/0"):
        tab.goto(f"{url}/#/{page}")
        tab.wait("[...document.images].every((i) => i.complete || i.loading === 'lazy')")
        assert tab.js("document.documentElement.scrollWidth") <= 360, page
    tab.close()
    assert tab.complaints == []


def test_an_address_that_leads_nowhere_says_so(browser, url):
    tab = browser.tab().goto(f"{url}/#/t/rl/train/9/0/0")
    assert "no trajectories of step 9 in train" in tab.text(".notice.bad")
    tab.goto(f"{url}/#/list/nothing")
    tab.wait("document.body.innerText.includes('There is no run nothing here.')")
    tab.close()


def test_pages_keep_up_with_a_run(browser, tmp_path):
    with RunFolder.create(tmp_path / "live", "seed: 0\n") as run:
        run.log(0, {"reward/mean": 0.5})
        run.write_groups(0, "train", records(0))
        with serving(view_routes(Library([run.path]))) as url:
            tabs = [browser.tab().goto(f"{url}/#/{page}") for page in ("", "groups", "list")]
            overview, groups, listed = tabs
            assert overview.text(".live-state") == "live"
            assert "6 trajectories" in listed.text(".count")
            run.log(7, {"reward/mean": 0.75})
            run.write_groups(7, "train", records(7))
            overview.send("Page.bringToFront")
            overview.wait("document.querySelectorAll('.chart .dot').length === 2")
            listed.send("Page.bringToFront")
            listed.wait("document.querySelector('.count b').textContent === '12 trajectories'")
            groups.send("Page.bringToFront")
            groups.wait("document.querySelector('.group .pill').textContent === 'task task-7-0'")
            for tab in tabs:
                tab.close()
                assert tab.complaints == []
