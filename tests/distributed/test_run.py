"""Whole runs on verl on a CPU: Ray, FSDP2, TransferQueue, real sandboxes, real rewards, a policy
that knows the needle task. Minutes each: `make test-verl`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.runs import MetricRow, RunReader
from pyvision_rl.runs.folder import is_locked
from tests.distributed.conftest import CPU_ENVIRONMENT
from tests.http import unused_address

pytestmark = [pytest.mark.usefixtures("verl"), pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CPU = Path(__file__).with_name("cpu.yaml")
TINY = ROOT / "configs" / "rl" / "image_tiny.yaml"
ENVIRONMENT = {**os.environ, **CPU_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
PATIENCE_S = 3600


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "pyvision_rl.cli", *arguments]


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory) -> Path:
    """Folder of a quickstart that was cut short: `sft/` knows the protocol, `data/` has tasks."""
    out = tmp_path_factory.mktemp("quickstart") / "run"
    small = ["--rl.num_steps=1", "--needle.num_train=96", "--needle.num_test=6"]
    subprocess.run(
        command("quickstart", f"--out={out}", *small), env=ENVIRONMENT, cwd=ROOT, check=True
    )
    return out


def arguments_of(cold_start: Path, out: Path, *more: str) -> list[str]:
    return [
        f"--config={TINY}",
        f"--config={CPU}",
        f"--policy.model={cold_start / 'sft'}",
        f"--data={cold_start / 'data' / 'train.json'}",
        f"--out={out}",
        "--checkpoint_every=1",
        "--learner.num_minibatches=1",
        *more,
    ]


def start(
    cold_start: Path, out: Path, *more: str, program: Path | None = None
) -> subprocess.Popen[str]:
    """The command line; `program`: a file of a user's own that hands over to it."""
    words = command("rl", *arguments_of(cold_start, out, *more))
    if program:
        words[3:5] = [str(program)]
    return subprocess.Popen(
        words,
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Everything that it said; it must end well."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return said


def rows_of(out: Path) -> list[MetricRow]:
    return RunReader(out).metrics() if (out / "config.yaml").is_file() else []


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def killed_and_resumed(cold_start, tmp_path_factory) -> Path:
    """A run of three steps, killed after the second one's checkpoint and started again."""
    out = tmp_path_factory.mktemp("verl") / "run"
    process = start(cold_start, out, "--num_steps=3")
    wait_for(lambda: len(RunReader(out).checkpoints() if rows_of(out) else []) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    while is_locked(out):  # Ray notices that its driver is gone
        time.sleep(0.5)
    finish(start(cold_start, out, "--num_steps=3"))
    return out


def test_a_killed_run_goes_on_to_its_end(killed_and_resumed):
    reader = RunReader(killed_and_resumed)
    assert [row.step for row in reader.metrics()] == [1, 2, 3]
    assert reader.recorded_steps() == [("train", 1), ("train", 2), ("train", 3)]
    # the last two, and the best one wherever it is
    assert [checkpoint.step for checkpoint in reader.checkpoints()][-2:] == [2, 3]
    assert not reader.running


def is_on_policy(row: MetricRow) -> bool:
    """A token's probability is that with which it was sampled, shown images included.

    What is left is rounding in float32: the embedded engine has 7.5e-6 on the same trajectories.
    """
    return (
        row.values["rollout/visual_tokens_shown"] > 0 and row.values["loss/probs_diff_max"] < 2e-5
    )


def test_trainer_and_sampler_agree_on_trajectories_with_shown_images(killed_and_resumed):
    for row in rows_of(killed_and_resumed):
        assert is_on_policy(row)
        assert row.values["learner/grad_norm"] > 0


def test_the_first_step_is_that_of_the_embedded_engine(cold_start, killed_and_resumed, tmp_path):
    arguments = arguments_of(cold_start, tmp_path / "run", "--num_steps=1")
    arguments.remove(f"--config={CPU}")
    subprocess.run(command("rl", *arguments), env=ENVIRONMENT, cwd=ROOT, check=True)
    [ours] = rows_of(tmp_path / "run")
    theirs = rows_of(killed_and_resumed)[0]
    alike = [key for key in ours.values if not key.startswith(("time/", "rate/"))]
    assert {key: theirs.values.get(key) for key in alike} == pytest.approx(
        {key: ours.values[key] for key in alike}, rel=1e-3, abs=1e-5
    )


def test_checkpoints_are_in_the_layout_of_hugging_face_and_differ(killed_and_resumed):
    first, second = RunReader(killed_and_resumed).checkpoints()[-2:]
    one, two = (load_file(at.path / "model.safetensors") for at in (first, second))
    changed = {name for name in one if not one[name].equal(two[name])}
    assert changed
    assert not any("visual" in name for name in changed)
    policy = Policy.load(PolicyConfig(str(second.path)))
    assert policy.codec.tokenizer.eos_token == "<|im_end|>"
    assert (second.path / "preprocessor_config.json").is_file()


def test_another_run_in_the_folder_is_refused_before_anything_starts(
    cold_start, killed_and_resumed
):
    process = start(cold_start, killed_and_resumed, "--num_steps=3", "--seed=5")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "holds another run, there seed is 0 and here 5" in said.splitlines()[-1]


def test_two_ranks_share_an_update(cold_start, tmp_path):
    out = tmp_path / "run"
    finish(start(cold_start, out, "--num_steps=2", "--verl.gpus_per_node=2"))
    rows = rows_of(out)
    assert [row.step for row in rows] == [1, 2]
    for row in rows:
        assert is_on_policy(row)
        assert row.values["learner/grad_norm"] > 0
    newest = RunReader(out).checkpoints()[-1].path
    assert sorted(path.name for path in (newest / "verl").glob("model_*")) == [
        "model_world_size_2_rank_0.pt",
        "model_world_size_2_rank_1.pt",
    ]
    # with as many ranks as before, or not at all
    process = start(cold_start, out, "--num_steps=3")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "verl.gpus_per_node is 2 and here 1" in said.splitlines()[-1]


ONE_GROUP = ("--select.oversample=1", "--select.num_groups=1")


def last_line(process: subprocess.Popen[str], status: int) -> str:
    """What a run says that ends with `status`."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, said
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def test_too_few_usable_groups_are_one_line(cold_start, tmp_path):
    # easy items are answered alike by all of a group: never all eight groups are usable
    all_of_eight = ["oversample=8", "num_groups=8", "min_groups=8", "max_rounds=1"]
    process = start(cold_start, tmp_path / "run", *(f"--select.{word}" for word in all_of_eight))
    said = last_line(process, 1)
    assert said.startswith("pyvision-rl: 8 groups drawn in 1 rounds, ")
    assert "group/constant" in said


def test_a_judge_that_is_down_is_one_line(cold_start, tmp_path):
    url = unused_address()
    judge = ("model=judge-7b", f"url={url}/v1", "max_retries=0")
    options = ("--reward.rule=judge", *(f"--judge.{word}" for word in judge), *ONE_GROUP)
    said = last_line(start(cold_start, tmp_path / "run", *options), 1)
    assert said.startswith(f"pyvision-rl: judge at {url}/v1/chat/completions: gave up after 1 att")
    assert rows_of(tmp_path / "run") == []


MINE = """
import sys

from pyvision_rl.cli.main import main
from pyvision_rl.reward import register_rule


def broken(task, answer):
    raise ZeroDivisionError("no area")


register_rule("broken", broken)
if __name__ == "__main__":
    sys.exit(main())
"""


def test_a_rule_of_ones_own_is_known_there_and_where_it_fails_is_one_line(cold_start, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    process = start(cold_start, tmp_path / "run", "--reward.rule=broken", *ONE_GROUP, program=mine)
    said = last_line(process, 2)
    assert said.startswith("pyvision-rl: task ")
    assert f"rule 'broken' failed in {mine}, line 9: ZeroDivisionError: no area" in said
    assert not (tmp_path / "run" / "failure.txt").exists()
