"""Scripts that cannot be played to their end are no traces."""

import asyncio

import pytest

from pyvision_rl.data.needle import TraceTurn
from pyvision_rl.data.traces import read_traces
from pyvision_rl.errors import PyVisionError
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.sft.play import play_traces
from pyvision_rl.types import Task

CODE = "<code>\n```python\n{}\n```\n</code>"
ANSWER = TraceTurn("<answer>\n\\boxed{7}\n</answer>")
COUNT = TraceTurn(CODE.format("print(7)"))
FAIL = TraceTurn(CODE.format("print(1 / 0)"))


@pytest.fixture
def play(codec, image_file, tmp_path):
    def play(*turns: TraceTurn, max_tool_calls: int = 4):
        async def written():
            config = SandboxConfig(isolation="best_effort", figures="pixels")
            rollout = RolloutConfig(prompt="brief", max_tool_calls=max_tool_calls)
            async with SandboxPool(config) as pool:
                return await play_traces(
                    tmp_path, [task], {"t": turns}, codec, pool, rollout, seed=0
                )

        task = Task("t", "which?", "7", images=(image_file,))
        return read_traces(asyncio.run(written()))

    return play


def test_a_script_becomes_a_trace(play):
    (trace,) = play(COUNT, ANSWER)
    assert [m.text for m in trace.messages if m.role == "assistant"] == [COUNT.text, ANSWER.text]


def test_a_script_that_does_not_reach_its_answer_is_an_error(play, tmp_path):
    message = "task t: its script ended as {} with {} failed programs"
    with pytest.raises(PyVisionError, match=message.format("max_turns", 0)):
        play(COUNT, COUNT, ANSWER, max_tool_calls=1)
    # What it says it saw, it did not see.
    with pytest.raises(PyVisionError, match=message.format("answered", 1)):
        play(FAIL, ANSWER)
    assert not (tmp_path / "traces.json").exists()
