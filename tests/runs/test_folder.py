"""One run, one folder, one writer."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunFolder, RunReader
from tests.runs.examples import records

CONFIG = "seed: 0\nrl:\n  lr: 0.001\n  num_steps: 24\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.lock"
    }


def played(path: Path) -> None:
    """A run of three steps with a checkpoint after the second."""
    with RunFolder.create(path, CONFIG) as run:
        for step in (1, 2, 3):
            run.log(step, {"reward/accuracy": step / 10})
            run.write_groups(step, "train", records(step))
            if step == 2:
                run.checkpoints.save(step, lambda folder: None, {})


def test_a_new_run(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "new"
    with RunFolder.create(path, CONFIG) as run:
        assert not run.resumed
        assert run.rewind() is None
        assert RunReader(path).config_yaml == CONFIG
        assert RunReader(path).metrics() == []
        assert RunReader(path).summary() is None


def test_resume_goes_on_after_the_latest_checkpoint(tmp_path: Path) -> None:
    played(tmp_path)
    reader = RunReader(tmp_path)
    with RunFolder.create(tmp_path, CONFIG, resume=True) as run:
        assert run.resumed
        checkpoint = run.rewind()
        assert checkpoint is not None
        assert checkpoint.step == 2
        assert [row.step for row in reader.metrics()] == [1, 2]
        assert reader.recorded_steps() == [("train", 1), ("train", 2)]
        run.log(3, {"reward/accuracy": 0.9})
        run.write_groups(3, "train", records(3))
    assert reader.groups(3, "train") == records(3)


def test_resume_without_a_checkpoint_starts_again(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        run.log(0, {})
        run.write_groups(0, "train", records(0))
    with RunFolder.create(tmp_path, CONFIG, resume=True) as run:
        assert run.resumed
        assert run.rewind() is None
        assert RunReader(tmp_path).metrics() == []
        assert RunReader(tmp_path).recorded_steps() == []


@pytest.mark.parametrize(
    ("config", "resume", "message"),
    [
        (CONFIG, False, "holds another run; remove it or name a new folder"),
        (CONFIG.replace("0.001", "0.002"), True, "there rl.lr is 0.001 and here 0.002"),
        (CONFIG + "extra: 1\n", True, "there extra is None and here 1"),
        ("seed: 0\n", True, "there rl.lr is 0.001 and here None"),
        (CONFIG.replace("24", "30"), True, "there rl.num_steps is 24 and here 30"),
    ],
)
def test_another_run_is_not_touched(tmp_path: Path, config, resume, message) -> None:
    played(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        RunFolder.create(tmp_path, config, resume=resume)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_a_run_that_failed_before_its_first_step_holds_no_folder(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG, resume=True) as run:
        run.keep_text("prompt.txt", "one")
    other = CONFIG.replace("0.001", "0.002")
    with RunFolder.create(tmp_path, other, resume=True) as run:
        assert not run.resumed
        run.keep_text("prompt.txt", "two")
        run.write_groups(0, "eval", records(0))
    with pytest.raises(InputError, match=r"there rl\.lr is 0\.002 and here 0\.001"):
        RunFolder.create(tmp_path, CONFIG, resume=True)


def test_what_may_change_is_taken_over(tmp_path: Path) -> None:
    played(tmp_path)
    longer = CONFIG.replace("24", "30")
    with RunFolder.create(tmp_path, longer, resume=True, may_change=["rl.num_steps"]) as run:
        assert run.resumed
    assert RunReader(tmp_path).config_yaml == longer


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json", "checkpoints", "tensorboard"])
def test_a_folder_of_something_else_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"holds {name} of something else"):
        RunFolder.create(tmp_path, CONFIG, resume=True)
    assert not (tmp_path / "config.yaml").exists()


def test_what_a_killed_writer_left_unfinished_goes(tmp_path: Path) -> None:
    played(tmp_path)
    for left in (".tmp-summary.json", "images/train/.tmp-step-0000004.parquet"):
        (tmp_path / left).write_bytes(b"half")
    (tmp_path / "checkpoints" / ".tmp-step-0000003").mkdir()
    (tmp_path / "checkpoints" / ".tmp-step-0000003" / "weights").write_bytes(b"half")
    RunFolder.create(tmp_path, CONFIG, resume=True).close()
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_other_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    RunFolder.create(tmp_path, CONFIG).close()
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_a_second_writer_is_kept_out_until_the_first_is_done(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG):
        assert RunReader(tmp_path).running
        with pytest.raises(InputError, match=f"is being written by process {os.getpid()} on "):
            RunFolder.create(tmp_path, CONFIG, resume=True)
    assert not RunReader(tmp_path).running
    RunFolder.create(tmp_path, CONFIG, resume=True).close()


def test_a_writer_in_another_process_is_named_until_it_dies(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pyvision_rl.runs import RunFolder;"
        "run = RunFolder.create(Path(sys.argv[1]), 'seed: 0');"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match=f"is being written by process {other.pid} on "):
            RunFolder.create(tmp_path, "seed: 0", resume=True)
        other.kill()
    RunFolder.create(tmp_path, "seed: 0", resume=True).close()


def test_a_refused_run_gives_the_folder_free(tmp_path: Path) -> None:
    played(tmp_path)
    with pytest.raises(InputError):
        RunFolder.create(tmp_path, "seed: 1", resume=True)
    RunFolder.create(tmp_path, CONFIG, resume=True).close()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match=r"run: cannot be written: "):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_a_configuration_that_is_no_yaml_any_more(tmp_path: Path) -> None:
    played(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"config.yaml: not readable as YAML") as caught:
        RunFolder.create(tmp_path, CONFIG, resume=True)
    assert "\n" not in str(caught.value)


def test_the_summary_is_replaced_as_a_whole(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        run.write_summary({"stages": {"sft": {"accuracy": 0.5, "accuracy_ci95": [0.4, 0.6]}}})
        run.write_summary({"seed": 0, "chance": 0.1})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"seed": 0, "chance": 0.1}
    assert RunReader(tmp_path).summary() == {"seed": 0, "chance": 0.1}
    (tmp_path / "summary.json").write_text("{")
    for broken in (b"{", b'{"a": "\xff"}'):
        (tmp_path / "summary.json").write_bytes(broken)
        with pytest.raises(InputError, match="not readable as JSON"):
            RunReader(tmp_path).summary()


def test_no_run_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run: there is no config.yaml"):
        RunReader(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_warnings_are_there_for_a_reader(tmp_path):
    with RunFolder.create(tmp_path / "run", "seed: 0\n") as run:
        reader = RunReader(run.path)
        assert reader.warnings() == []
        run.write_warnings([{"step": 3, "cause": "entropy", "text": "it fell"}])
        (warning,) = reader.warnings()
    assert (warning.step, warning.cause, warning.text) == (3, "entropy", "it fell")


def test_a_text_that_the_run_depends_on_is_kept_and_must_not_change(tmp_path):
    with RunFolder.create(tmp_path / "run", "a: 1") as run:
        run.keep_text("prompt.txt", "Which? {query}")
        run.log(1, {"reward/mean": 0.5})
    assert (tmp_path / "run" / "prompt.txt").read_text() == "Which? {query}"
    with RunFolder.create(tmp_path / "run", "a: 1", resume=True) as run:
        run.keep_text("prompt.txt", "Which? {query}")
        with pytest.raises(InputError, match=r"prompt\.txt: the run was begun with this text"):
            run.keep_text("prompt.txt", "What? {query}")
    assert (tmp_path / "run" / "prompt.txt").read_text() == "Which? {query}"


def test_a_text_of_a_run_that_never_began_holds_nothing(tmp_path):
    """Tools that fail in the sandbox are mended, or left away, and the run is started again."""
    with RunFolder.create(tmp_path, "setup: tools.py") as run:
        run.keep_text("setup.py", "1 / 0")
    with RunFolder.create(tmp_path, "setup: tools.py", resume=True) as run:
        run.keep_text("setup.py", "x = 1")
    assert (tmp_path / "setup.py").read_text() == "x = 1"
    with RunFolder.create(tmp_path, "setup: ''", resume=True) as run:
        run.keep_text("setup.py", "")
        run.log(1, {"reward/mean": 0.5})
    assert not (tmp_path / "setup.py").exists()
    with RunFolder.create(tmp_path, "setup: ''", resume=True) as run:
        run.keep_text("setup.py", "")


def test_who_only_looks_whether_a_run_goes_on_keeps_no_writer_out(tmp_path):
    RunFolder.create(tmp_path, CONFIG).close()
    with (tmp_path / "run.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        RunFolder.create(tmp_path, CONFIG, resume=True).close()
