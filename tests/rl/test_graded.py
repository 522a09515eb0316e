"""The loop with a judge behind a real HTTP server, and with rows that turn bad on the way."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pyvision_rl.data.bad_rows import BadRows
from pyvision_rl.data.needle_files import TRAIN_FILE, NeedleConfig, write_needle
from pyvision_rl.errors import ConfigError, InputError, MediaError, PyVisionError
from pyvision_rl.model.hf_engine import EngineConfig
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.learner import LearnerConfig
from pyvision_rl.rl.select import SelectConfig
from pyvision_rl.rl.train import train
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.runs import RunReader
from pyvision_rl.sandbox import SandboxConfig
from pyvision_rl.types import Task
from tests.http import ChatServer, served, unused_address


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Needle tasks whose answers are to be judged."""
    folder = tmp_path_factory.mktemp("needle") / "data"
    write_needle(folder, NeedleConfig(num_train=6, num_test=0, mix=(0, 1, 1)))
    path = folder / TRAIN_FILE
    rows = json.loads(path.read_text())
    for row in rows:
        row["reward_model"]["rule"] = "judge"
    path.write_text(json.dumps(rows))
    return path


def config_for(data: Path, out: Path, url: str) -> RLConfig:
    return RLConfig(
        policy=PolicyConfig("tiny", PixelLimits(784, 28224)),
        data=str(data),
        out=str(out),
        num_steps=1,
        agent=AgentConfig(
            engine=EngineConfig(schedule="barrier"),
            sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
            rollout=RolloutConfig(prompt="brief", max_tokens=600, max_completion_tokens=60),
        ),
        judge=JudgeConfig("judge-7b", f"{url}/v1", max_retries=1, backoff_s=0.01),
        select=SelectConfig(oversample=4, num_groups=1),
        learner=LearnerConfig(learning_rate=1e-4),
    )


def run(config: RLConfig) -> None:
    asyncio.run(train(config, lambda step, metrics: None))


def odd_is_right(messages: list[dict]) -> str:
    """A verdict that depends on the answer, which stands between two lines of the prompt."""
    answer = messages[-1]["content"].split("--------")[1]
    return "1" if re.search(r"[13579]", answer) else "0"


def test_a_judge_decides_in_rl_and_its_cost_is_told(data, tmp_path):
    judge = ChatServer(write=odd_is_right)
    with served(judge.app()) as url:
        config = config_for(data, tmp_path / "run", url)
        run(config)
        (row,) = RunReader(tmp_path / "run").metrics()
        asked = len(judge.bodies)
        assert asked > 0
        assert row.values["judge/requests"] == asked
        assert row.values["judge/asked"] == row.values["judge/cached"] + asked
        judged = {
            record.group.trajectories[at].answer: record.group.rewards[at].accuracy
            for record in RunReader(tmp_path / "run").groups(1, "train")
            for at in range(8)
            if record.group.trajectories[at].answer != record.group.task.answer
        }
        assert {1.0, 0.0} <= set(judged.values())
        # Another run with the same verdict folder asks for none of them again: its trajectories are
        # the same ones, but for those that a busy machine plays otherwise.
        shared = replace(config.judge, cache=str(tmp_path / "run"))
        run(replace(config, out=str(tmp_path / "again"), judge=shared))
        (again,) = RunReader(tmp_path / "again").metrics()
        questions = [body["messages"][0]["content"] for body in judge.bodies]
        assert len(set(questions)) == len(questions) < 2 * asked
        assert again.values["judge/cached"] > row.values["judge/cached"]


def test_a_judge_that_stays_down_ends_the_step(data, tmp_path):
    judge = ChatServer(failures=[(503, "busy")] * 1000)
    with served(judge.app()) as url:
        config = config_for(data, tmp_path / "run", url)
        with pytest.raises(PyVisionError, match="gave up after 2 attempts: status 503 busy"):
            run(config)
    assert RunReader(tmp_path / "run").metrics() == []
    assert RunReader(tmp_path / "run").recorded_steps() == []
    judge = ChatServer(write=odd_is_right)
    with served(judge.app()) as url:
        run(replace(config, judge=replace(config.judge, url=f"{url}/v1", max_requests=1000)))
    assert len(RunReader(tmp_path / "run").metrics()) == 1


def test_rows_that_want_a_judge_end_a_run_without_one(data, tmp_path):
    config = replace(config_for(data, tmp_path / "run", unused_address()), judge=JudgeConfig())
    with pytest.raises(InputError, match=r"its rule 'judge' needs a judge: set judge\.model"):
        run(config)
    # Found before anything was played.
    assert not (tmp_path / "run").exists()


def test_rows_that_turn_bad_are_skipped_up_to_a_bound(data, tmp_path, caplog):
    """Files that go after the data were read: the loop reads an image when it plays its task."""
    folder = tmp_path / "data"
    write_needle(folder, NeedleConfig(num_train=6, num_test=0, mix=(0, 1, 1)))
    config = config_for(folder / TRAIN_FILE, tmp_path / "run", unused_address())
    config = replace(
        config,
        num_steps=2,
        judge=JudgeConfig(),
        select=SelectConfig(oversample=6, num_groups=1),
    )
    names = [row["mm_hint"]["hint_path"] for row in json.loads((folder / TRAIN_FILE).read_text())]

    def lose(count: int, config: RLConfig) -> None:
        def on_step(step: int, metrics: object) -> None:
            if step == 1:
                for name in names[:count]:
                    (folder / name).unlink()

        asyncio.run(train(config, on_step))

    lose(2, config)
    first, second = RunReader(tmp_path / "run").metrics()
    assert first.values["data/skipped"] == 0
    # Every round draws each of the six tasks once.
    rounds = (second.values["select/drawn"] + second.values["data/skipped"]) / 6
    assert second.values["data/skipped"] == 2 * rounds
    skips = [r.getMessage() for r in caplog.records if "is skipped" in r.getMessage()]
    assert len(skips) == 2
    assert "(2 of at most 16)" in skips[1]
    assert names[1] in skips[0] + skips[1]


def test_the_bound_of_bad_rows():
    rows = BadRows(limit=1)
    broken = MediaError("a.png: no such image file")
    for _ in range(3):
        rows.skip(Task("q1", "?", "1"), broken)
    assert rows.take_metrics() == {"data/skipped": 3.0}
    assert rows.take_metrics() == {"data/skipped": 0.0}
    message = r"^task q2: a.png: no such image file; 2 tasks have turned bad, max_bad_rows is 1$"
    with pytest.raises(InputError, match=message):
        rows.skip(Task("q2", "?", "1"), broken)
    with pytest.raises(ConfigError, match="max_bad_rows"):
        RLConfig(PolicyConfig("tiny"), "data", "out", max_bad_rows=-1)
