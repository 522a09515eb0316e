"""Traces about videos: the tokens of the episodes they came from, in every context."""

import asyncio
import json
from pathlib import Path

import pytest
from PIL import Image

from pyvision_rl.data.traces import read_traces
from pyvision_rl.errors import MediaError
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.rl.samples import make_sample
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.rollout.videos import FramesConfig, VideoConfig
from pyvision_rl.sandbox import CellResult
from pyvision_rl.sft.data import encode_trace
from pyvision_rl.sft.traces import TraceSource, write_traces
from pyvision_rl.types import Task
from tests.clips import encode

LOOK = "look\n<code>\n```python\nplt.imshow(video_clue_0[3])\nplt.show()\n```\n</code>"
ANSWER = "I see 7.\n<answer>\n\\boxed{7}\n</answer>"


class Runtimes:
    """Every program shows one frame."""

    def runtime(self, **_):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None

    async def run(self, code):
        return CellResult("ok", "", [Image.new("RGB", (64, 48), "red")], 0.0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    encode(path, [4 * n for n in range(50)], crf="5")
    return path


@pytest.mark.parametrize(
    ("context", "texts", "num_images"),
    [("on_demand", (LOOK, ANSWER), 1), ("uniform", (ANSWER,), 4), ("hybrid", (LOOK, ANSWER), 5)],
)
def test_a_trace_has_the_tokens_of_its_episode(codec, clip, tmp_path, context, texts, num_images):
    task = Task("t", "When?", "7", videos=(clip, clip))
    config = RolloutConfig(video=VideoConfig(context, num_frames=2))
    agent = Agent(play_texts(codec, {"t": texts}), codec, Runtimes(), config)
    trajectory = asyncio.run(run_episode(agent, open_task(agent, task), seed=1))
    (trace,) = read_traces(write_traces(tmp_path / "traces", [TraceSource(trajectory)]))
    assert [path.resolve() for path in trace.videos] == [clip, clip]
    sample, lived = encode_trace(trace, codec), make_sample(trajectory, 1.0)
    assert (sample.token_ids, sample.loss_mask) == (lived.token_ids, lived.loss_mask)
    assert len(sample.images) == num_images
    assert [i.tobytes() for i in sample.images] == [i.tobytes() for i in lived.images]


def test_images_that_are_only_in_the_runtime_are_no_images_of_the_trace(codec, clip, image_file):
    config = RolloutConfig(images_in_context=False)
    task = Task("t", "Q?", "7", images=(image_file,))
    agent = Agent(play_texts(codec, {"t": [ANSWER]}), codec, Runtimes(), config)
    trajectory = asyncio.run(run_episode(agent, open_task(agent, task), seed=1))
    (trace,) = read_traces(write_traces(clip.parent / "traces", [TraceSource(trajectory)]))
    assert trace.images == ()


def marked_trace(folder: Path, clip: Path):
    talk = [
        {"role": "user", "content": "<video>\nA and <image>, then <video>?"},
        {"role": "assistant", "content": "Yes."},
    ]
    Image.new("RGB", (56, 84)).save(folder / "a.png")
    row = {"conversations": talk, "images": ["a.png"], "videos": [clip.name, clip.name]}
    path = folder / "traces.json"
    path.write_text(json.dumps([row]))
    return read_traces(path)[0]


@pytest.mark.parametrize(
    ("frames", "text", "sizes"),
    [
        (FramesConfig(), "A and <image>, then <video_clue_1>?", [(56, 84)]),
        (
            FramesConfig("uniform", num_frames=2),
            "<image><image>\nA and <image>, then <image><image>?",
            [(56, 56), (56, 56), (56, 84), (56, 56), (56, 56)],
        ),
    ],
)
def test_a_mark_becomes_the_frames_of_the_context(codec, clip, tmp_path, frames, text, sizes):
    sample = encode_trace(marked_trace(tmp_path, clip), codec, frames)
    assert [image.size for image in sample.images] == sizes
    prompt = codec.open_conversation(text, sample.images)
    ids, _ = codec.encode_completion("Yes.")
    assert sample.token_ids == (*prompt.token_ids, *ids)


def test_a_video_that_cannot_be_read_is_named(codec, clip, tmp_path):
    trace = marked_trace(tmp_path, clip)
    clip.write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"clip\.mp4: the video cannot be opened"):
        encode_trace(trace, codec, FramesConfig("uniform"))
