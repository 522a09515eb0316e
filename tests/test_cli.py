"""What a person gets for a mistake: one line that names it, exit code 2, nothing written."""

import json
import sys
from pathlib import Path

import pytest

from pyvision_rl.cli.main import main

NEEDED = ("--policy.model", "m", "--data", "none.json", "--out", "o")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; returns its exit code and its lines of complaint."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["pyvision-rl", *arguments])
        code = main()
        return code, capsys.readouterr().err.splitlines()

    return call


@pytest.fixture
def tasks(tmp_path, image_file) -> Path:
    path = tmp_path / "tasks.json"
    row = {"id": "a", "question": "?", "answer": "7", "image_path": image_file.name}
    path.write_text(json.dumps([row]))
    return path


def test_help_names_every_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pyvision-rl"])
    assert main() == 0
    shown = capsys.readouterr().out
    for name in ("quickstart", "sft", "rl", "eval"):
        assert f"\n  {name} " in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "no command 'train'; there are quickstart"),
        (["rl", "--num_stps", "3"], "--num_stps"),
        (["rl", "--num_steps", "three"], "num_steps"),
        (["rl", "--config", "missing.yaml"], "missing.yaml"),
        (["rl", "--agent.rollout.on_error", "retry"], "on_error"),
        (["rl"], "required: policy.model, data, out"),
        (["rl", *NEEDED, "--select.num_groups", "99"], "oversample: 32, must be at least"),
        (["rl", *NEEDED, "--group_size", "1"], "group_size: 1"),
        (["rl", *NEEDED, "--agent.rollout.top_k", "20"], "top_p and top_k must be off"),
        (["eval", *NEEDED], "none.json"),
        (["sft", *NEEDED], "none.json"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, arguments, words):
    code, lines = run(*arguments)
    assert code == 2
    assert len(lines) == 1
    assert words in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_in_a_file_is_named(run, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("select: {num_grups: 3}\n")
    code, (line,) = run("rl", "--config", str(config))
    assert code == 2
    assert "num_grups" in line


def test_a_model_that_is_not_there(run, tasks):
    code, (line,) = run("eval", "--policy.model", "/none", "--data", str(tasks), "--out", "o")
    assert code == 2
    assert "model /none: no such folder" in line


def test_a_checkpoint_without_a_tokenizer(run, tasks, tiny_random_checkpoint, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_random_checkpoint / name).read_bytes())
    code, (line,) = run("eval", "--policy.model", "bare", "--data", str(tasks), "--out", "o")
    assert code == 2
    assert "bare" in line
    assert "tokenizer" in line


def test_a_row_is_named_by_file_and_number(run, tmp_path, tasks):
    rows = json.loads(tasks.read_text())
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps([*rows, {**rows[0], "id": "b", "image_path": "gone.png"}]))
    code, (line,) = run("eval", "--policy.model", "tiny", "--data", str(broken), "--out", "o")
    assert code == 2
    assert "broken.json: row 1" in line
    assert "gone.png" in line


def test_a_folder_with_another_run_is_left_alone(run, tmp_path, tasks, tiny_random_checkpoint):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.yaml").write_text("seed: 5\n")
    before = {path.name for path in out.iterdir()}
    model = ["--policy.model", str(tiny_random_checkpoint)]
    code, (line,) = run("eval", *model, "--data", str(tasks), "--out", str(out))
    assert code == 2
    assert f"{out}: holds another run" in line
    assert (out / "config.yaml").read_text() == "seed: 5\n"
    assert {path.name for path in out.iterdir()} - {"run.lock"} == before


def test_a_dry_run_writes_nothing(run, tasks, tmp_path):
    options = ["--policy.model", "tiny", "--data", str(tasks), "--out", "o", "--dry_run", "true"]
    for command in ("eval", "rl"):
        assert run(command, *options, "--memory_gb=64") == (0, [])
    code, (line,) = run("rl", *options, "--memory_gb", "0.001")
    assert code == 2
    assert line == "pyvision-rl: rl: this would not run as it is; see above"
    assert not (tmp_path / "o").exists()
