"""The loop on the shipped base, a real sandbox and the needle task."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from pyvision_rl.data.needle_files import TRAIN_FILE, NeedleConfig, write_needle
from pyvision_rl.data.needle_video_files import TRAIN_FILE as CLIPS_FILE
from pyvision_rl.data.needle_video_files import NeedleVideoConfig, write_needle_video
from pyvision_rl.data.stream import STREAM_FILE
from pyvision_rl.errors import InputError, SelectionError
from pyvision_rl.model.hf_engine import EngineConfig
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.lora import LoRAConfig
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.learner import LearnerConfig
from pyvision_rl.rl.select import SelectConfig
from pyvision_rl.rl.train import train
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.rollout.videos import VideoConfig
from pyvision_rl.runs import CheckpointConfig, RecordConfig, RunReader
from pyvision_rl.runs.config import dump_config
from pyvision_rl.sandbox import SandboxConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("needle") / "data"
    write_needle(folder, NeedleConfig(num_train=12, num_test=0, mix=(0, 1, 1)))
    return folder / TRAIN_FILE


def config_for(data: Path, out: Path, num_steps: int) -> RLConfig:
    """Hard items only: the base guesses, so that some of a group's answers are right by chance."""
    return RLConfig(
        policy=PolicyConfig("tiny", PixelLimits(784, 28224)),
        data=str(data),
        out=str(out),
        num_steps=num_steps,
        checkpoint_every=1,
        agent=AgentConfig(
            engine=EngineConfig(schedule="barrier"),
            sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
            rollout=RolloutConfig(prompt="brief", max_tokens=600, max_completion_tokens=60),
        ),
        select=SelectConfig(oversample=6, num_groups=2),
        learner=LearnerConfig(learning_rate=1e-4),
        checkpoints=CheckpointConfig(keep_last=3),
    )


def run(config: RLConfig) -> Path:
    return asyncio.run(train(config, lambda step, metrics: None))


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(
        bool((first[name] == second[name]).all()) for name in first
    )


def test_a_run_learns_records_and_resumes_bit_by_bit(data, tmp_path):
    straight = run(config_for(data, tmp_path / "straight", num_steps=2))
    first = run(config_for(data, tmp_path / "resumed", num_steps=1))
    resumed = run(config_for(data, tmp_path / "resumed", num_steps=2))
    assert not same_weights(first, resumed)
    assert same_weights(straight, resumed)

    reader = RunReader(tmp_path / "resumed")
    assert [row.step for row in reader.metrics()] == [1, 2]
    metrics = reader.metrics()[-1].values
    assert metrics["select/kept"] == 2
    assert metrics["loss/num_tokens"] > 0
    # one update a step: the learner sees the very weights that sampled
    assert metrics["loss/sampler_kl"] < 1e-8
    assert reader.recorded_steps() == [("train", 1), ("train", 2)]
    records = reader.groups(2, "train")
    assert len(records) == metrics["select/drawn"]
    assert sorted(r.rank for r in records if r.rank is not None) == [0, 1]
    assert all(len(record.advantages) == 8 for record in records)
    assert (tmp_path / "resumed" / "curves.png").stat().st_size > 10_000

    loaded = AutoModelForImageTextToText.from_pretrained(resumed)
    assert loaded.config.model_type == "qwen2_5_vl"
    tokenizer = AutoTokenizer.from_pretrained(resumed)
    assert tokenizer is not None
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_run_keeps_the_images_of_as_many_groups_as_it_is_told(data, tmp_path):
    config = config_for(data, tmp_path / "run", 1)
    run(config)
    run(replace(config, num_steps=2, records=RecordConfig(image_groups=1)))
    reader = RunReader(tmp_path / "run")
    assert len(reader.groups(1, "train")) == len(reader.trajectories(steps=[1])) / 8
    ranks = reader.trajectories(steps=[2]).to_pylist()
    (best,) = {row["group"] for row in ranks if row["rank"] == 0}
    (second,) = {row["group"] for row in ranks if row["rank"] == 1}
    assert reader.groups(2, "train", [best])[0].rank == 0
    with pytest.raises(InputError, match="a run may keep those of some groups only"):
        reader.groups(2, "train", [second])


