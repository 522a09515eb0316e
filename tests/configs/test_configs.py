"""Every shipped configuration file is one that its command takes."""

from pathlib import Path

import pytest

import pyvision_rl.configs
from pyvision_rl.cli.parse import parse_config
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.quickstart import QuickstartConfig, VideoQuickstartConfig
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.sft.stage import SFTConfig

FOLDER = Path(pyvision_rl.configs.__file__).parent
TINY = FOLDER / "rl" / "image_tiny.yaml"
OVERLAYS = {"paper_code.yaml"}


def rl_config(*files: Path) -> RLConfig:
    return parse_config("rl", RLConfig, [f"--config={file}" for file in files])


@pytest.mark.parametrize("name", sorted(path.name for path in (FOLDER / "rl").glob("*.yaml")))
def test_rl(name):
    rl_config(*([TINY] if name in OVERLAYS else []), FOLDER / "rl" / name)


@pytest.mark.parametrize("name", sorted(path.name for path in (FOLDER / "sft").glob("*.yaml")))
def test_sft(name):
    parse_config("sft", SFTConfig, [f"--config={FOLDER / 'sft' / name}"])


@pytest.mark.parametrize("name", ["image_7b.yaml", "video_7b.yaml", "mixture_7b.yaml"])
def test_what_the_paper_trains_with(name):
    config = rl_config(FOLDER / "rl" / name)
    assert (config.num_steps, config.group_size) == (700, 8)
    assert (config.select.oversample, config.select.num_groups) == (32, 16)
    assert config.learner.learning_rate == 1e-6
    assert config.reward.tool_coef == 0.1
    rollout = config.agent.rollout
    assert (rollout.max_tool_calls, rollout.max_tokens, rollout.temperature) == (4, 32768, 1.0)
    assert (rollout.video.context, rollout.video.template) == ("on_demand", "video")
    assert config.policy.pixels == PixelLimits(3136, 2_000_000)


def test_quickstart_and_the_files_that_it_names():
    config = parse_config("quickstart", QuickstartConfig, [f"--config={FOLDER}/quickstart.yaml"])
    assert config.rl == rl_config(TINY)


def test_the_quickstart_on_videos_and_the_files_that_it_names():
    file = FOLDER / "quickstart_video.yaml"
    config = parse_config("quickstart video", VideoQuickstartConfig, [f"--config={file}"])
    assert config.rl == rl_config(FOLDER / "rl" / "video_tiny.yaml")
    # Traces, training and evaluation put the task in the same words, with no frame.
    assert config.rl.agent.rollout.video == config.eval.agent.rollout.video
    assert config.rl.agent.rollout.video.context == "on_demand"


def test_the_papers_code_goes_over_another_file():
    tiny = rl_config(TINY)
    code = rl_config(TINY, FOLDER / "rl" / "paper_code.yaml")
    assert code.agent.rollout.on_error == "end"
    assert code.reward.count_failed_calls
    assert code.select.unit == "trajectory"
    assert code.select.drop_without_look
    assert code.select.drop_stops == ("max_tokens", "max_images")
    # sizes stay those of the first file
    assert code.select.num_groups == tiny.select.num_groups
    assert code.learner.learning_rate == tiny.learner.learning_rate
    assert code.policy == tiny.policy
