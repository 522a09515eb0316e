import asyncio
from collections import Counter

import pytest

from pyvision_rl.data.needle_video_files import (
    TRAIN_FILE,
    NeedleVideoConfig,
    load_events,
    write_needle_video,
)
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.data.traces import read_traces
from pyvision_rl.errors import ConfigError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.tiny import TINY_BASE
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.rollout.videos import VideoConfig
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.sft.data import encode_trace
from pyvision_rl.sft.needle_video import NeedleVideoTraceConfig, write_needle_video_traces

ALWAYS_ENOUGH = NeedleVideoTraceConfig((0, 0, 1), (0, 0, 0, 1))
NEVER_ENOUGH = NeedleVideoTraceConfig((0, 1, 0), (0, 0.5, 0.5, 0))


def write(folder, config):
    """Traces of 6 clips, played in the sandbox; and the tasks."""
    codec = ChatCodec.from_folder(TINY_BASE, PixelLimits(3136, 28224))
    rollout = RolloutConfig(video=VideoConfig(prompt="brief"))
    tasks = read_tasks(folder / "data" / TRAIN_FILE)
    events = load_events(folder / "data")

    async def play():
        async with SandboxPool(SandboxConfig(isolation="best_effort", figures="pixels")) as pool:
            return await write_needle_video_traces(
                folder, tasks, events, codec, pool, rollout, config, 0
            )

    return read_traces(asyncio.run(play())), tasks, codec


@pytest.fixture
def folder(tmp_path):
    write_needle_video(tmp_path / "data", NeedleVideoConfig(num_train=6, num_test=0))
    return tmp_path


def test_traces_look_until_they_know(folder):
    traces, tasks, codec = write(folder, ALWAYS_ENOUGH)
    for trace, task in zip(traces, tasks, strict=True):
        num_sheets = 1 if task.ability == "on_sheet" else 2
        sample = encode_trace(trace, codec)
        assert [image.size for image in sample.images] == [(168, 168)] * num_sheets + [(84, 84)]
        assert trace.messages[0].num_images == 0
        assert "video_clue_0 is 112 x 112, 144 frames, 12 fps, 12 s" in trace.messages[0].text
        assert trace.messages[-1].text.startswith(f"I see {task.answer}.")
        assert trace.excluded == ()


def test_guesses_are_left_out_of_the_loss(folder):
    traces, tasks, _ = write(folder, NEVER_ENOUGH)
    for trace, task in zip(traces, tasks, strict=True):
        (span,) = trace.excluded
        last = trace.messages[-1].text
        assert (span.message, last[span.start : span.end]) == (len(trace.messages) - 1, task.answer)
    assert Counter(len(trace.images) for trace in traces).keys() <= {1, 2}


@pytest.mark.parametrize("shares", [(0, 0, 0), (1, -1, 1)])
def test_shares_must_be_shares(shares):
    with pytest.raises(ConfigError, match=r"traces\.on_sheet"):
        NeedleVideoTraceConfig(on_sheet=shares)
