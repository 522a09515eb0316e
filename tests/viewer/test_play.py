"""Asking an agent: a script plays through the real sandbox, on the page and in the terminal."""

import asyncio
import io
import tempfile
import threading
from collections.abc import MutableMapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image
from rich.console import Console
from starlette.routing import Route

from pyvision_rl.data.needle_video_files import write_clip
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.scripted import ScriptedEngine
from pyvision_rl.rollout.episode import Agent, Opening, RolloutConfig, open_task, run_episode
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.types import Completion, Observation, StopReason, Task, Trajectory, Turn
from pyvision_rl.viewer.ask import AskPage
from pyvision_rl.viewer.play import PlayConfig, run_defaults
from pyvision_rl.viewer.terminal import TerminalWatcher, blocks
from tests.viewer.conftest import serving
from tests.viewer.make_video_run import CLIP

TEXTS = [
    "I look at the left.\n<code>\n```python\nprint('<b>looking</b>')\n"
    "plt.imshow(image_clue_0.crop((0, 0, 100, 100)))\nplt.show()\n```\n</code>",
    "Wrong name.\n<code>\n```python\nprint(image_clue_9)\n```\n</code>",
    "A gradient.\n<answer>\n\\boxed{grey}\n</answer>",
]
CONFIG = RolloutConfig(prompt="brief", max_tokens=2000, max_completion_tokens=400)


@pytest.fixture
def pool_config() -> SandboxConfig:
    return SandboxConfig(isolation="best_effort", figures="pixels", timeout_s=5)


@pytest.fixture
def script() -> list[str]:
    """What the agent writes, turn by turn."""
    return list(TEXTS)


def scripted(codec, pool, texts: list[str]) -> Agent:
    engine = ScriptedEngine(codec, lambda context: texts[len(context.turns)])
    return Agent(engine, codec, pool, CONFIG)


