import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import Qwen2_5_VLConfig

from pyvision_rl.cli.parse import parse_config
from pyvision_rl.eval.stage import EvalConfig
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.preflight.doctor import examine
from pyvision_rl.preflight.dry_run import dry_run
from pyvision_rl.preflight.machine import GB, available_ram, free_disk
from pyvision_rl.preflight.plan import changes_to_fit, estimate, workload
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.config import dump_config
from pyvision_rl.sft.stage import SFTConfig

SHIPPED = Path(__file__).parents[2] / "pyvision_rl" / "configs" / "rl"


@pytest.fixture(scope="module")
def qwen_7b(tmp_path_factory) -> Path:
    """Only the config.json of Qwen2.5-VL-7B, with the sizes that its card names."""
    folder = tmp_path_factory.mktemp("qwen")
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
        tie_word_embeddings=False,
    )
    (folder / "config.json").write_text(config.to_json_string())
    return folder


def shipped(name: str, model: Path) -> RLConfig:
    config = parse_config("rl", RLConfig, [f"--config={SHIPPED / name}"])
    return replace(config, policy=replace(config.policy, model=str(model)))


@pytest.fixture
def tasks(tmp_path, image_file) -> Path:
    path = tmp_path / "tasks.json"
    row = {"id": "a", "question": "?", "answer": "7", "image_path": image_file.name}
    path.write_text(json.dumps([row]))
    return path


def test_7b_has_8_3_billion_parameters_and_56_kb_of_keys_a_token(qwen_7b):
    parts = estimate(shipped("image_7b_lora_80gb.yaml", qwen_7b))
    assert parts.parameters - parts.trainable == pytest.approx(8.29e9, rel=0.01)
    assert parts.held["weights"] == 2 * parts.parameters
    # 28 layers x key and value x 4 heads of 128 x 2 bytes = 57,344 bytes
    # of 1/8 more rows and 1/4 more tokens than are needed
    assert parts.transient["KV cache"] == 262144 * 45 / 32 * 57344


def test_the_shipped_lora_configuration_fits_its_card(qwen_7b):
    assert estimate(shipped("image_7b_lora_80gb.yaml", qwen_7b)).total < 78 * GB


def test_all_weights_of_7b_need_more_than_one_card_and_it_says_what_helps(qwen_7b):
    config = shipped("image_7b.yaml", qwen_7b)
    assert estimate(config).total > 80 * GB
    changes, total = changes_to_fit(config, 78 * GB)
    assert total <= 78 * GB
    assert any(override.startswith("policy.lora") for override, _ in changes)
    assert sum(saved for _, saved in changes) == estimate(config).total - total


def test_workloads(tmp_path):
    policy = PolicyConfig("tiny")
    rl = RLConfig(policy, "d", "o")
    # 32 x 8 contexts of 32768 would be 8.4 million tokens; the cache holds 262144
    assert workload(rl).kv_tokens == 262144
    assert workload(rl).train_tokens == 32768
    long = replace(rl, learner=replace(rl.learner, micro_batch_tokens=1024))
    assert workload(long).train_tokens == 32768
    assert workload(SFTConfig(policy, "d", "o")).kv_tokens == 0
    assert workload(EvalConfig(policy, "d", "o")).train_tokens == 0


def test_a_dry_run_reads_no_weight_and_says_all(qwen_7b, tasks):
    config = replace(
        shipped("image_7b.yaml", qwen_7b), data=str(tasks), out=str(tasks.parent / "run")
    )
    found = dry_run(config, memory_gb=24)
    text = "\n".join(found.lines)
    assert not found.ok
    assert "num_steps: 700" in text
    assert "1 tasks, 1 images" in text
    assert "8.29B parameters, 7.62B of them trained" in text
    assert "does not fit: cuda has 24.00 GB" in text
    assert "policy.lora: {rank: 32" in text
    assert not (tasks.parent / "run").exists()
    assert dry_run(config).ok  # no such device here: nothing to compare with


def test_a_dry_run_of_what_fits(tasks):
    config = EvalConfig(PolicyConfig("tiny"), str(tasks), str(tasks.parent / "run"))
    found = dry_run(config, memory_gb=4)
    assert found.ok
    assert "fits: cpu has 4.00 GB" in found.lines


@pytest.mark.parametrize("stage", [EvalConfig, RLConfig])
def test_a_dry_run_knows_a_run_whose_base_is_another_runs_newest_checkpoint(tasks, stage):
    newest = tasks.parent / "base" / "checkpoints" / "step-0000001"
    shutil.copytree(checkpoint_folder("tiny"), newest)
    (newest / "checkpoint.json").write_text('{"step": 1, "metrics": {}}')
    out = tasks.parent / "run"
    begun = stage(PolicyConfig(str(newest)), str(tasks), str(out))
    with RunFolder.create(out, dump_config(begun)) as run:
        run.log(1, {})
    asked = replace(begun, policy=PolicyConfig(str(tasks.parent / "base")))
    assert dry_run(asked, memory_gb=4).lines[-1].endswith("goes on with the run that is there")


def test_bad_data_stops_a_dry_run(tasks):
    (tasks.parent / "picture.png").unlink()
    config = EvalConfig(PolicyConfig("tiny"), str(tasks), str(tasks.parent / "run"))
    found = dry_run(config, memory_gb=4)
    assert not found.ok
    assert any("picture.png" in line for line in found.lines)


def test_the_doctor_fits_one_screen():
    lines, _ = examine()
    assert len(lines) <= 30
    assert lines[0].startswith("pyvision-rl ")
    assert any("seccomp" in line for line in lines)


def test_the_machine():
    assert 0 < available_ram() < 2**50
    assert free_disk(Path("/none/of/this")) > 0
