"""A benchmark from its file to its numbers: played, killed, resumed, scored again, compared."""

import asyncio
import csv
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.eval.benchmark_stage import BenchmarkConfig, load_items, resolve, run_benchmark
from pyvision_rl.eval.compare import CompareConfig, compare_runs
from pyvision_rl.eval.store import read_items_file
from pyvision_rl.eval.tool_ablation import ablate_tool
from pyvision_rl.reward.judge_config import JudgeConfig
from pyvision_rl.runs import RunReader
from tests.eval.benchmarks.files import base64_png, tsv
from tests.eval.resumed_run import config_of
from tests.http import ChatServer, served, unused_address

COLOURS = ["red", "green", "blue", "white", "black", "yellow"]
LOOK = "look\n<code>\n```python\nprint(image_clue_0.getpixel((5, 5)))\n```\n</code>"
PIXELS = {
    "red": "255, 0, 0",
    "green": "0, 128, 0",
    "blue": "0, 0, 255",
    "white": "255, 255, 255",
    "black": "0, 0, 0",
    "yellow": "255, 255, 0",
}


def table(folder, num=6):
    """Colours to name, two options each; the right one is A for every other item."""
    rows = []
    for at in range(num):
        right, wrong = COLOURS[at % 6], COLOURS[(at + 1) % 6]
        options = (right, wrong) if at % 2 == 0 else (wrong, right)
        row = {
            "index": at,
            "question": "Which colour?",
            "A": options[0],
            "B": options[1],
            "answer": "AB"[at % 2],
            "category": "direct_attributes" if at < 2 else "relative_position",
            "image": base64_png(right),
        }
        rows.append(row)
    return tsv(folder / "VStarBench.tsv", rows)


def words(message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)


def measuring(messages) -> str:
    """Prints a pixel, then names the colour that was printed."""
    if len(messages) == 2:
        return LOOK
    seen = words(messages[-1])
    options = [line for line in words(messages[1]).splitlines() if line[1:3] == ". "]
    named = [o for o in options if f"({PIXELS[o[3:]]})" in seen]
    return f"<answer>\n\\boxed{{{named[0][0]}}}\n</answer>"


def guessing(messages) -> str:
    return "<answer>\n\\boxed{A}\n</answer>"


@pytest.fixture
def chat():
    return ChatServer()


@pytest.fixture
def url(chat):
    with served(chat.app()) as address:
        yield address


def run(config):
    return asyncio.run(run_benchmark(config, lambda done, total: None))


def test_from_a_table_to_numbers(chat, url, tmp_path):
    chat.write = measuring
    counts = []
    config = config_of(table(tmp_path), tmp_path / "run", url, max_episodes=1)
    result = asyncio.run(run_benchmark(config, lambda done, total: counts.append((done, total))))
    values = {metric.name: metric.value for metric in result.metrics}
    assert values == {
        "accuracy": 1.0,
        "accuracy/direct_attributes": 1.0,
        "accuracy/relative_position": 1.0,
    }
    assert result.behaviour["tool_calls_mean"] == 1.0
    assert result.stops == {"answered": 6}
    assert sorted(counts) == [(n, 6) for n in range(1, 7)]
    first, second, *_ = result.lines()
    assert first.startswith("vstar  accuracy 100.00 [61.0, 100.0]  (6 items x 1 samples, 0 lost)")
    assert second == "protocol paper: rules on the answer block; scorer vstar-2"
    # V*'s decoding is nearly greedy, without top-k
    assert {body["temperature"] for body in chat.bodies} == {0.01}
    assert not any("top_k" in body for body in chat.bodies)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"][0]["name"] == "accuracy"
    reader = RunReader(tmp_path / "run")
    assert reader.recorded_steps() == [("vstar", step) for step in range(6)]
    (record,) = reader.groups(0, "vstar")
    first_turn = record.group.trajectories[0].turns[0]
    assert first_turn.observation is not None
    assert PIXELS[COLOURS[int(record.group.task.id)]] in first_turn.observation.text
    assert math.isnan(first_turn.completion.logprobs[0])


