"""A teacher behind a real local server, our sandbox, and the traces that come of it."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from pyvision_rl.cli.main import main
from pyvision_rl.data.traces import read_traces
from pyvision_rl.data.validate import validate_file
from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.tiny import TINY_BASE
from pyvision_rl.runs import RunReader
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.sft.attempts import ATTEMPTS, KeepConfig, outcome_of
from pyvision_rl.sft.data import encode_trace
from pyvision_rl.sft.llamafactory import ExportConfig, export_llamafactory
from pyvision_rl.sft.synthesize import BudgetConfig, SynthesizeConfig, run_synthesize
from pyvision_rl.types import StopReason
from tests.build import TASK, completion, observation, trajectory
from tests.http import ChatServer, served, unused_address
from tests.sft.resumed_synthesis import config_of

CODE = "<code>\n```python\n{}\n```\n</code>"
LOOK = "I look.\n" + CODE.format("plt.imshow(image_clue_0)\nplt.show()")
FAIL = CODE.format("print(1 / 0)")
ANSWER = "<answer>\n\\boxed{{{}}}\n</answer>"
RIGHT, WRONG = ANSWER.format("red"), ANSWER.format("blue")
SCRIPTS = {
    0: [LOOK, RIGHT],
    1: [RIGHT],
    2: [LOOK, WRONG],
    3: [FAIL, LOOK, RIGHT],
    4: [LOOK, "<interpreter>red</interpreter>\n" + RIGHT],
    5: ["I would rather not."],
    6: [LOOK, LOOK, RIGHT],
}
OUTCOMES = {
    "kept": 2,
    "too_few_calls": 1,
    "wrong": 1,
    "failed_call": 1,
    "wrote_observation": 1,
    "stop_no_action": 1,
}


def item_of(messages) -> int:
    (number,) = re.findall(r"item (\d+)", json.dumps(messages[1]["content"]))
    return int(number)


def num_done(messages) -> int:
    return sum(message["role"] == "assistant" for message in messages)


def teach(messages) -> str:
    return SCRIPTS[item_of(messages)][num_done(messages)]


def task_file(folder, items=SCRIPTS):
    rows = []
    for item in items:
        Image.new("RGB", (84, 56), "red").save(folder / f"{item}.png")
        question = f"Which colour has item {item}?"
        row = {"id": f"t{item}", "question": question, "answer": "red", "image_path": f"{item}.png"}
        rows.append(row)
    path = folder / "tasks.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def chat():
    return ChatServer(write=teach, usage={"prompt_tokens": 1000, "completion_tokens": 100})


@pytest.fixture
def url(chat):
    with served(chat.app()) as address:
        yield address


@pytest.fixture(scope="module")
def pool():
    """Started once: a fork server takes a second."""
    loop = asyncio.new_event_loop()
    opened = SandboxPool(SandboxConfig(isolation="best_effort", figures="pixels"))
    loop.run_until_complete(opened.__aenter__())
    yield loop, opened
    loop.run_until_complete(opened.__aexit__(None, None, None))
    loop.close()


@pytest.fixture
def synthesize(pool):
    loop, opened = pool
    return lambda config: loop.run_until_complete(
        run_synthesize(config, lambda done, total: None, opened)
    )


def first_requests(chat) -> Counter[int]:
    """How often each item was begun."""
    bodies = (body["messages"] for body in chat.bodies)
    return Counter(item_of(messages) for messages in bodies if num_done(messages) == 0)


def test_only_what_is_worth_imitating_is_kept(chat, url, synthesize, tmp_path):
    result = synthesize(config_of(task_file(tmp_path), tmp_path / "out", url))
    assert result.outcomes == OUTCOMES
    assert (result.num_done, result.num_tasks) == (7, 7)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["num_kept"], summary["outcomes"]) == (2, OUTCOMES)
    one_look, two_looks = read_traces(result.path)
    assert [m.text for m in one_look.messages if m.role == "assistant"] == [LOOK, RIGHT]
    assert len(two_looks.images) == 3
    assert one_look.images[0].resolve() == (tmp_path / "0.png").resolve()
    assert validate_file(result.path, decode=True).ok


def test_every_attempt_can_be_looked_at_with_the_reason_why_it_was_left_out(
    url, synthesize, tmp_path
):
    synthesize(config_of(task_file(tmp_path), tmp_path / "out", url, max_episodes=1))
    table = RunReader(tmp_path / "out").trajectories(["synthesize"], columns=["step", "dropped"])
    dropped = dict(zip(*table.select(["step", "dropped"]).to_pydict().values(), strict=True))
    assert [dropped[step] for step in range(7)] == [
        None,
        "too_few_calls",
        "wrong",
        "failed_call",
        "wrote_observation",
        "stop_no_action",
        None,
    ]


@pytest.mark.parametrize("mark", ["<image>", "<video>"])
def test_a_text_that_a_trace_file_cannot_hold_is_left_out(chat, url, synthesize, tmp_path, mark):
    chat.write = lambda messages: [f"I see {mark}.\n{LOOK}", RIGHT][num_done(messages)]
    result = synthesize(config_of(task_file(tmp_path, [0]), tmp_path / "out", url))
    assert result.outcomes == {"wrote_placeholder": 1}
    assert read_traces(result.path) == []


def test_traces_in_a_folder_behind_a_link_name_their_images(url, synthesize, tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "deep")
    result = synthesize(config_of(task_file(tmp_path, [0]), tmp_path / "runs" / "out", url))
    (trace,) = read_traces(result.path)
    assert trace.images[0].resolve() == (tmp_path / "0.png").resolve()


def test_what_was_made_is_what_both_trainers_read(url, synthesize, tmp_path):
    result = synthesize(config_of(task_file(tmp_path, [0, 6]), tmp_path / "out", url))
    codec = ChatCodec.from_folder(TINY_BASE, PixelLimits(784, 28224))
    samples = [encode_trace(trace, codec) for trace in read_traces(result.path)]
    learned = codec.tokenizer.decode(
        [i for i, learn in zip(samples[0].token_ids, samples[0].loss_mask, strict=True) if learn]
    )
    assert learned == f"{LOOK}<|im_end|>{RIGHT}<|im_end|>"
    config = ExportConfig(str(result.path), str(tmp_path / "lf"), model="tiny", pixels=codec.pixels)
    assert export_llamafactory(config).num_traces == 2


def test_tries_end_with_the_first_kept_one(chat, url, synthesize, tmp_path):
    seeds = []

    def third_time_lucky(messages):
        begun = first_requests(chat)[0]
        seeds.append(chat.bodies[-1]["seed"])
        return [LOOK, RIGHT if begun == 3 else WRONG][num_done(messages)]

    chat.write = third_time_lucky
    config = config_of(task_file(tmp_path, [0]), tmp_path / "out", url, max_tries=5)
    assert synthesize(config).outcomes == {"wrong": 2, "kept": 1}
    # Every attempt is drawn anew.
    assert len(set(seeds)) == 6


def test_a_finished_synthesis_asks_nothing_again_and_may_be_taken_further(
    chat, url, synthesize, tmp_path
):
    config = config_of(task_file(tmp_path), tmp_path / "out", url)
    synthesize(config)
    asked = len(chat.bodies)
    assert synthesize(config).outcomes == OUTCOMES
    assert len(chat.bodies) == asked
    again = synthesize(replace(config, max_tries=2))
    assert again.outcomes["kept"] == 2
    assert first_requests(chat) == {0: 1, 6: 1, **dict.fromkeys(range(1, 6), 2)}
    with pytest.raises(InputError, match=r"holds another run, there keep\.min_calls is 1"):
        synthesize(replace(config, keep=KeepConfig(min_calls=0)))


def test_costs_are_counted_and_the_budget_stops(chat, url, synthesize, tmp_path):
    # 1000 tokens in and 100 out a request: 0.003 USD.
    budget = BudgetConfig(usd_per_million_input=2, usd_per_million_output=10, max_usd=0.01)
    config = config_of(task_file(tmp_path), tmp_path / "out", url, max_episodes=1, budget=budget)
    result = synthesize(config)
    # t0 takes 2 requests, t1 one: 0.009. t2 may still start, and ends with 0.015.
    assert len(chat.bodies) == 5
    assert (result.usage.num_input, result.usage.num_output) == (5000, 500)
    assert result.usd == pytest.approx(0.015)
    assert result.num_done == 3
    assert "budget is spent" in result.lines()[-1]
    assert len(read_traces(result.path)) == 1
    # What was spent before counts after a restart.
    assert synthesize(config).num_done == 3
    assert len(chat.bodies) == 5
    more = replace(config, budget=replace(budget, max_usd=1))
    result = synthesize(more)
    assert (result.num_done, result.outcomes) == (7, OUTCOMES)
    assert result.usd == pytest.approx(0.003 * len(chat.bodies))


def test_a_server_that_counts_no_tokens(chat, url, synthesize, tmp_path):
    chat.usage = None
    result = synthesize(config_of(task_file(tmp_path, [1]), tmp_path / "out", url))
    codec = ChatCodec.from_folder(TINY_BASE, PixelLimits(784, 28224))
    assert result.usage.num_output == len(codec.encode_completion(RIGHT)[0])
    assert result.usage.num_input > 6


def test_traces_begin_with_the_students_prompt(chat, url, synthesize, tmp_path):
    prompt = tmp_path / "student.txt"
    prompt.write_text("Short: {query}")
    config = config_of(task_file(tmp_path, [0]), tmp_path / "out", url, student_prompt=str(prompt))
    (trace,) = read_traces(synthesize(config).path)
    assert trace.messages[0].text.endswith("</image_clue_0>\n\nShort: Which colour has item 0?")
    assert "Find it with Python" in json.dumps(chat.bodies[0]["messages"][1])
    # The run keeps both templates, and goes on with the same ones only.
    assert (tmp_path / "out" / "student_prompt.txt").read_text() == "Short: {query}"
    assert "{query}" in (tmp_path / "out" / "prompt.txt").read_text()
    # A template that cannot be used costs nothing.
    with pytest.raises(InputError, match="neither a shipped template"):
        synthesize(replace(config, student_prompt="none.txt", out=str(tmp_path / "other")))
    assert len(chat.bodies) == 2


def test_an_image_that_is_gone_is_left_out(chat, url, synthesize, tmp_path, caplog):
    data = task_file(tmp_path, [0, 6])
    image = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(b"broken since")
    config = config_of(data, tmp_path / "out", url, max_tries=3)
    result = synthesize(config)
    assert result.outcomes == {"kept": 1}
    assert (result.num_done, result.num_skipped) == (1, 1)
    assert "task t0 is skipped (1 of at most 16): " in caplog.text
    assert "0.png: not a readable image" in caplog.text
    assert "skipped   1 tasks whose files could not be read" in result.lines()
    assert not any("budget" in line for line in result.lines())
    with pytest.raises(InputError, match="1 tasks have turned bad, max_bad_rows is 0"):
        synthesize(replace(config, max_bad_rows=0))
    # Once the file is there again, the task is tried.
    (tmp_path / "0.png").write_bytes(image)
    assert synthesize(config).outcomes == {"kept": 2}


def test_a_teacher_that_fails_loses_nothing(chat, url, synthesize, tmp_path):
    def fails_later(messages):
        if item_of(messages) == 6:
            chat.failures.append((401, "the key has expired"))
        return teach(messages)

    chat.write = fails_later
    config = config_of(task_file(tmp_path), tmp_path / "out", url, max_episodes=1)
    with pytest.raises(PyVisionError, match="status 401 the key has expired"):
        synthesize(config)
    assert len(read_traces(tmp_path / "out" / "traces" / "traces.json")) == 1
    chat.write, chat.failures = teach, []
    assert synthesize(config).outcomes == OUTCOMES
    assert first_requests(chat)[0] == 1


def test_a_killed_synthesis_goes_on_and_gives_what_an_undisturbed_one_gives(
    chat, url, synthesize, tmp_path
):
    data = task_file(tmp_path)
    undisturbed = read_traces(synthesize(config_of(data, tmp_path / "straight", url)).path)
    chat.bodies.clear()
    chat.delay_s = 0.2
    out = tmp_path / "killed"
    arguments = [sys.executable, "-m", "tests.sft.resumed_synthesis", str(data), str(out), url]
    process = subprocess.Popen(arguments)
    attempts = out / ATTEMPTS
    while not attempts.exists() or attempts.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {json.loads(line)["task"] for line in attempts.read_bytes().splitlines()}
    assert 2 <= len(finished) < 7
    with attempts.open("ab") as file:
        file.write(b'{"task": "t5", "outc')
    chat.delay_s = 0.0
    result = synthesize(config_of(data, out, url))
    assert result.outcomes == OUTCOMES
    begun = first_requests(chat)
    assert all(begun[int(name[1:])] == 1 for name in finished)
    again = read_traces(result.path)
    assert [trace.messages for trace in again] == [trace.messages for trace in undisturbed]
    for one, other in zip(again, undisturbed, strict=True):
        pixels = [[Image.open(path).tobytes() for path in t.images] for t in (one, other)]
        assert pixels[0] == pixels[1]


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({}, "kept"),
        ({"min_calls": 3}, "too_few_calls"),
        ({"max_calls": 1}, "too_many_calls"),
        ({"min_accuracy": 0.9}, "wrong"),
    ],
)
def test_limits(options, outcome):
    keep = KeepConfig(**{"min_accuracy": 0.8} | options)
    assert outcome_of(trajectory(observation(), observation()), 0.8, keep) == outcome


def test_failed_calls_may_be_kept_and_idle_programs_may_not():
    mended = trajectory(observation(ok=False), observation())
    assert outcome_of(mended, 1.0, KeepConfig()) == "failed_call"
    assert outcome_of(mended, 1.0, KeepConfig(failed_calls=True)) == "kept"
    last = replace(mended.turns[-1], completion=completion(1, text=f"{LOOK}{RIGHT}"))
    idle = replace(mended, turns=(*mended.turns[:-1], last))
    assert outcome_of(idle, 1.0, KeepConfig(failed_calls=True)) == "code_beside_answer"
    fenced = replace(last, completion=completion(1, text=f"```python\nprint(1)\n```\n{RIGHT}"))
    idle = replace(mended, turns=(*mended.turns[:-1], fenced))
    assert outcome_of(idle, 1.0, KeepConfig(failed_calls=True)) == "code_beside_answer"
    cut = trajectory(observation(), stop=StopReason.MAX_TOKENS, answer=None, task=TASK)
    assert outcome_of(cut, 0.0, KeepConfig()) == "stop_max_tokens"


def test_bad_configurations():
    with pytest.raises(ConfigError, match="min_calls 3 is above max_calls 2"):
        KeepConfig(min_calls=3, max_calls=2)
    with pytest.raises(ConfigError, match="max_usd needs usd_per_million"):
        BudgetConfig(max_usd=1)
    with pytest.raises(ConfigError, match="max_tries"):
        SynthesizeConfig("data", "out", "http://s/v1", max_tries=0)


def test_the_command(chat, url, tmp_path, monkeypatch, capsys):
    data = task_file(tmp_path, [0, 1])
    options = {
        "data": data,
        "out": tmp_path / "out",
        "server": f"{url}/v1",
        "endpoint.tokenizer": "tiny",
        "agent.sandbox.isolation": "best_effort",
        "budget.usd_per_million_input": 1,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    monkeypatch.setattr(sys, "argv", ["pyvision-rl", "data", "synthesize", *words])
    assert main() == 0
    said = capsys.readouterr().out
    assert "attempts  2: 1 kept, 1 too_few_calls" in said
    assert "tokens    3000 in, 300 out, 0.00 USD" in said
    dead = ["--server", f"{unused_address()}/v1", "--endpoint.max_retries", "0"]
    elsewhere = ["--out", str(tmp_path / "dead")]
    argv = ["pyvision-rl", "data", "synthesize", *words, *dead, *elsewhere]
    monkeypatch.setattr(sys, "argv", argv)
    assert main() == 1
    assert "gave up after 1 attempts" in capsys.readouterr().err
