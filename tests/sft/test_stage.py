"""The SFT stage from files to a checkpoint: packed or padded, watched or not, the same weights."""

import asyncio
import json
from dataclasses import replace

import pytest
from PIL import Image
from safetensors.torch import load_file

from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.runs import RunReader
from pyvision_rl.sandbox import SandboxConfig
from pyvision_rl.sft.stage import SFTConfig, run_sft
from pyvision_rl.sft.train import SFTTrainConfig
from pyvision_rl.sft.unseen import Unseen, UnseenConfig, unseen_metrics
from pyvision_rl.types import StopReason
from tests.build import group
from tests.sft.traces import SMALL, observation_row, system_row, trace_file, trace_row

AGENT = AgentConfig(
    sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
    rollout=RolloutConfig(prompt="brief", max_tokens=300, max_completion_tokens=12, temperature=0),
)


def config_of(folder, out, **changes) -> SFTConfig:
    rows = [trace_row(), observation_row(), system_row(), trace_row(shown="1 2 3")] * 2
    config = SFTConfig(
        policy=PolicyConfig("tiny", SMALL),
        data=str(trace_file(folder, rows)),
        out=str(out),
        train=SFTTrainConfig(
            num_epochs=2, batch_size=4, learning_rate=1e-3, warmup_steps=0, micro_batch_tokens=600
        ),
    )
    return replace(config, **changes)


def task_file(folder):
    Image.new("RGB", (84, 56), "red").save(folder / "task.png")
    row = {"question": "Which colour?", "answer": "red", "image_path": "task.png"}
    path = folder / "tasks.json"
    path.write_text(json.dumps([{"id": f"t{at}", **row} for at in range(3)]))
    return path


def train(config) -> tuple[dict, list]:
    checkpoint = run_sft(config, lambda step, total, metrics: None)
    return load_file(checkpoint / "model.safetensors"), RunReader(checkpoint.parents[1]).metrics()


def test_traces_that_are_packed_together_teach_the_same_as_one_by_one(tmp_path):
    config = config_of(tmp_path, tmp_path / "alone")
    alone = replace(config, train=replace(config.train, micro_batch_tokens=1))
    packed = replace(
        config, out=str(tmp_path / "packed"), train=replace(config.train, micro_batch_tokens=8192)
    )
    _, one_by_one = train(alone)
    _, together = train(packed)
    assert [row.step for row in one_by_one] == [1, 2, 3, 4]
    for one, other in zip(one_by_one, together, strict=True):
        assert one.values["loss/num_tokens"] == other.values["loss/num_tokens"]
        assert one.values["loss/sft"] == pytest.approx(other.values["loss/sft"], abs=1e-4)
        assert one.values["learner/grad_norm"] == pytest.approx(
            other.values["learner/grad_norm"], rel=1e-3
        )


def test_unseen_tasks_are_played_and_change_nothing(tmp_path):
    config = config_of(tmp_path, tmp_path / "plain")
    unseen = UnseenConfig(data=str(task_file(tmp_path)), every=3, limit=2, agent=AGENT)
    plain, _ = train(config)
    watched = replace(config, out=str(tmp_path / "watched"), unseen=unseen)

    async def as_the_quickstart_calls_it():
        return train(watched)

    weights, rows = asyncio.run(as_the_quickstart_calls_it())
    assert all(weights[name].equal(tensor) for name, tensor in plain.items())
    assert [row.step for row in rows if "eval/format" in row.values] == [3, 4]
    told = rows[-1].values
    assert 0 <= told["eval/accuracy"] <= told["eval/format"] <= 1
    assert {"loss/sft", "eval/tool_calls_mean", "eval/zero_call_share"} <= told.keys()


