"""LLaMA-Factory itself on exported folders: its tokens, its labels, its trainer.

Runs in a virtual environment of its own (`make test-llamafactory`), of which the variable
LLAMAFACTORY_PYTHON names the interpreter.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pyvision_rl.data.needle_files import TEST_FILE, TRAIN_FILE, NeedleConfig, load_plans
from pyvision_rl.data.needle_files import write_needle as write_needle_tasks
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.data.traces import read_traces
from pyvision_rl.eval.stage import EvalConfig, run_eval
from pyvision_rl.model.batch import Sample, collate
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.inputs import make_patches
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.tiny import TINY_BASE
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.sft.data import encode_trace
from pyvision_rl.sft.llamafactory import ExportConfig, RecipeConfig, export_llamafactory
from pyvision_rl.sft.needle import NeedleTraceConfig, write_needle_traces
from tests.sft.traces import trace_file

PYTHON = os.environ.get("LLAMAFACTORY_PYTHON", "")
DEMO = Path(__file__).parents[3] / "shared" / "data" / "llamafactory_mllm_demo" / "mllm_demo.json"
HERE = Path(__file__).parent
PIXELS = PixelLimits(3136, 28224)
SANDBOX = SandboxConfig(isolation="best_effort", figures="pixels")
ROLLOUT = RolloutConfig(prompt="brief", max_tokens=1024, max_completion_tokens=96, temperature=0)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LLAMAFACTORY_PYTHON is not set"),
]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Offline, and where PyPI's torchvision does not load beside a CPU torch, a way around."""
    found = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    loads = subprocess.run([PYTHON, "-c", "import torchvision, torchaudio"], capture_output=True)
    return found | ({"PYTHONPATH": str(HERE / "cpu_torch")} if loads.returncode else {})


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The tiny base, but for the base of its vision positions: transformers 5.6, the last that
    LLaMA-Factory takes, reads none and has 10,000 built in.
    """
    folder = tmp_path_factory.mktemp("model") / "base"
    shutil.copytree(TINY_BASE, folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["rope_parameters"]["rope_theta"] = 10_000.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec.from_folder(TINY_BASE, PIXELS)


@pytest.fixture(scope="module")
def needle(codec, tmp_path_factory) -> Path:
    """Traces that were played in the sandbox; `data/` beside them holds tasks."""
    folder = tmp_path_factory.mktemp("needle")
    write_needle_tasks(folder / "data", NeedleConfig(num_train=12, num_test=6, seed=3))
    tasks = read_tasks(folder / "data" / TRAIN_FILE)
    plans = load_plans(folder / "data")

    async def play() -> Path:
        looks = NeedleTraceConfig(one_look=(0, 1, 0), two_looks=(0, 0, 1))
        async with SandboxPool(SANDBOX) as pool:
            return await write_needle_traces(
                folder, tasks, plans, codec, pool, ROLLOUT, looks, seed=0
            )

    return asyncio.run(play())


def demo_file(folder: Path) -> Path:
    """LLaMA-Factory's own demo, with pictures of ours in place of its photos, which it left out."""
    rows = json.loads(DEMO.read_text())
    gradient = Image.linear_gradient("L")
    for number, name in enumerate(sorted({name for row in rows for name in row["images"]})):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        gradient.resize((150 + 40 * number, 131)).convert("RGB").save(path, quality=90)
    path = folder / "demo.json"
    path.write_text(json.dumps(rows))
    return path


def export(data: Path, out: Path, model: Path, **recipe) -> Path:
    made = RecipeConfig(dtype="float32", **recipe)
    config = ExportConfig(
        str(data), str(out), str(model), pixels=PIXELS, max_tokens=2000, recipe=made
    )
    return export_llamafactory(config).folder