@pytest.mark.parametrize("checkpoint_every", [1, 3])
def test_what_was_learned_is_kept_where_nothing_more_can_be(data, tmp_path, checkpoint_every):
    # The first update breaks the policy: every answer is wrong from then on.
    config = replace(
        config_for(data, tmp_path / "run", 3),
        checkpoint_every=checkpoint_every,
        learner=LearnerConfig(learning_rate=0.1),
        select=SelectConfig(oversample=6, num_groups=2, max_rounds=1),
    )
    with pytest.raises(SelectionError, match="6 groups drawn in 1 rounds, 0 usable"):
        run(config)
    # 6 tasks for step 1, and 6 for the step 2 that failed: they are not drawn again.
    assert tasks_drawn(tmp_path / "run") == {1: [12]}
    with pytest.raises(SelectionError, match="6 groups drawn in 1 rounds, 0 usable"):
        run(config)  # goes on from there
    assert tasks_drawn(tmp_path / "run") == {1: [18]}
    assert [row.step for row in RunReader(tmp_path / "run").metrics()] == [1]


def tasks_drawn(folder: Path) -> dict[int, list[int]]:
    """By the step of each checkpoint, the tasks that were drawn of each set until then."""
    found = RunReader(folder).checkpoints()
    return {kept.step: json.loads((kept.path / STREAM_FILE).read_text())["drawn"] for kept in found}


def test_a_run_goes_on_from_the_base_that_it_began_with(data, tmp_path):
    first = run(config_for(data, tmp_path / "base", 1))
    config = replace(
        config_for(data, tmp_path / "run", 1),
        policy=PolicyConfig(str(tmp_path / "base"), PixelLimits(784, 28224), lora=LoRAConfig(4)),
    )
    run(config)
    assert f"model: {first}\n" in (tmp_path / "run" / "config.yaml").read_text()
    run(config_for(data, tmp_path / "base", 2))  # a newer checkpoint: other weights below adapters
    with pytest.raises(InputError, match=r"holds another run, there policy\.model is"):
        run(replace(config, num_steps=2))


def test_carried_groups_survive_a_resume_bit_by_bit(data, tmp_path):
    def config(out: str, num_steps: int) -> RLConfig:
        base = config_for(data, tmp_path / out, num_steps)
        return replace(base, select=SelectConfig(oversample=8, num_groups=1, max_staleness=1))

    straight = run(config("straight", num_steps=2))
    first = run(config("resumed", num_steps=1))
    assert (first / "trajectories" / "surplus").is_dir()
    resumed = run(config("resumed", num_steps=2))
    assert same_weights(straight, resumed)
    one, two = RunReader(tmp_path / "resumed").metrics()
    assert one.values["select/drawn"] == 8
    # each carried group saves a draw
    assert two.values["select/drawn"] == 8 - one.values["select/surplus"] < 8


def test_a_folder_of_another_run_is_refused(data, tmp_path):
    config = config_for(data, tmp_path / "run", num_steps=1)
    run(config)
    written = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="holds another run, there seed is 0 and here 1"):
        run(replace(config, seed=1))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == written


def num_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 4])
def test_killed_at_random_moments_a_run_ends_as_if_it_had_not_been(data, tmp_path, rank):
    def adapted(out: Path) -> RLConfig:
        base = config_for(data, out, num_steps=5)
        return replace(base, policy=replace(base.policy, lora=LoRAConfig(rank)))

    straight = run(adapted(tmp_path / "straight"))
    killed = tmp_path / "killed"
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(adapted(killed)))
    command = [sys.executable, "-m", "pyvision_rl.cli", "rl", "--config", str(config)]
    rng = random.Random(0)
    for kill in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        while num_logged(killed) <= kill:
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.8))
        assert process.poll() is None, "ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert same_weights(straight, killed / "checkpoints" / straight.name)
    lines = (killed / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_images_and_videos_in_one_run(data, tmp_path):
    write_needle_video(tmp_path / "clips", NeedleVideoConfig(num_train=4, num_test=0))
    mixture = tmp_path / "mixture.yaml"
    clips = tmp_path / "clips" / CLIPS_FILE
    mixture.write_text(f"- {{data: {data}, weight: 2}}\n- {{data: {clips}, weight: 1}}\n")
    base = config_for(mixture, tmp_path / "run", num_steps=1)
    rollout = replace(base.agent.rollout, video=VideoConfig(prompt="brief"))
    run(replace(base, agent=replace(base.agent, rollout=rollout)))

    reader = RunReader(tmp_path / "run")
    drawn = [record.group for record in reader.groups(1, "train")]
    given = {bool(g.task.videos): g.trajectories[0].num_visual_tokens_given for g in drawn}
    assert given == {False: 36, True: 0}
    assert sum(bool(group.task.videos) for group in drawn) * 3 == len(drawn)
    metrics = reader.metrics()[0].values
    assert metrics["rollout/visual_tokens_given"] == pytest.approx(36 * 2 / 3)
