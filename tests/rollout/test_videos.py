"""Video tasks: what the prompt says, and a scripted policy that fetches frames in a sandbox."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.rollout.videos import read_info
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.types import StopReason, Task, Trajectory
from tests.clips import encode

CLIPS = Path(__file__).parents[3] / "shared" / "data" / "videos"
CONFIG = RolloutConfig(max_tokens=4000, max_completion_tokens=1000)
ANSWER = "It is 7.\n<answer>\n\\boxed{7}\n</answer>"


def call(code: str) -> str:
    return f"look\n<code>\n```python\n{code}\n```\n</code>"


class Stage:
    """One event loop and one strict pool for all episodes of this file."""

    def __init__(self, runner: asyncio.Runner, pool: SandboxPool, codec: ChatCodec) -> None:
        self.runner = runner
        self.pool = pool
        self.codec = codec

    def play(self, task: Task, *texts: str, config: RolloutConfig = CONFIG) -> Trajectory:
        agent = Agent(play_texts(self.codec, {task.id: texts}), self.codec, self.pool, config)
        return self.runner.run(run_episode(agent, open_task(agent, task), seed=1))


@pytest.fixture(scope="module")
def stage(codec: ChatCodec) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        pool = SandboxPool(SandboxConfig(isolation="strict", figures="pixels"))
        runner.run(pool.__aenter__())
        yield Stage(runner, pool, codec)
        runner.run(pool.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """64 x 48, 50 frames at 25 per second."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    encode(path, [4 * n for n in range(50)], g="12", crf="5")
    return path


def printed(trajectory: Trajectory) -> list[str]:
    """What each call printed, without its wrapping."""
    texts = [turn.observation.text for turn in trajectory.turns if turn.observation]
    return [text.split("Text Result:\n")[1].split("\n<")[0].split("</i")[0] for text in texts]


def test_the_context_starts_without_a_frame(stage, clip):
    trajectory = stage.play(Task("t", "When?", "7", videos=(clip,)), ANSWER)
    assert "video_clue_0 is 64 x 48, 50 frames, 25 fps, 2 s." in trajectory.prompt.text
    assert "Question: When?" in trajectory.prompt.text
    assert trajectory.prompt.images == ()
    assert trajectory.num_visual_tokens == 0


def test_frames_are_fetched_and_shown(stage, clip):
    code = "plt.imshow(video_clue_0[37].asnumpy())\nplt.show()"
    trajectory = stage.play(Task("t", "When?", "7", videos=(clip,)), call(code), ANSWER)
    assert trajectory.stop is StopReason.ANSWERED
    first = trajectory.turns[0].observation
    assert first is not None
    assert "<image_clue_0><image></image_clue_0>" in first.text
    # 64 x 48 in multiples of 28
    (shown,) = first.images
    assert shown.size == (56, 56)
    assert trajectory.num_visual_tokens == 4


def test_several_videos_and_an_image(stage, clip, image_file, tmp_path):
    other = tmp_path / "other.mkv"
    encode(other, [10 * n for n in range(20)], crf="5")
    task = Task("t", "Which?", "7", images=(image_file,), videos=(clip, other))
    lengths = "print(image_clue_0.size, len(video_clue_0), len(video_clue_1))"
    code = f"{lengths}\nplt.imshow(video_clue_1[3])\nplt.show()"
    trajectory = stage.play(task, call(code), ANSWER)
    assert "image_clue_0 is 200 x 100; video_clue_0 is 64 x 48, 50 frames" in trajectory.prompt.text
    assert "video_clue_1 is 64 x 48, 20 frames" in trajectory.prompt.text
    assert "<image_clue_0><image></image_clue_0>\n\nYou are" in trajectory.prompt.text
    first = trajectory.turns[0].observation
    assert first is not None
    assert printed(trajectory) == ["(200, 100) 50 20\nImage Result:"]
    assert "<image_clue_1><image>" in first.text


def test_the_tiny_prompt_serves_both(stage, clip, image_file):
    config = RolloutConfig(prompt="brief", video=type(CONFIG.video)(prompt="brief"))
    image = stage.play(Task("t", "Q?", "", images=(image_file,)), ANSWER, config=config)
    assert image.prompt.text.endswith("if you need to. image_clue_0 is 200 x 100.\nQ?")
    video = stage.play(Task("t", "Q?", "", videos=(clip,)), ANSWER, config=config)
    assert video.prompt.text == (
        "Find it with Python if you need to. video_clue_0 is 64 x 48, 50 frames, 25 fps, 2 s.\nQ?"
    )


def test_a_video_that_cannot_be_read_is_named(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(InputError, match=r"broken\.mp4: the video cannot be opened: Invalid data"):
        read_info(broken)
    with pytest.raises(InputError, match=r"gone\.mp4: the video cannot be opened: No such file"):
        read_info(tmp_path / "gone.mp4")