def run(environment, folder: Path, *command: str) -> str:
    """Run a program of LLaMA-Factory's environment in a folder."""
    program = Path(PYTHON).with_name(command[0])
    done = subprocess.run(
        [str(program), *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def samples_of(data: Path, codec: ChatCodec) -> list[Sample]:
    return [encode_trace(trace, codec) for trace in read_traces(data)]


def with_line_feeds(sample: Sample, codec: ChatCodec) -> Sample:
    """The sample as LLaMA-Factory has it: a line feed closes it, and each one after an assistant's
    end of turn is learned too.
    """
    (line_feed,) = codec.tokenizer.encode("\n")
    ids, mask = [*sample.token_ids, line_feed], [*sample.loss_mask, 0]
    for at in range(1, len(ids)):
        if ids[at - 1] == codec.end_of_turn_id and mask[at - 1]:
            assert ids[at] == line_feed
            mask[at] = 1
    return Sample(tuple(ids), tuple(mask), (0.0,) * len(ids), 1.0, sample.images)


@pytest.mark.parametrize("kind", ["every form", "needle", "demo"])
def test_its_rows_are_our_samples(environment, base, codec, needle, tmp_path, kind):
    if kind == "demo" and not DEMO.is_file():
        pytest.skip(f"{DEMO} is not here")
    source = tmp_path / "source"
    source.mkdir()
    files = {"every form": trace_file, "needle": lambda _: needle, "demo": demo_file}
    data = files[kind](source)
    out = export(data, tmp_path / "out", base)
    run(environment, out, "python", str(HERE / "llamafactory_rows.py"), "train.yaml", "rows.json")
    theirs = json.loads((out / "rows.json").read_text())

    ours = [with_line_feeds(sample, codec) for sample in samples_of(data, codec)]
    assert len(theirs) == len(ours) >= 4
    policy = Policy.load(PolicyConfig(str(base), PIXELS))
    for mine, row in zip(ours, theirs, strict=True):
        assert row["ids"] == list(mine.token_ids)
        pairs = zip(mine.token_ids, mine.loss_mask, strict=True)
        assert row["labels"] == [token if learn else -100 for token, learn in pairs]
        if mine.images:
            patches, _ = make_patches(policy.vision.processor, mine.images)
            np.testing.assert_allclose(row["pixels"], patches.double().sum(0), rtol=0, atol=1e-3)


def loss_of(model: Path, samples: list[Sample]) -> float:
    """Minus the mean log-prob of a trace's learned tokens, averaged over the traces: what
    LLaMA-Factory takes for one trace a device and gradients accumulated.
    """
    policy = Policy.load(PolicyConfig(str(model), PIXELS))
    losses = []
    for sample in samples:
        batch = collate([sample], policy.pad_id, policy.device)
        with torch.no_grad():
            logprobs, _ = policy.token_logprobs(
                batch.token_ids_BT, batch.attention_mask_BT, batch.loss_mask_BT, batch.images
            )
        losses.append(-float(logprobs.sum()) / sample.num_loss_tokens)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("finetuning", ["full", "lora"])
def test_it_trains_what_we_evaluate(environment, base, codec, needle, tmp_path, finetuning):
    samples = [with_line_feeds(sample, codec) for sample in samples_of(needle, codec)]
    out = export(
        needle,
        tmp_path / "out",
        base,
        finetuning=finetuning,
        num_epochs=6,
        batch_size=len(samples),
        learning_rate=5e-3,
    )
    run(environment, out, "llamafactory-cli", "train", "train.yaml")
    model = out / "checkpoint"
    if finetuning == "lora":
        run(environment, out, "llamafactory-cli", "export", "merge.yaml")
        model = out / "merged"
    steps = [json.loads(line) for line in (out / "checkpoint" / "trainer_log.jsonl").open()]
    losses = [step["loss"] for step in steps if "loss" in step]
    # The first step is taken on all traces: tokens, pixels, positions and labels in one number.
    before = loss_of(base, samples)
    assert losses[0] == pytest.approx(before, rel=1e-4)
    after = loss_of(model, samples)
    assert after < before - 0.3
    report = asyncio.run(
        run_eval(
            EvalConfig(
                policy=PolicyConfig(str(model), PIXELS),
                data=str(needle.parent / "data" / TEST_FILE),
                out=str(tmp_path / "eval"),
                agent=AgentConfig(sandbox=SANDBOX, rollout=ROLLOUT),
            ),
            lambda done, total: None,
        )
    )
    assert report.overall.num_tasks == 6


def test_the_recipe_is_read_whole(environment, base, needle, tmp_path):
    """A key that LLaMA-Factory did not know would be an error there; a wrong value would not."""
    out = export(needle, tmp_path / "out", base)
    script = (
        "import json, yaml; from llamafactory.hparams import get_train_args as get;"
        "m, d, t, f, g = get(yaml.safe_load(open('train.yaml')));"
        "print(json.dumps([m.image_max_pixels, d.cutoff_len, t.gradient_accumulation_steps,"
        "t.learning_rate, f.freeze_vision_tower, f.freeze_multi_modal_projector]))"
    )
    said = run(environment, out, "python", "-c", script).splitlines()[-1]
    told = yaml.safe_load((out / "train.yaml").read_text())
    assert json.loads(said) == [28224, 2000, 32, told["learning_rate"], True, True]
