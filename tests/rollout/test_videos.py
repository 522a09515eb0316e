"""Video tasks: what the prompt says, and a scripted policy that fetches frames in a sandbox."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from pyvision_rl.errors import ConfigError, MediaError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.rollout.videos import FramesConfig, VideoConfig, open_video, read_info
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


def probe(path: Path) -> dict[str, str]:
    """What ffprobe says of the first video stream, its frames counted one by one."""
    entries = "stream=width,height,avg_frame_rate,nb_read_frames,duration,start_time"
    command = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0"]
    output = subprocess.check_output([*command, "-show_entries", entries, "-of", "json", path])
    return json.loads(output)["streams"][0]


REPORT = """
times = video_clue_0.get_frame_timestamp([0, -1])
print(len(video_clue_0), video_clue_0.get_avg_fps(), times[-1][1] - times[0][0])
middle = len(video_clue_0) // 2
sheet = video_clue_0.get_batch(np.linspace(0, len(video_clue_0) - 1, 4).astype(int)).asnumpy()
print(sheet.shape, np.array_equal(video_clue_0[middle].asnumpy(), video_clue_0[middle]))
plt.imshow(np.hstack(sheet[:, ::4, ::4]))
plt.show()
"""


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed")
@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "nasa_13013.mp4"])
def test_real_clips_are_what_ffprobe_says(stage, name):
    path = CLIPS / name
    if not path.exists():
        pytest.skip(f"no clip {path}")
    expected = probe(path)
    width, height = int(expected["width"]), int(expected["height"])
    fps, num_frames = float(Fraction(expected["avg_frame_rate"])), int(expected["nb_read_frames"])
    info = read_info(path)
    assert (info.width, info.height, info.num_frames) == (width, height, num_frames)
    assert info.fps == fps
    assert info.duration_s == pytest.approx(float(expected["duration"]), abs=1e-3)

    trajectory = stage.play(Task("t", "When?", "7", videos=(path,)), call(REPORT), ANSWER)
    assert (
        f"video_clue_0 is {width} x {height}, {num_frames} frames, {fps:g} fps, "
        f"{float(expected['duration']):g} s." in trajectory.prompt.text
    )
    assert trajectory.num_ok_tool_calls == 1
    assert trajectory.stop is StopReason.ANSWERED
    facts, shapes, *_ = printed(trajectory)[0].splitlines()
    num, rate, duration = map(float, facts.split())
    assert (num, rate) == (num_frames, fps)
    assert duration == pytest.approx(float(expected["duration"]), abs=1e-3)
    assert shapes == f"(4, {height}, {width}, 3) True"
    observation = trajectory.turns[0].observation
    assert observation is not None
    assert len(observation.images) == 1
    assert trajectory.num_visual_tokens_given == 0
    assert trajectory.num_visual_tokens_shown == observation.num_visual_tokens > 0


def test_the_tiny_prompt_serves_both(stage, clip, image_file):
    config = RolloutConfig(prompt="brief", video=VideoConfig(prompt="brief"))
    image = stage.play(Task("t", "Q?", "", images=(image_file,)), ANSWER, config=config)
    assert image.prompt.text.endswith("if you need to. image_clue_0 is 200 x 100.\nQ?")
    video = stage.play(Task("t", "Q?", "", videos=(clip,)), ANSWER, config=config)
    assert video.prompt.text == (
        "Find it with Python if you need to. video_clue_0 is 64 x 48, 50 frames, 25 fps, 2 s.\nQ?"
    )


@pytest.mark.parametrize(
    ("num_frames", "fps", "numbers"),
    [
        (4, 0.0, (6, 18, 31, 43)),  # the middles of parts of 12.5 frames
        (1, 0.0, (25,)),
        (99, 0.0, tuple(range(50))),  # no more than there are
        (99, 2.0, (6, 18, 31, 43)),  # 2 s
        (3, 2.0, (8, 25, 41)),  # num_frames is the most
        (99, 0.1, (25,)),
    ],
)
def test_which_frames_the_context_starts_with(clip, num_frames, fps, numbers):
    config = FramesConfig("uniform", num_frames, fps)
    assert open_video(clip, config).numbers == numbers


def test_a_uniform_context_has_frames_and_no_tool(stage, clip):
    config = replace(CONFIG, video=VideoConfig("uniform", num_frames=3))
    task = Task("t", "When?", "7", videos=(clip,))
    trajectory = stage.play(task, ANSWER, config=config)
    assert trajectory.prompt.text == (
        "<image><image><image>\n\n"
        "You see 3 frames of video_clue_0, one every 0.67 s from 0.32 s on.\n\nWhen?\n"
        "Think step by step, then end with the answer in a box:\n"
        "<answer>\n\\boxed{your answer}\n</answer>"
    )
    assert [image.size for image in trajectory.prompt.images] == [(56, 56)] * 3
    assert (trajectory.num_visual_tokens_given, trajectory.num_visual_tokens_shown) == (12, 0)
    assert trajectory.stop is StopReason.ANSWERED
    refused = stage.play(task, call("print(1)"), ANSWER, config=config)
    assert (refused.stop, refused.num_tool_calls) == (StopReason.MAX_TURNS, 0)


def test_a_hybrid_context_has_frames_that_are_variables_and_the_tool(stage, clip, image_file):
    config = replace(CONFIG, video=VideoConfig("hybrid", num_frames=2))
    task = Task("t", "When?", "7", images=(image_file,), videos=(clip, clip))
    look = (
        "same = [np.array_equal(image_clue_2, video_clue_0[37]), "
        "np.array_equal(image_clue_3, video_clue_1[12])]\n"
        "print(same, image_clue_0.size)\nplt.imshow(video_clue_0[0])\nplt.show()"
    )
    trajectory = stage.play(task, call(look), ANSWER, config=config)
    assert (
        "You have seen image_clue_1 to image_clue_2, frames 12, 37 of video_clue_0; "
        "image_clue_3 to image_clue_4, frames 12, 37 of video_clue_1: fetch the frames"
    ) in trajectory.prompt.text
    assert "<image_clue_4><image></image_clue_4>\n\nYou are" in trajectory.prompt.text
    (observation,) = [turn.observation for turn in trajectory.turns if turn.observation]
    assert "[True, True] (200, 100)" in observation.text
    assert "<image_clue_5><image></image_clue_5>" in observation.text
    assert trajectory.num_visual_tokens_given == 28 + 4 * 4
    assert trajectory.num_visual_tokens_shown == 4


def test_images_that_are_only_in_the_runtime_keep_the_first_names(stage, clip, image_file):
    config = replace(CONFIG, images_in_context=False, video=VideoConfig("hybrid", num_frames=1))
    task = Task("t", "When?", "7", images=(image_file,), videos=(clip,))
    trajectory = stage.play(task, call("print(image_clue_1.size)"), ANSWER, config=config)
    assert "<image_clue_1><image></image_clue_1>" in trajectory.prompt.text
    assert "You have seen image_clue_1, frame 25 of video_clue_0:" in trajectory.prompt.text
    assert len(trajectory.prompt.images) == 1
    assert printed(trajectory) == ["(64, 48)"]


def test_image_tasks_are_what_they_are_in_every_context(stage, image_file):
    task = Task("t", "Q?", "7", images=(image_file,))
    contexts = [replace(CONFIG, video=VideoConfig(c)) for c in ("on_demand", "uniform", "hybrid")]
    plays = [stage.play(task, call("print(5)"), ANSWER, config=config) for config in contexts]
    assert plays[0] == plays[1] == plays[2]
    assert plays[0].num_tool_calls == 1


def test_who_has_a_tool(clip, image_file):
    image, video = Task("i", "Q?", "", (image_file,)), Task("v", "Q?", "", (image_file,), (clip,))
    calls = {
        context: [
            RolloutConfig(max_tool_calls=3, video=VideoConfig(context)).tool_calls_for(task)
            for task in (image, video)
        ]
        for context in ("on_demand", "uniform", "hybrid")
    }
    assert calls == {"on_demand": [3, 3], "uniform": [3, 0], "hybrid": [3, 3]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"fps": -1.0}, "fps not negative"),
    ],
)
def test_impossible_contexts_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        VideoConfig(**settings)


def test_a_hybrid_context_leaves_room_to_show_something():
    with pytest.raises(ConfigError, match=r"num_frames: 32, must be below max_images \(32\)"):
        RolloutConfig(video=VideoConfig("hybrid", num_frames=32))


def test_a_video_that_cannot_be_read_is_named(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"broken\.mp4: the video cannot be opened: Invalid data"):
        read_info(broken)
    with pytest.raises(MediaError, match=r"gone\.mp4: the video cannot be opened: No such file"):
        read_info(tmp_path / "gone.mp4")