def test_what_unseen_tasks_meet_costs_no_training(tmp_path, monkeypatch, caplog):
    data = task_file(tmp_path)
    (tmp_path / "task.png").write_bytes(b"broken since")
    config = config_of(tmp_path, tmp_path / "run", unseen=UnseenConfig(data=str(data), agent=AGENT))
    weights, rows = train(config)
    assert "task t0 is not played: " in caplog.text
    assert "eval/format" not in rows[-1].values

    def fails(*_):
        raise PyVisionError("no sandbox")

    monkeypatch.setattr(Unseen, "play", fails)
    with pytest.raises(PyVisionError, match="no sandbox"):
        train(replace(config, out=str(tmp_path / "other")))
    (saved,) = (tmp_path / "other").rglob("model.safetensors")
    assert all(weights[name].equal(tensor) for name, tensor in load_file(saved).items())


def test_when_tasks_are_played(tmp_path):
    data = str(task_file(tmp_path))
    at_the_end = Unseen(UnseenConfig(data=data), seed=0)
    often = Unseen(UnseenConfig(data=data, every=2), seed=0)
    never = Unseen(UnseenConfig(every=2), seed=0)
    assert [step for step in range(1, 6) if at_the_end.is_due(step, 5)] == [5]
    assert [step for step in range(1, 6) if often.is_due(step, 5)] == [2, 4, 5]
    assert not never.is_due(5, 5)


def test_what_is_counted():
    stops = {
        1: StopReason.NO_ACTION,
        2: StopReason.MAX_TURNS,
        3: StopReason.SANDBOX_LOST,
        4: StopReason.MAX_TOKENS,
    }
    one = group((1.0, 0.1), *[(0.0, 0.0)] * 4, stops=stops)
    # Of four that count one was right, and two well-formed: too many turns are no fault of form.
    assert unseen_metrics([one]) == {
        "eval/accuracy": 0.25,
        "eval/format": 0.5,
        "eval/tool_calls_mean": 0.0,
        "eval/zero_call_share": 1.0,
    }


def test_a_file_without_traces_is_refused(tmp_path):
    config = config_of(tmp_path, tmp_path / "out")
    (tmp_path / "traces.json").write_text("[]")
    with pytest.raises(InputError, match=r"traces\.json: has no rows$"):
        train(config)
    assert not (tmp_path / "out").exists()


def test_a_bad_image_is_named_by_its_row(tmp_path):
    config = config_of(tmp_path, tmp_path / "out")
    Image.new("RGB", (4000, 2)).save(tmp_path / "thin.png")
    row = trace_row() | {"images": ["picture.png", "thin.png"]}
    trace_file(tmp_path, [trace_row(), row])
    with pytest.raises(InputError, match=r"traces\.json: row 1: .*thin\.png: 4000 x 2 pixels"):
        train(config)


def test_an_optimizer_that_cannot_be():
    for clip, decay in ((-1.0, 0.0), (0.0, 0.0), (1.0, -0.1)):
        with pytest.raises(ConfigError, match="need grad_clip > 0 and weight_decay >= 0"):
            SFTTrainConfig(grad_clip=clip, weight_decay=decay)


def test_bad_unseen_tasks_are_found_before_training(tmp_path):
    unseen = UnseenConfig(data=str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        train(config_of(tmp_path, tmp_path / "out", unseen=unseen))
    prompt = replace(AGENT, rollout=replace(AGENT.rollout, prompt="nope"))
    unseen = UnseenConfig(data=str(task_file(tmp_path)), agent=prompt)
    with pytest.raises(InputError, match="prompt nope: neither a shipped template"):
        train(config_of(tmp_path, tmp_path / "out", unseen=unseen))
    rows = json.loads(task_file(tmp_path).read_text())
    (tmp_path / "judged.json").write_text(json.dumps([row | {"rule": "judge"} for row in rows]))
    unseen = UnseenConfig(data=str(tmp_path / "judged.json"), agent=AGENT)
    with pytest.raises(InputError, match="task t0: its rule 'judge' needs a judge"):
        train(config_of(tmp_path, tmp_path / "out", unseen=unseen))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="unseen: limit"):
        UnseenConfig(every=-1)
