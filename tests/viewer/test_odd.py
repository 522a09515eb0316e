"""Pages under strain: hostile text, many turns, many and large images, broken files, videos."""

import shutil

import pytest
from starlette.testclient import TestClient

from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.types import Group, Observation, Reward, StopReason, Task, Trajectory
from pyvision_rl.viewer.app import make_app, view_routes
from pyvision_rl.viewer.library import Library
from tests.viewer.conftest import serving
from tests.viewer.odd import ATTACK, KINDS


def place(kind: str) -> str:
    return f"t/odd/eval/0/{KINDS.index(kind)}/0"


def test_what_a_policy_writes_stays_text(tab, url):
    """The same text in question, thought, program, output, answer, task id, kind and source."""
    for page in (place("hostile"), "list/odd", "groups/odd", "compare/odd/eval/0/0"):
        tab.goto(f"{url}/#/{page}")
        assert "<script>window.hacked = 1</script>" in tab.js("document.body.innerText")
    tab.goto(f"{url}/#/{place('hostile')}")
    tab.press("t")
    tab.wait_for(".stream")
    assert tab.text(".answered b") == ATTACK
    assert tab.text(".output").startswith(ATTACK)
    assert tab.js("window.hacked ?? null") is None
    assert tab.count("main script, img[src='x']") == 0


def test_300_turns(tab, url):
    tab.goto(f"{url}/#/{place('long')}")
    assert tab.count(".turn") == 300
    assert tab.count(".strip button") == 300
    tab.click(".strip button:nth-child(250)")
    tab.wait("Math.abs(document.getElementById('turn-249').getBoundingClientRect().top) < 400")


def test_32_images(tab, url):
    tab.goto(f"{url}/#/{place('many_images')}")
    assert tab.count(".figures img") == 32
    assert tab.texts(".figures code")[-1] == "image_clue_31"
    tab.click("button[aria-label='enlarge image_clue_31']")
    tab.wait("document.querySelector('.lightbox figcaption').textContent.includes('32 of 32')")


def test_a_figure_of_4_mb_and_an_original_that_is_gone(tab, url, library):
    tab.goto(f"{url}/#/{place('large_figure')}")
    sha1 = library.run("odd").reader.stored(0, "eval", [3])[0].turns[0].observation.images[0]
    assert len(library.run("odd").reader.image(0, "eval", sha1)) > 4_000_000
    tab.click(".picture")
    tab.wait("document.querySelector('.lightbox img')?.naturalWidth === 1200")
    tab.press("Escape")
    assert tab.count(".boxed .box") == 1, "the size is known from the prompt"
    tab.wait("document.querySelector('.boxed img').naturalWidth === 40")
    assert tab.count("#swap") == 0


def test_frames_that_were_fetched_are_marked_on_a_timeline(tab, url):
    tab.goto(f"{url}/#/{place('video')}")
    assert "length unknown" in tab.text(".timeline .caption")
    assert "4 fetched" in tab.text(".timeline .caption")
    lefts = tab.js("[...document.querySelectorAll('.timeline .frame')].map((n) => n.style.left)")
    assert lefts == ["0%", "50%", "100%", "75%"]


@pytest.fixture
def broken(runs, tmp_path):
    """A copy of the run with step 2's list, and step 3's turns, cut short."""
    folder = tmp_path / "rl"
    shutil.copytree(runs / "rl", folder)
    for kind, step in (("trajectories", 2), ("turns", 3)):
        path = folder / kind / "train" / f"step-{step:07d}.parquet"
        path.write_bytes(path.read_bytes()[:500])
    return folder


def test_broken_parquet_is_named_and_the_rest_is_shown(browser, broken):
    tab = browser.tab()
    with serving(view_routes(Library([broken]))) as url:
        tab.goto(url)
        assert "step-0000002.parquet: not readable as Parquet" in tab.text(".notice.bad")
        tab.goto(f"{url}/#/list/rl")
        assert tab.text(".count b") == "32 trajectories"
        tab.goto(f"{url}/#/t/rl/train/3/0/0")
        assert "turns/train/step-0000003.parquet: not readable" in tab.text(".notice.bad")
        tab.goto(f"{url}/#/t/rl/train/1/0/0")
        assert tab.count(".turn") > 0
    tab.close()
    assert all("404" in complaint for complaint in tab.complaints)


def test_a_mended_file_is_read_again(runs, broken):
    library = Library([broken])
    assert len(library.state("rl").problems) == 1
    name = "trajectories/train/step-0000002.parquet"
    shutil.copy(runs / "rl" / name, broken / name)
    library.refresh()
    state = library.state("rl")
    assert (state.problems, state.num_trajectories) == ((), 48)


@pytest.fixture
def client(library):
    app = make_app(view_routes(library), ("testserver",))
    return TestClient(app)


def test_content_is_kept_harmless(client):
    for path in ("/", "/static/main.js", "/api/runs", "/nowhere"):
        headers = client.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/runs", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/groups?run=rl&phase=train&step=x", "step='x': must be a whole number"),
        ("/api/groups?run=rl&phase=../../etc&step=1", "no trajectories of step 1"),
        ("/api/trajectories?run=rl&right=maybe", "Invalid enum value 'maybe'"),
        ("/api/trajectories?run=rl&colour=red", "unknown field `colour`"),
        ("/api/trajectories?run=rl&calls=many", "a number, or a number and +"),
        (f"/api/trajectories?run=rl&calls={'9' * 30}", "a number, or a number and +"),
        (f"/api/trajectories?run=rl&step={'9' * 30}", "at `$.step`"),
        (f"/api/trajectories?run=rl&step={2**40}", "at `$.step`"),
        ("/api/trajectory?run=rl&phase=train&step=1&group=0&index=99", "no trajectory 99"),
        ("/api/metrics?run=../rl", "no run '../rl'; there are odd, rl"),
        ("/image?run=rl&phase=train&step=1&sha1=../../x", "holds no image"),
        ("/original?run=rl&phase=train&step=1&group=0&index=0&k=7", "the task has 1"),
        ("/original?run=odd&phase=eval&step=0&group=3&index=0&k=0", "no such image file"),
    ],
)
def test_a_bad_address_is_refused_in_one_line(client, path, message):
    response = client.get(path)
    assert response.status_code == 404
    assert message in response.json()["error"]
    assert "\n" not in response.json()["error"]


def test_files_outside_of_the_front_end_are_not_served(client):
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"):
        assert client.get(path).status_code == 404


def test_a_list_shows_the_beginning_of_texts_without_end(browser, tmp_path):
    endless = "x" * 20_000
    task = Task(endless, "How long?", endless, ability=endless)
    played = Trajectory(task, Observation((1,), "", (), 0), (), StopReason.ANSWERED, endless)
    with RunFolder.create(tmp_path / "a", "seed: 0\n") as run:
        run.write_groups(0, "eval", [GroupRecord(Group(task, (played,), (Reward(0.0, 0.0),)))])
    tab = browser.tab(360, 780)
    with serving(view_routes(Library([tmp_path]))) as url:
        for page in ("list/a", "groups/a"):
            tab.goto(f"{url}/#/{page}")
            assert tab.js("document.documentElement.scrollWidth") <= 360
            assert tab.js("document.documentElement.scrollHeight") < 2500
        tab.goto(f"{url}/#/t/a/eval/0/0/0")
        assert tab.js("document.documentElement.scrollWidth") <= 360
        assert tab.text(".given-answer b") == endless
    tab.close()
