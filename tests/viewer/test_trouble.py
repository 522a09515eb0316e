"""Runs that change under the viewer: written, deleted, damaged, and looked at by two at once."""

import shutil
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

import pyvision_rl
from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.types import Group, Observation, Reward, StopReason, Task, Trajectory
from pyvision_rl.viewer.app import make_app, view_routes
from pyvision_rl.viewer.library import Library
from pyvision_rl.viewer.media import sizes_in_runtime
from tests.runs.examples import records
from tests.viewer.conftest import serving

PAGES = ("runs", "metrics", "groups", "group", "trajectories", "trajectory", "tokens")
PLACE = "run=a&phase=train&step=0&group=0&index=0"


def write(folder, num_steps: int = 2):
    with RunFolder.create(folder, "seed: 0\n") as run:
        for step in range(num_steps):
            run.log(step, {"reward/mean": step / 10})
            run.write_groups(step, "train", records(step))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "a")


def client(folder) -> TestClient:
    app = make_app(view_routes(Library([folder])), ("testserver",))
    return TestClient(app, raise_server_exceptions=False)


def ask(client: TestClient, name: str) -> tuple[int, str]:
    query = "run=a" if name == "trajectories" else PLACE
    response = client.get(f"/api/{name}?{query}")
    return response.status_code, response.text


def test_a_run_that_is_deleted_while_it_is_looked_at(browser, folder):
    with serving(view_routes(Library([folder]))) as url:
        tab = browser.tab().goto(url)
        other = browser.tab().goto(f"{url}/#/t/a/train/1/0/0")
        shutil.rmtree(folder)
        tab.send("Page.bringToFront")
        tab.wait("document.querySelector('.page')?.innerText.includes('0 runs')")
        other.send("Page.bringToFront")
        other.press("j")
        other.wait("document.querySelector('.notice.bad')")
        write(folder)
        tab.send("Page.bringToFront")
        tab.wait("document.querySelector('.page h1').innerText === '1 run'")
        for each in (tab, other):
            each.close()
            assert all("404" in complaint for complaint in each.complaints)


def test_every_address_says_that_a_run_is_gone(folder):
    viewer = client(folder)
    assert [ask(viewer, name)[0] for name in PAGES] == [200] * len(PAGES)
    shutil.rmtree(folder)
    assert {ask(viewer, name)[0] for name in PAGES} <= {200, 404}


@pytest.mark.parametrize(
    "file",
    [
        "config.yaml",
        "metrics.jsonl",
        "warnings.json",
        "turns/train/step-0000000.parquet",
        "images/train/step-0000000.parquet",
        "trajectories/train/step-0000000.parquet",
    ],
)
@pytest.mark.parametrize("content", [b"", b"{[\xff\x00", None])
def test_a_damaged_or_missing_file_is_never_a_fault_of_the_viewer(folder, file, content):
    """Either the page is shown without it, or one line names it."""
    path = folder / file
    viewer = client(folder)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    for name in PAGES:
        status, text = ask(viewer, name)
        assert status in (200, 404), (name, text)
        if status == 404:
            assert path.name in text or "no trajectories of step 0" in text or "no run" in text


def test_two_viewers_and_a_writer(folder):
    """A viewer that asks whether a run goes on never keeps its writer out."""
    libraries = [Library([folder]), Library([folder])]
    done = threading.Event()

    def look(library: Library) -> None:
        while not done.is_set():
            library.refresh()
            library.state("a")

    threads = [threading.Thread(target=look, args=(library,)) for library in libraries]
    for thread in threads:
        thread.start()
    try:
        for step in range(2, 12):
            with RunFolder.create(folder, "seed: 0\n", resume=True) as run:
                run.log(step, {"reward/mean": 0.5})
                run.write_groups(step, "train", records(step))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for library in libraries:
        library.refresh()
        assert library.state("a").num_trajectories == 12 * 6


def test_a_phase_is_a_name_and_no_way_to_other_runs(folder):
    """An image is asked for by its content, which who knows an image knows."""
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    path = other / "images" / "train" / "step-0000000.parquet"
    sha1 = pq.read_table(path)["sha1"][0].as_py()
    viewer = client(folder)
    known = {"run": folder.name, "step": "0", "sha1": sha1}
    assert viewer.get("/image", params=known | {"phase": "train"}).status_code == 200
    away = known | {"phase": "../../other/images/train"}
    assert viewer.get("/image", params=away).status_code == 404


def test_a_folder_that_may_not_be_read_or_has_just_gone(folder, monkeypatch):
    """As a system's lost+found, and as a run that is deleted while it is looked for."""
    (folder.parent / "locked").mkdir()
    entries = Path.iterdir

    def locked(path: Path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(Path, "iterdir", locked)
    assert Library([folder.parent]).names == ("a",)


def test_a_run_keeps_its_name_when_another_folder_gets_one(tmp_path):
    write(tmp_path / "first" / "rl")
    (tmp_path / "second").mkdir()
    library = Library([tmp_path / "first", tmp_path / "second"])
    (name,) = library.names
    write(tmp_path / "second" / "rl")
    library.refresh()
    assert library.names == ("first/rl", "second/rl")
    assert name == "first/rl"


def test_numbers_that_a_question_makes_up(folder):
    """A prompt is text of a data set; Python reads no number of 5,000 digits."""
    digits = "9" * 5000
    assert sizes_in_runtime(f"image_clue_0 is {digits} x {digits}", ["gone.png"]) == {}
    task = Task("t", "?", "", videos=(Path("gone.mp4"),))
    prompt = Observation((1,), f"You have seen frames 1, {digits} of video_clue_0", (), 0)
    lost = Trajectory(task, prompt, (), StopReason.SANDBOX_LOST, None)
    with RunFolder.create(folder, "seed: 0\n", resume=True) as run:
        group = Group(task, (lost,), (Reward(0.0, 0.0),))
        run.write_groups(5, "train", [GroupRecord(group, dropped={0: "sandbox_lost"})])
    viewer = client(folder)
    (view,) = viewer.get("/api/group?run=a&phase=train&step=5&group=0").json()
    assert view["videos"][0]["first_seen"] == []
    (drawn,) = viewer.get("/api/groups?run=a&phase=train&step=5").json()["groups"]
    assert (drawn["reward_mean"], drawn["reward_std"]) == (0.0, 0.0)


def _copy(file: Path, to: Path) -> None:
    shutil.copy(file, to)


def test_a_tokenizer_that_comes_later_is_found(folder):
    """A run is looked at before its first checkpoint is there."""
    tokenizer = Path(pyvision_rl.__file__).parent / "model" / "tiny_base" / "tokenizer.json"
    viewer = client(folder)
    place = f"/api/tokens?{PLACE}"
    assert not viewer.get(place).json()["known"]
    with RunFolder.create(folder, "seed: 0\n", resume=True) as run:
        run.checkpoints.save(1, lambda to: _copy(tokenizer, to), {})
    assert viewer.get(place).json()["known"]
