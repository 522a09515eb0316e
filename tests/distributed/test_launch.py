"""What a start on verl checks before Ray is asked for anything, and what it says of a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pyvision_rl.distributed.config import DistributedConfig, VerlConfig
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.model.tiny import TINY_BASE
from pyvision_rl.reward.reward import RewardConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.runs import RunFolder
from tests.http import unused_address

pytestmark = pytest.mark.usefixtures("verl")


def start(config: DistributedConfig) -> None:
    from pyvision_rl.distributed.launch import train_on_verl

    train_on_verl(config, lambda step, metrics: None)


@pytest.fixture
def config(tmp_path, image_file) -> DistributedConfig:
    """A run on a mixture, at a Ray cluster that is not there."""
    row = {"id": "a", "question": "?", "answer": "7", "image_path": image_file.name}
    (tmp_path / "tasks.json").write_text(json.dumps([row]))
    (tmp_path / "mixture.yaml").write_text("- {data: tasks.json, weight: 2}\n")
    return DistributedConfig(
        policy=PolicyConfig("tiny", PixelLimits(784, 28224)),
        data=str(tmp_path / "mixture.yaml"),
        out=str(tmp_path / "run"),
        engine="verl",
        verl=VerlConfig(
            flash_attention=False, ray_address=unused_address().removeprefix("http://")
        ),
    )


def test_a_cluster_that_is_not_there_is_said_at_once(config):
    with pytest.raises(ConfigError, match=r"verl\.ray_address: 127\.0\.0\.1:\d+: cannot be reach"):
        start(config)


def test_files_that_are_not_there_are_named_and_nothing_is_written(config, tmp_path):
    prompt = AgentConfig(rollout=RolloutConfig(prompt="no.txt"))
    (tmp_path / "empty.json").write_text("[]")
    wrong = {
        "none.json": replace(config, data=str(tmp_path / "none.json")),
        "has no tasks": replace(config, data=str(tmp_path / "empty.json")),
        "its rule 'judge'": replace(config, reward=RewardConfig(rule="judge")),
        "model /none: no such folder": replace(config, policy=PolicyConfig("/none")),
        "no.txt": replace(config, agent=prompt),
    }
    for message, asked in wrong.items():
        with pytest.raises(InputError, match=message):
            start(asked)
    assert not (tmp_path / "run").exists()


def test_the_checkpoint_itself_is_recorded_as_the_base(config, tmp_path):
    def write(folder: Path) -> None:
        shutil.copytree(TINY_BASE, folder, dirs_exist_ok=True)

    with RunFolder.create(tmp_path / "base", "seed: 5\n") as base:
        base.checkpoints.save(3, write, {})
    with pytest.raises(ConfigError, match="cannot be reached"):
        start(replace(config, policy=replace(config.policy, model=str(tmp_path / "base"))))
    recorded = yaml.safe_load(Path(config.out, "config.yaml").read_text())
    assert recorded["policy"]["model"] == str(tmp_path / "base" / "checkpoints" / "step-0000003")


def test_steps_and_warnings_of_the_runner_are_said_once(tmp_path, caplog):
    from pyvision_rl.distributed.launch import Follower

    steps: list[int] = []
    with RunFolder.create(tmp_path / "run", "seed: 5\n") as run:
        run.log(1, {"reward/mean": 0.5})
        run.write_warnings([{"step": 1, "cause": "old", "text": "said before"}])
        follower = Follower(run.path, lambda step, metrics: steps.append(step))
        run.log(2, {"reward/mean": 0.6})
        said = {"step": 2, "cause": "calls", "text": "calls die out"}
        run.write_warnings([{"step": 1, "cause": "old", "text": "said before"}, said])
        follower.tell()
        follower.tell()
    assert steps == [2]
    assert caplog.messages == ["calls die out"]


def test_what_helps_where_memory_ran_out_may_be_set_anew(config):
    with pytest.raises(ConfigError, match="cannot be reached"):
        start(config)
    begun = Path(config.out, "config.yaml").read_text()
    with RunFolder.create(Path(config.out), begun, resume=True) as run:
        run.log(1, {"reward/mean": 0.5})
    smaller = replace(config, learner=replace(config.learner, micro_batch_tokens=1024))
    offloading = replace(smaller, verl=replace(config.verl, offload=True))
    with pytest.raises(ConfigError, match="cannot be reached"):
        start(offloading)
    with pytest.raises(InputError, match="holds another run, there seed is 0"):
        start(replace(offloading, seed=1))