@pytest.fixture
def page(codec, pool_config, script):
    """The page of an agent whose sandbox lives in the server's own loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    pool = SandboxPool(pool_config)
    asyncio.run_coroutine_threadsafe(pool.__aenter__(), loop).result(60)
    page = AskPage(scripted(codec, pool, script), "the model", 0, "pixels")
    with serving(page.routes(), loop) as url:
        yield url
    asyncio.run_coroutine_threadsafe(pool.__aexit__(None, None, None), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_turns_come_in_on_the_page(browser, page, image_file):
    tab = browser.tab().goto(page)
    assert "the model" in tab.text(".ask")
    tab.upload("#files", image_file)
    tab.wait("document.querySelector('.preview img')?.naturalWidth === 200")
    tab.click("#question")
    tab.type("What is it?")
    tab.press("Enter")
    tab.wait("document.querySelector('.ending .pill')?.textContent === 'answer: grey'")
    assert tab.count(".turn") == 3
    assert tab.text(".output") == "<b>looking</b>"
    assert "NameError" in tab.text(".output.error")
    tab.wait("document.querySelector('.figures img').naturalWidth > 0")
    assert tab.texts(".boxed .box text") == ["1"]
    tab.close()
    assert tab.complaints == []


FETCH = (
    "I look at three frames.\n<code>\n```python\nframes = video_clue_0.get_batch([0, 71, 143])\n"
    "print(frames.shape)\nplt.imshow(frames[1])\nplt.show()\n```\n</code>"
)


def test_a_video_is_taken_and_its_frames_are_marked(browser, page, script, tmp_path):
    write_clip(tmp_path / "clip.mp4", CLIP.frames)
    script[:] = [FETCH, "<answer>tags</answer>"]
    tab = browser.tab().goto(page)
    tab.upload("#files", tmp_path / "clip.mp4")
    tab.wait_for(".preview video")
    assert tab.text(".preview figcaption") == "video_clue_0 clip.mp4"
    tab.js("document.getElementById('question').focus()")
    tab.type("What is there?")
    tab.press("Enter")
    tab.wait("document.querySelector('.ending .pill')?.textContent === 'answer: tags'")
    assert tab.text(".output") == "(3, 112, 112, 3)"
    assert "144 frames, 0:12 \u00b7 3 fetched" in tab.text(".timeline .caption")
    tab.wait("document.querySelector('.figures img').naturalWidth > 0")
    tab.close()
    assert tab.complaints == []


def test_requests_of_other_pages_are_refused(page):
    """Types that a browser sends across pages without asking first."""
    for address in ("file", "ask"):
        request = Request(f"{page}/api/{address}", b"{}", {"content-type": "text/plain"})
        with pytest.raises(HTTPError) as refused:
            urlopen(request)
        assert refused.value.code == 415


def test_a_file_that_breaks_off_leaves_nothing_behind(tmp_path, monkeypatch):
    """A video may be gigabytes, and the page that sends it is closed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    page = AskPage(None, "the model", 0, "pixels")  # type: ignore[arg-type]
    sent = [
        {"type": "http.request", "body": b"x" * 999, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict:
        return sent.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        """Nobody is there to answer to."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/file",
        "query_string": b"name=clip.mp4",
        "headers": [(b"content-type", b"application/octet-stream")],
    }
    (route,) = (r for r in page.routes() if isinstance(r, Route) and r.path == "/api/file")
    asyncio.run(route.handle(scope, receive, send))
    assert sent == []
    (folder,) = tmp_path.iterdir()
    assert list(folder.iterdir()) == []


def test_an_image_that_is_none_is_said(browser, page, tmp_path):
    (tmp_path / "fake.png").write_text("no image")
    tab = browser.tab().goto(page)
    tab.upload("#files", tmp_path / "fake.png")
    tab.wait(
        "document.querySelector('.notice.bad')?.textContent.startsWith('fake.png: not a read')"
    )
    tab.close()


def test_the_terminal_shows_turns_and_saves_figures(codec, pool_config, image_file, tmp_path):
    out = io.StringIO()
    watcher = TerminalWatcher(Console(file=out, width=80), str(tmp_path / "figures"))

    async def ask() -> None:
        async with SandboxPool(pool_config) as pool:
            agent = scripted(codec, pool, TEXTS)
            opening = open_task(agent, Task("t", "What is [it]?", "", (image_file,)))
            watcher.on_opening(opening)
            places = iter(range(9))
            trajectory = await run_episode(
                agent, opening, 0, lambda turn: watcher.on_turn(next(places), turn)
            )
            watcher.on_end(trajectory)

    asyncio.run(ask())
    text = out.getvalue()
    for part in ("What is [it]?", "200 x 100", "turn 3", "<b>looking</b>", "NameError"):
        assert part in text
    assert text.rstrip().endswith("answered, 3 turns, 2 calls")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["image_clue_1.png"]


def test_the_policy_cannot_steer_the_terminal():
    out = io.StringIO()
    watcher = TerminalWatcher(Console(file=out, width=80), "")
    steering = "\x1b]0;title\x07 \x9b2J \x1b[2J"
    seen = Observation((1,), f"<tool_response>\n{steering}", (), 0, False)
    code = f"print('{steering}')\n"
    text = f"{steering}\n<code>\n```python\n{code}```\n</code>\n<answer>{steering}</answer>"
    turn = Turn(Completion((1,), (0.0,), text, "stop"), seen, code)
    task = Task("t", steering, "")
    watcher.on_opening(Opening(task, (), seen, 4))
    watcher.on_turn(0, turn)
    watcher.on_end(Trajectory(task, seen, (turn,), StopReason.ANSWERED, steering, 0))
    assert out.getvalue().count("title") == 6
    assert not set(out.getvalue()) & {"\x07", "\x1b", "\x9b"}


def test_an_image_as_half_blocks():
    image = Image.new("RGB", (2, 4), "red")
    image.putpixel((1, 3), (0, 0, 255))
    text = blocks(image)
    assert text.plain == "\u2580\u2580\n\u2580\u2580\n"
    last = text.spans[-1].style
    assert str(last) == "#ff0000 on #0000ff"


def test_prompt_and_limits_of_the_run_are_the_defaults(tmp_path):
    tree = "policy: {model: x, pixels: {max_pixels: 999}}\nagent: {rollout: {prompt: brief}}\n"
    (tmp_path / "config.yaml").write_text(tree + "seed: 3\n")
    checkpoint = tmp_path / "checkpoints" / "step-0000001"
    checkpoint.mkdir(parents=True)
    expected = ["--policy.pixels.max_pixels=999", "--agent.rollout.prompt=brief"]
    assert run_defaults(str(tmp_path)) == run_defaults(str(checkpoint)) == expected
    assert run_defaults("Qwen/Qwen2.5-VL-7B-Instruct") == []
    for broken in ("policy: [", "- a list"):
        (tmp_path / "config.yaml").write_text(broken)
        with pytest.raises(InputError, match=r"config\.yaml: not the configuration of a run"):
            run_defaults(str(tmp_path))


def test_a_question_is_needed():
    with pytest.raises(ConfigError, match="ask something"):
        PlayConfig(model="tiny")
