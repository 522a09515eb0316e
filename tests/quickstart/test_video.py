"""What the agent on videos is compared with: scripts through the real sandbox and reward."""

import asyncio
from pathlib import Path

import pytest

import pyvision_rl.configs
from pyvision_rl.cli.parse import parse_config
from pyvision_rl.data.needle_video_files import load_events
from pyvision_rl.quickstart import VideoQuickstartConfig
from pyvision_rl.quickstart.stages import Stages
from pyvision_rl.quickstart.video import VideoTask
from pyvision_rl.sandbox import SandboxConfig, SandboxPool

FILE = Path(pyvision_rl.configs.__file__).parent / "quickstart_video.yaml"


@pytest.fixture
def config() -> VideoQuickstartConfig:
    arguments = [f"--config={FILE}", "--needle_video.num_train=0", "--needle_video.num_test=12"]
    return parse_config("quickstart video", VideoQuickstartConfig, arguments)


def test_scripts_of_the_comparison(config, tmp_path):
    task = VideoTask(config)

    async def play():
        sandbox = SandboxConfig(isolation="best_effort", figures="pixels")
        async with SandboxPool(sandbox) as pool:
            stages = Stages(config, task, tmp_path, pool)
            task.write_data(stages.data)
            texts = task.oracle_texts(stages.data, stages.tests())
            oracle = await stages.play_script("oracle", texts, config.eval.agent.rollout)
            return oracle, await task.compare(stages)

    oracle, comparison = asyncio.run(play())
    events = load_events(tmp_path / "data").values()
    # The middle frames of 36 parts of 4 frames are 2, 6, 10 ...
    covered = [any(n % 4 == 2 for n in range(event.first, event.end)) for event in events]
    assert 0 < sum(covered) < 12

    assert oracle.overall.accuracy == 1.0
    # A sheet is 36 tokens, the middle of a frame 9; those that are not covered take two sheets.
    sheets = 12 + covered.count(False)
    assert oracle.overall.visual_tokens_mean == pytest.approx(9 + 36 * sheets / 12)

    uniform = comparison["uniform"]
    assert uniform["by_kind"]["on_sheet"]["accuracy"] == 1.0
    assert uniform["by_kind"]["on_sheet"]["num_tasks"] == sum(covered)
    assert uniform["by_kind"]["between"]["accuracy"] < 1.0
    assert uniform["ceiling"] == pytest.approx((sum(covered) + 0.1 * covered.count(False)) / 12)
    # 36 frames of 112 x 112 pixels: 4 x 4 tokens each.
    assert uniform["visual_tokens_mean"] == 36 * 16
    assert uniform["tool_calls_mean"] == 0
