"""An evaluation on a task file: files that go, kills, folders of something else, a judge."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pyvision_rl.data.needle_files import TEST_FILE, NeedleConfig, write_needle
from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.eval.report import Report
from pyvision_rl.eval.stage import EvalConfig, run_eval
from pyvision_rl.eval.store import read_items_file
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.runs import CheckpointConfig, Checkpoints, RunReader
from tests.eval.resumed_eval import config_of
from tests.http import ChatServer, served


@pytest.fixture
def data(tmp_path) -> Path:
    """Twelve needle tasks."""
    write_needle(tmp_path / "data", NeedleConfig(num_train=0, num_test=12))
    return tmp_path / "data" / TEST_FILE


def run(config: EvalConfig, on_task=lambda done, total: None) -> Report:
    return asyncio.run(run_eval(config, on_task))


def images_of(data: Path) -> list[Path]:
    return [data.parent / row["image_path"] for row in json.loads(data.read_text())]


def losing(files: list[Path]):
    """Deletes files when the first task is done."""

    def on_task(done: int, total: int) -> None:
        if done == 1:
            for file in files:
                file.unlink()

    return on_task


def test_files_that_go_are_skipped_up_to_a_bound(data, tmp_path, caplog):
    gone = images_of(data)[3:5]
    counts = []
    delete = losing(gone)

    def on_task(done: int, total: int) -> None:
        counts.append((done, total))
        delete(done, total)

    report = run(config_of(data, tmp_path / "run"), on_task)
    assert (report.overall.num_tasks, report.num_skipped) == (10, 2)
    assert counts == [(n, 12) for n in range(1, 13)]
    skips = [r.getMessage() for r in caplog.records if "is skipped" in r.getMessage()]
    assert len(skips) == 2
    assert "(1 of at most 16)" in skips[0]
    assert str(gone[0]) in skips[0]
    summary = RunReader(tmp_path / "run").summary()
    assert summary is not None
    assert (summary["num_tasks"], summary["num_skipped"]) == (10, 2)
    (row,) = RunReader(tmp_path / "run").metrics()
    assert row.values["data/skipped"] == 2


def test_too_many_files_that_go_end_it_and_nothing_done_is_lost(data, tmp_path):
    config = config_of(data, tmp_path / "run", max_bad_rows=1)
    with pytest.raises(InputError, match=r"2 tasks have turned bad, max_bad_rows is 1$"):
        run(config, losing(images_of(data)[2:4]))
    done = read_items_file(tmp_path / "run" / "items.jsonl")
    assert len(done) == 2
    assert RunReader(tmp_path / "run").summary() is None
    with pytest.raises(ConfigError, match="max_bad_rows"):
        replace(config, max_bad_rows=-1)


def test_a_file_without_tasks_has_no_result(data, tmp_path):
    data.write_text("[]")
    with pytest.raises(InputError, match=r"needle\.json: has no rows$"):
        run(config_of(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_where_no_file_can_be_read_there_is_no_result(data, tmp_path):
    for image in images_of(data):
        image.write_bytes(b"broken")
    with pytest.raises(InputError, match="the files of none of its 12 tasks can be read"):
        run(config_of(data, tmp_path / "run"))
    assert RunReader(tmp_path / "run").summary() is None


def test_a_killed_evaluation_goes_on_and_ends_as_one_that_was_not(data, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tests.eval.resumed_eval", str(data), str(out)]
    process = subprocess.Popen(command)
    items = out / "items.jsonl"
    while process.poll() is None and (not items.exists() or items.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with items.open("ab") as file:
        file.write(b'{"id": "half a li')
    kept = {record.id for record in read_items_file(items)}
    assert 3 <= len(kept) < 12
    counts = []
    resumed = run(config_of(data, out), lambda done, total: counts.append((done, total)))
    assert counts == [(n, 12) for n in range(len(kept) + 1, 13)]
    straight = run(config_of(data, tmp_path / "straight"))
    assert resumed == straight
    summary = RunReader(out).summary()
    assert summary == RunReader(tmp_path / "straight").summary()
    played = RunReader(out).trajectories(phases=["eval"], columns=("task_id",))
    assert sorted(played["task_id"].to_pylist()) == sorted(
        RunReader(tmp_path / "straight").trajectories(columns=("task_id",))["task_id"].to_pylist()
    )
    # Done, it plays nothing, and says the same.
    counts.clear()
    assert run(config_of(data, out), lambda *count: counts.append(count)) == straight
    assert counts == []
    assert len(RunReader(out).metrics()) == 1


def test_a_folder_of_another_evaluation_is_refused(data, tmp_path):
    out = tmp_path / "run"
    few = config_of(data, out, limit=2)
    assert run(few).overall.num_tasks == 2
    with pytest.raises(InputError, match=r"there reward\.tool_coef is 0\.1 and here 0"):
        run(replace(few, reward=replace(few.reward, tool_coef=0)))
    other = tmp_path / "other.json"
    other.write_text(data.read_text())
    with pytest.raises(InputError, match="holds another run, there data is"):
        run(replace(few, data=str(other), image_root=str(data.parent)))
    # The same file, with another question under an id that was played.
    rows = json.loads(data.read_text())
    rows[1]["question"] = "How many?"
    data.write_text(json.dumps(rows))
    message = rf"task {rows[1]['id']} was played with another question, answer or media"
    with pytest.raises(InputError, match=message):
        run(few)
    # A row that is new is played, one that is gone is not counted.
    rows[1] = {**rows[1], "id": "new"}
    data.write_text(json.dumps(rows))
    assert run(few).overall.num_tasks == 2
    assert [record.id for record in read_items_file(out / "items.jsonl")][2:] == ["new"]


def test_a_run_with_a_newer_checkpoint_is_another_policy(data, tmp_path):
    saved = Checkpoints(tmp_path / "rl" / "checkpoints", CheckpointConfig())
    base = Path(checkpoint_folder("tiny"))

    def copy(folder: Path) -> None:
        shutil.copytree(base, folder, dirs_exist_ok=True)

    def save(step: int) -> None:
        saved.save(step, copy, {})

    save(1)
    config = config_of(data, tmp_path / "run", limit=1)
    config = replace(config, policy=replace(config.policy, model=str(tmp_path / "rl")))
    run(config)
    save(2)
    with pytest.raises(InputError, match=r"there policy\.model is '.*step-0000001'"):
        run(replace(config, limit=2))


def judged_by(url: str, **options) -> JudgeConfig:
    judge = JudgeConfig(
        "judge-7b",
        f"{url}/v1",
        max_retries=1,
        backoff_s=0.01,
        usd_per_million_input=1000.0,
        usd_per_million_output=5000.0,
    )
    return replace(judge, **options)


@pytest.fixture
def to_judge(data) -> Path:
    """The tasks, with questions that differ and answers that no rule decides on."""
    rows = json.loads(data.read_text())
    for at, row in enumerate(rows):
        row |= {"question": f"{row['question']} ({at})", "answer": f"it is {at}", "rule": "judge"}
    data.write_text(json.dumps(rows))
    return data


def third_is_right(messages: list[dict]) -> str:
    """A verdict that depends on the gold answer."""
    (gold,) = re.findall(r"it is (\d+)", messages[-1]["content"])
    return "1" if int(gold) % 3 == 0 else "0"


def test_a_judge_decides_and_its_cost_is_in_the_result(to_judge, tmp_path):
    usage = {"prompt_tokens": 100, "completion_tokens": 2}
    judge = ChatServer(write=third_is_right, usage=usage)
    with served(judge.app()) as url:
        config = config_of(to_judge, tmp_path / "run", judge=judged_by(url))
        report = run(config)
        asked = len(judge.bodies)
        summary = RunReader(tmp_path / "run").summary()
        assert run(config) == report
        assert len(judge.bodies) == asked
    records = read_items_file(tmp_path / "run" / "items.jsonl")
    golds = {row["id"]: int(row["answer"].split()[-1]) for row in json.loads(to_judge.read_text())}
    answered = [record for record in records if record.samples[0].answer]
    assert asked == len(answered) > 2
    for record in answered:
        assert record.accuracies == (float(golds[record.id] % 3 == 0),)
    right = sum(record.accuracies[0] for record in records)
    assert right > 0
    assert report.overall.accuracy == right / 12
    cost = {
        "asked": asked,
        "cached": 0,
        "requests": asked,
        "input_tokens": 100 * asked,
        "output_tokens": 2 * asked,
        "usd": pytest.approx(asked * (100 * 1000 + 2 * 5000) / 1e6),
    }
    assert summary is not None
    assert summary["judge"] == cost
    assert RunReader(tmp_path / "run").summary() == summary
    (row,) = RunReader(tmp_path / "run").metrics()
    assert row.values["judge/usd"] == cost["usd"]


def test_a_judge_that_stays_down_ends_it_and_nothing_is_scored_as_wrong(to_judge, tmp_path):
    judge = ChatServer()

    def write(messages: list[dict]) -> str:
        if len(judge.bodies) == 2:
            judge.failures = [(503, "busy")] * 100
        return third_is_right(messages)

    judge.write = write
    with served(judge.app()) as url:
        config = config_of(to_judge, tmp_path / "run", judge=judged_by(url))
        with pytest.raises(PyVisionError, match="gave up after 2 attempts: status 503 busy"):
            run(config)
        assert RunReader(tmp_path / "run").summary() is None
        done = read_items_file(tmp_path / "run" / "items.jsonl")
        assert sum(record.samples[0].answer is not None for record in done) == 2
        judge.failures, judge.write = [], third_is_right
        judge.bodies.clear()
        resumed = run(config)
        asked = len(judge.bodies)
        straight = run(replace(config, out=str(tmp_path / "straight")))
    assert resumed == straight
    summary = RunReader(tmp_path / "run").summary()
    assert summary is not None
    assert summary == RunReader(tmp_path / "straight").summary()
    assert isinstance(summary["judge"], dict)
    assert summary["judge"]["requests"] == asked + 2