def test_predictions_for_other_harnesses(chat, url, tmp_path):
    chat.write = guessing
    run(config_of(table(tmp_path), tmp_path / "run", url, num_samples=2))
    with (tmp_path / "run" / "predictions.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["index"] for row in rows] == [str(n) for n in range(6)]
    assert rows[1] == {
        "index": "1",
        "question": "Which colour?",
        "A": "blue",
        "B": "green",
        "answer": "B",
        "category": "direct_attributes",
        "prediction": "A",
        "accuracy": "0.0",
    }
    lines = (tmp_path / "run" / "samples_vstar.jsonl").read_text().splitlines()
    sample = json.loads(lines[0])
    assert (sample["doc_id"], sample["target"], sample["accuracy"]) == (0, "A", 1.0)
    assert sample["filtered_resps"] == ["A", "A"]
    assert sample["resps"] == [["<answer>\n\\boxed{A}\n</answer>"] * 2]
    assert sample["doc"]["options"] == {"A": "red", "B": "green"}


def test_a_killed_run_goes_on_and_loses_nothing_done(chat, url, tmp_path):
    chat.write, chat.delay_s = measuring, 0.1
    data, out = table(tmp_path, 12), tmp_path / "run"
    command = [sys.executable, "-m", "tests.eval.resumed_run", str(data), str(out), url]
    process = subprocess.Popen(command)
    items = out / "items.jsonl"
    while process.poll() is None and (not items.exists() or items.read_bytes().count(b"\n") < 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with items.open("ab") as file:
        file.write(b'{"id": "half a li')
    kept = {record.id for record in read_items_file(items)}
    assert 3 <= len(kept) < 12
    chat.bodies.clear()
    chat.delay_s = 0
    result = run(config_of(data, out, url))
    assert len(chat.bodies) == 2 * (12 - len(kept))
    records = read_items_file(items)
    assert sorted(int(record.id) for record in records) == list(range(12))
    straight = run(config_of(data, tmp_path / "straight", url))
    assert result.metrics == straight.metrics
    steps = RunReader(out).recorded_steps()
    assert [step for _, step in steps] == sorted({record.step for record in records})
    played = RunReader(out).trajectories(columns=("step", "task_id")).to_pylist()
    assert {(r["task_id"], r["step"]) for r in played} == {(r.id, r.step) for r in records}


def test_a_finished_run_is_only_scored_again(chat, url, tmp_path):
    chat.write = lambda messages: "<answer>\nsurely the answer is A, not something else\n</answer>"
    config = config_of(table(tmp_path), tmp_path / "run", url)
    paper = run(config)
    num_requests = len(chat.bodies)
    lenient = run(replace(config, protocol="official"))
    assert len(chat.bodies) == num_requests
    assert (paper.main.value, lenient.main.value) == (0.0, 0.5)
    assert lenient.scorer == "letter or words of an option found in the answer"


def test_rows_that_change_under_a_run_are_not_scored(chat, url, tmp_path):
    chat.write = guessing
    data = table(tmp_path)
    config = config_of(data, tmp_path / "run", url, limit=4)
    assert run(config).main.value == 0.5
    before = data.read_text()
    for old, new in (("\tA\tdirect", "\tB\tdirect"), ("Which colour?", "What colour?")):
        data.write_text(before.replace(old, new))
        with pytest.raises(InputError, match="task 0 was played with another question, answer or"):
            run(replace(config, protocol="official"))
    # A row that was not played yet may change.
    data.write_text(before.replace("\n5\tWhich", "\n5\tWhat"))
    assert run(replace(config, limit=0)).num_items == 6
    assert len(chat.bodies) == 6


def test_a_run_with_its_data_may_be_moved(chat, url, tmp_path, monkeypatch):
    chat.write = guessing
    (tmp_path / "old").mkdir()
    table(tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    config = config_of(Path("VStarBench.tsv"), Path("runs/one"), url)
    assert run(config).main.value == 0.5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert run(replace(config, protocol="official")).main.value == 0.5
    assert len(chat.bodies) == 6
    assert (tmp_path / "new" / "runs" / "benchmark_images").is_dir()


def test_a_judge_looks_again_at_free_text_only(chat, url, tmp_path):
    row = {
        "answer_type": "text",
        "subject": "s",
        "knowledge_level": "k",
        "varid": 1,
        "image": base64_png(),
        "question": "Odd or even?",
    }
    golds = ["even function", "odd function", "3", "even function"]
    rows = [{**row, "qid": at, "index": at, "answer": gold} for at, gold in enumerate(golds)]
    data = tsv(tmp_path / "DynaMath.tsv", rows)
    given = iter(["it is even", "even function", "4", "even function"])
    chat.write = lambda messages: f"<answer>\n\\boxed{{{next(given)}}}\n</answer>"
    config = replace(config_of(data, tmp_path / "run", url), benchmark="dynamath", max_episodes=1)
    assert run(config).main.value == 0.25
    judge = ChatServer(write=lambda messages: "01"["it is even" in messages[-1]["content"]])
    with served(judge.app()) as judge_url:
        judged = replace(config, judge=JudgeConfig("judge-7b", f"{judge_url}/v1"))
        result = run(judged)
        assert result.main.value == 0.5
        assert result.scorer == "rules on the answer block, floats to 0.001, judge judge-7b"
        assert len(judge.bodies) == 2
        assert run(judged).metrics == result.metrics
        assert len(judge.bodies) == 2


def test_a_higher_limit_plays_the_rest_only(chat, url, tmp_path):
    chat.write = guessing
    config = config_of(table(tmp_path), tmp_path / "run", url, limit=2)
    assert run(config).num_items == 2
    assert run(replace(config, limit=0)).num_items == 6
    assert len(chat.bodies) == 6
    with pytest.raises(InputError, match="there seed is 0 and here 1"):
        run(replace(config, seed=1))


def test_a_server_that_dies_leaves_what_was_done(chat, url, tmp_path):
    chat.write = guessing
    config = config_of(table(tmp_path), tmp_path / "run", url, max_episodes=1)

    def write(messages):
        if len(chat.bodies) == 3:
            chat.failures = [(500, "")] * 9
        return guessing(messages)

    chat.write = write
    with pytest.raises(PyVisionError, match="gave up after 1 attempts: status 500"):
        run(config)
    assert len(read_items_file(tmp_path / "run" / "items.jsonl")) == 3
    chat.failures = []
    chat.write = guessing
    assert run(config).num_items == 6
    assert len(chat.bodies) == 7
    gone = config_of(table(tmp_path), tmp_path / "other", unused_address())
    with pytest.raises(PyVisionError, match="gave up after 1 attempts: ConnectError"):
        run(gone)


def test_with_and_without_the_tool(chat, url, tmp_path):
    chat.write = lambda messages: (
        measuring(messages) if "Python" in words(messages[1]) else guessing(messages)
    )
    config = config_of(table(tmp_path), tmp_path / "ablation", url)
    plain, helped, pair = asyncio.run(ablate_tool(config, lambda done, total: None))
    assert (plain.main.value, helped.main.value) == (0.5, 1.0)
    assert (plain.behaviour["tool_calls_mean"], helped.behaviour["tool_calls_mean"]) == (0, 1)
    assert pair.difference == 0.5
    assert (pair.num_only_first, pair.num_only_second) == (0, 3)
    assert pair.mcnemar_p == 0.25  # 2 * (1/2)^3
    assert pair.line().startswith("with_tool - without_tool: +50.00 points [")
    assert (tmp_path / "ablation" / "tool_ablation.png").read_bytes()[:4] == b"\x89PNG"


def test_three_runs_are_compared_pair_by_pair(chat, url, tmp_path):
    data = table(tmp_path)
    for name, write in (("one", guessing), ("two", measuring), ("three", measuring)):
        chat.write = write
        run(config_of(data, tmp_path / name, url))
    folders = [str(tmp_path / name) for name in ("one", "two", "three")]
    pairs = compare_runs(CompareConfig(folders, str(tmp_path / "out.png")))
    assert [(p.first, p.second, p.difference) for p in pairs] == [
        ("one", "two", 0.5),
        ("one", "three", 0.5),
        ("two", "three", 0.0),
    ]
    with pytest.raises(InputError, match="no finished evaluation there"):
        compare_runs(CompareConfig([folders[0], str(tmp_path / "nothing")], "x.png"))
    with pytest.raises(InputError, match=r"VStarBench\.tsv: no finished evaluation there"):
        compare_runs(CompareConfig([folders[0], str(data)], "x.png"))
    with pytest.raises(ConfigError, match="1 runs; give two or more"):
        CompareConfig([folders[0]])


def test_only_runs_of_one_benchmark_are_compared(chat, url, tmp_path, caplog):
    chat.write = guessing
    for name in ("one", "two", "other"):
        run(config_of(table(tmp_path), tmp_path / name, url))
    run(replace(config_of(table(tmp_path), tmp_path / "two", url), protocol="official"))
    compare_runs(
        CompareConfig([str(tmp_path / n) for n in ("one", "two")], str(tmp_path / "x.png"))
    )
    assert "one by protocol paper (rules on the answer block; vstar-2), two by off" in caplog.text
    summary = tmp_path / "other" / "summary.json"
    judged = summary.read_text().replace("answer block", "answer block, judge judge-7b")
    summary.write_text(judged)
    caplog.clear()
    compare_runs(
        CompareConfig([str(tmp_path / n) for n in ("one", "other")], str(tmp_path / "x.png"))
    )
    assert "other by paper (rules on the answer block, judge judge-7b; vstar-2)" in caplog.text
    summary.write_text(summary.read_text().replace('"vstar"', '"wemath"'))
    with pytest.raises(InputError, match="one is a run of vstar, other of wemath; runs of one"):
        compare_runs(CompareConfig([str(tmp_path / n) for n in ("one", "other")], "x.png"))


def test_the_papers_decoding_is_the_default():
    def decoding(name, **options):
        made = resolve(replace(BenchmarkConfig(name, "d", "o"), **options))
        rollout = made.agent.rollout
        return made.num_samples, rollout.temperature, rollout.top_k, rollout.max_tool_calls

    assert decoding("vstar") == (32, 0.01, 0, 30)
    assert decoding("hrbench4k") == (1, 0.5, 20, 30)
    assert decoding("vsibench") == (1, 0.01, 0, 30)
    assert decoding("vstar", num_samples=1, temperature=0.0, top_k=5) == (1, 0.0, 5, 30)
    assert decoding("vstar", tool="without")[3] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0, must be at least 1"),
        ({"limit": -1}, "limit must not be negative"),
        ({"protocol": "strict"}, "V\\* has no protocol 'strict'"),
    ],
)
def test_configuration_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        replace(BenchmarkConfig("vstar", "d", "o"), **options)


def test_neither_model_nor_server_and_two_items_of_one_name(tmp_path):
    config = BenchmarkConfig("vstar", str(table(tmp_path, 2)), str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="give either model, a checkpoint, or server"):
        run(config)
    data = table(tmp_path, 2)
    data.write_text(data.read_text().replace("\n1\t", "\n0\t"))
    with pytest.raises(
        ConfigError, match=r"tsv: items 0 and 1 .* both called '0'; ids must differ$"
    ):
        load_items(replace(config, data=str(data)))
