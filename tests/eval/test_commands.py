"""The commands of the evaluation as a user types them."""

import json
import sys

import pytest

from pyvision_rl.cli.main import main
from tests.eval.benchmarks.files import base64_png, tsv
from tests.http import ChatServer, served, unused_address

QUICK = ["--endpoint.tokenizer", "tiny", "--agent.sandbox.isolation", "best_effort"]


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pyvision-rl", *map(str, words)])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def table(tmp_path):
    row = {"question": "Q?", "A": "x", "B": "y", "category": "k", "image": base64_png()}
    rows = [{**row, "index": at, "answer": "AB"[at % 2]} for at in range(4)]
    return tsv(tmp_path / "VStarBench.tsv", rows)


@pytest.fixture
def url():
    chat = ChatServer(write=lambda messages: "<answer>\n\\boxed{A}\n</answer>")
    with served(chat.app()) as address:
        yield f"{address}/v1"


def test_a_benchmark_twice_and_their_comparison(call, table, url, tmp_path):
    for name in ("one", "two"):
        words = ["eval", "--benchmark", "vstar", "--data", table, "--server", url]
        code, out, _ = call(*words, "--out", tmp_path / name, "--num_samples", 1, *QUICK)
        assert code == 0
        assert "vstar  accuracy  50.00" in out
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["protocol"] == "paper"
    figure = tmp_path / "figure.png"
    code, out, _ = call("compare", tmp_path / "one", tmp_path / "two", "--out", figure)
    assert code == 0
    assert "two - one: +0.00 points [+0.00, +0.00]" in out
    assert figure.exists()
    # The configuration of a run names the benchmark: no option is needed.
    code, out, _ = call("eval", "--config", tmp_path / "one" / "config.yaml")
    assert code == 0
    assert "vstar  accuracy  50.00" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["eval", "--benchmark", "nope", "--data", "x", "--out", "y"], 2, "Got value: nope"),
        (
            ["eval", "--benchmark=vstar", "--data", "no.tsv", "--out", "y"],
            2,
            "no.tsv: no such file",
        ),
        (["compare", "one"], 2, "1 runs; give two or more"),
        (["serve", "--port", "0"], 2, "port 0, must be from 1 to 65535"),
        (["serve"], 2, "give either model, a checkpoint, or server, an address"),
    ],
)
def test_mistakes_are_one_line(call, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    ended, _, said = call(*words)
    assert ended == code
    assert message in said
    assert said.count("\n") == 1


def test_a_dead_server_is_no_fault_of_the_input(call, table, tmp_path):
    words = ["eval", "--benchmark", "vstar", "--data", table, "--out", tmp_path / "run"]
    retries = ["--endpoint.max_retries", 0]
    code, _, said = call(*words, "--server", f"{unused_address()}/v1", *retries, *QUICK)
    assert code == 1
    assert "gave up after 1 attempts: ConnectError" in said


def test_the_tool_ablation_names_its_halves(call, table, url, tmp_path):
    words = ["eval", "--benchmark", "vstar", "--data", table, "--server", url, "--limit", 2]
    code, out, _ = call(*words, "--out", tmp_path / "run", "--tool=both", "--num_samples=1", *QUICK)
    assert code == 0
    without, with_tool, difference = out[out.index("without the tool") :].split("\n\n")
    assert without.splitlines()[1].startswith("vstar  accuracy  50.00")
    assert with_tool.splitlines()[:1] == ["with the tool"]
    assert difference.startswith("with_tool - without_tool: +0.00 points")
