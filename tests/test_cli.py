"""What a person gets for a mistake: one line that names it, exit code 2, nothing written."""

import json
import socket
import sys
from pathlib import Path

import pytest

import pyvision_rl.configs
from pyvision_rl.cli.main import main
from pyvision_rl.cli.parse import split_dry_run
from tests.http import ChatServer, served, unused_address

ON_VERL = ("--engine", "verl", "--verl.flash_attention", "false")
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


@pytest.fixture
def traces(tmp_path) -> Path:
    path = tmp_path / "traces.json"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "7"}]
    path.write_text(json.dumps([{"conversations": turns}]))
    return path


@pytest.fixture
def shipped_ablation() -> str:
    return str(Path(pyvision_rl.configs.__file__).parent / "ablate" / "tiny.yaml")


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
        (["eval"], "required: policy.model, data, out"),
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("select: {num_grups: 3}\n", "Group 'select' does not accept option 'num_grups'"),
        ("num_steps: three\n", 'key "num_steps": Expected'),
        ("polcy: {model: tiny}\n", "'polcy.model' is not accepted"),
        ("num_steps: 3\nseed: 1\nnum_steps: 5\n", "line 3: num_steps is there twice"),
        ("select:\n  max_rounds: 2\n  max_rounds: 3\n", "line 3: max_rounds is there twice"),
        ("policy: {model: tiny\n", "line 2: not readable as YAML: expected ',' or '}'"),
        ("\tnum_steps: 3\n", "line 1: not readable as YAML"),
        ("- num_steps\n", "must hold keys and values, holds a list"),
        ("", "must hold keys and values, holds nothing"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(run, tmp_path, text, words):
    (tmp_path / "good.yaml").write_text("seed: 5\n")
    (tmp_path / "mine.yaml").write_text(text)
    for options in (["--config", "mine.yaml", "--config", "good.yaml"], ["--config=mine.yaml"]):
        code, (line,) = run("rl", *NEEDED, *options)
        assert code == 2
        assert line.startswith("pyvision-rl: mine.yaml: ")
        assert words in line


def test_a_mistake_beside_a_file_does_not_name_it(run, tmp_path):
    (tmp_path / "good.yaml").write_text("seed: 5\n")
    code, (line,) = run("rl", *NEEDED, "--config", "good.yaml", "--num_steps", "three")
    assert code == 2
    assert "good.yaml" not in line


def test_a_configuration_in_another_encoding(run, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_bytes("out: Größe\n".encode("latin-1"))
    code, (line,) = run("rl", "--config", str(config))
    assert code == 2
    assert f"{config}: not UTF-8 text" in line


@pytest.mark.parametrize("key", ["data", "out"])
def test_an_empty_name_is_not_the_current_folder(run, tmp_path, key):
    code, (line,) = run("eval", *NEEDED, f"--{key}", "")
    assert code == 2
    assert f"{key}: is empty" in line
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("server", [["serve", "--model", "/none"], ["sandbox", "serve"]])
def test_a_port_that_is_taken_is_said_before_anything_starts(run, server):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, (line,) = run(*server, "--port", str(port))
    assert code == 2
    assert f"127.0.0.1 port {port} cannot be listened at: Address already in use" in line


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
    (out / "summary.json").write_text("{}")
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


@pytest.mark.parametrize(
    ("words", "is_dry", "others"),
    [
        (["--dry-run"], True, []),
        (["--dry_run", "--config", "x"], True, ["--config", "x"]),
        (["--dry-run", "true", "--out", "o"], True, ["--out", "o"]),
        (["video", "--dry_run=false"], False, ["video"]),
        (["--dry-run", "video", "--memory-gb", "3"], True, ["video"]),
    ],
)
def test_the_ways_to_ask_for_a_dry_run(words, is_dry, others):
    options, left = split_dry_run(words)
    assert (options.dry_run, left) == (is_dry, others)
    assert options.memory_gb == (3 if "--memory-gb" in words else 0)


def test_every_stage_has_a_dry_run(run, tasks, traces, tmp_path, shipped_ablation):
    before = sorted(tmp_path.rglob("*"))
    policy = ["--policy.model", "tiny", "--data", str(tasks), "--out", "o"]
    model = ["--model", "tiny"]
    stages = {
        ("quickstart",): ["--out", "o"],
        ("quickstart", "video"): ["--out", "o"],
        ("sft",): ["--policy.model", "tiny", "--data", str(traces), "--out", "o"],
        ("rl",): policy,
        ("eval",): policy,
        ("ablate",): ["--config", shipped_ablation, "--rl.policy.model", "tiny", "--out", "o"],
        ("serve",): [*model, "--port", unused_address().rpartition(":")[2]],
    }
    for command, options in stages.items():
        assert run(*command, *options, "--dry-run", "--memory-gb", "64") == (0, []), command
    with served(ChatServer().app()) as url:
        teacher = ["--server", f"{url}/v1", "--endpoint.tokenizer", "tiny"]
        words = ["--data", str(tasks), "--out", "o", *teacher, "--dry-run"]
        assert run("data", "synthesize", *words) == (0, [])
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_dry_run_finds_wrong(run, tasks, traces, tmp_path, shipped_ablation):
    (tmp_path / "file").write_text("")
    tiny = ["--policy.model", "tiny", "--data", str(tasks)]
    study = ["ablate", "--config", shipped_ablation, "--rl.policy.model", "tiny"]
    teacher = ["data", "synthesize", "--data", str(tasks), "--server", unused_address() + "/v1"]
    mistakes = {
        ("eval", *tiny, "--out", "file"): "file: cannot be written",
        ("eval", *tiny, "--out", "file/o"): "is a file",
        ("rl", *tiny, "--out", "o", "--agent.rollout.prompt", "no.txt"): "no.txt",
        ("sft", *tiny[:2], "--data", str(traces), "--out", "run"): "run: holds another run",
        ("quickstart", "--out", "run"): "run: holds another run",
        (*study, "--out", "file"): "file: cannot be written",
        (*study, "--out", "other"): "other/data: holds something else than a needle data set",
        ("ablate", "--config", shipped_ablation, "--rl.policy.model", "/none"): "model /none",
        (*teacher, "--out", "o"): "gave up after 1 attempts: ConnectError",
        ("serve", "--model", "tiny", "--server", "http://x/v1"): "either model",
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 5\n")
    (tmp_path / "other" / "data").mkdir(parents=True)
    (tmp_path / "other" / "data" / "mine.txt").write_text("")
    for words, message in mistakes.items():
        code, (line,) = run(*words, "--dry-run", "--memory-gb", "64")
        assert code == (1 if "ConnectError" in message else 2)
        assert message in line


def test_a_dry_run_on_verl(run, tasks, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps([{"id": "a", "question": "?", "answer": "7", "image_path": "no"}]))
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(f"- {{data: {tasks.name}}}\n")
    words = ["rl", "--policy.model", "tiny", "--out", "o", *ON_VERL, "--dry-run", "--data"]
    for data in (tasks, mixture):
        monkeypatch.setattr(sys, "argv", ["pyvision-rl", *words, str(data)])
        assert main() == 0
        shown = capsys.readouterr().out
        assert f"{data}: 1 tasks, 1 images" in shown
        assert "  trainer.n_gpus_per_node=8\n" in shown
        assert shown.splitlines()[-1].startswith("out: o, ")
        assert shown.splitlines()[-1].endswith(" a new run")
    code, (line,) = run(*words, str(broken))
    assert (code, line) == (2, "pyvision-rl: rl: this would not run as it is; see above")
    assert run(*words, str(tasks), "--policy.model", "/none")[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agent.rollout.prompt", "no.txt"], "no.txt"),
        (["--out", "file"], "file: cannot be written"),
        (["--out", "run"], "run: holds another run"),
        (["--memory-gb", "80"], "memory_gb: on verl no memory is estimated"),
    ],
)
def test_what_a_dry_run_on_verl_finds_wrong(run, tasks, tmp_path, words, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 5\n")
    (tmp_path / "run" / "summary.json").write_text("{}")
    asked = ["rl", "--policy.model", "tiny", "--data", str(tasks), "--out", "o", *ON_VERL]
    code, (line,) = run(*asked, *words, "--dry-run")
    assert code == 2
    assert message in line
