"""The files of docs/data.md, and the options that its commands name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from pyvision_rl.cli.parse import parse_config
from pyvision_rl.data.mixture import open_task_sets
from pyvision_rl.data.readers import read_tasks
from pyvision_rl.data.traces import read_traces
from pyvision_rl.data.validate import ValidateConfig, validate_file
from pyvision_rl.sft.llamafactory import ExportConfig
from pyvision_rl.sft.stage import SFTConfig
from pyvision_rl.sft.synthesize import SynthesizeConfig
from tests.docs.blocks import DOCS, write_files

PAGE = DOCS / "data.md"
COMMANDS = {
    "data validate": ValidateConfig,
    "sft": SFTConfig,
    "data synthesize": SynthesizeConfig,
    "data export-llamafactory": ExportConfig,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    write_files(PAGE, tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (56, 56), "red").save(tmp_path / "images" / name)
    (tmp_path / "clip.mp4").write_bytes(b"only looked up")
    return tmp_path


@pytest.mark.parametrize("name", ["tasks.json", "rl.json", "traces.json"])
def test_every_file_is_one_that_can_be_used(folder, name):
    report = validate_file(folder / name)
    assert report.ok, report.lines()


def test_what_the_rows_mean(folder):
    first, second, third = read_tasks(folder / "tasks.json")
    (released,) = read_tasks(folder / "rl.json")
    assert (first.question, first.answer) == (released.question, released.answer)
    assert first.images == released.images == (folder / "images" / "0.png",)
    assert len(second.images) == 2
    assert (third.videos, third.rule) == ((folder / "clip.mp4",), "mra")
    (trace,) = read_traces(folder / "traces.json")
    assert [message.num_images for message in trace.messages] == [1, 0, 1, 0]
    assert [(len(s.tasks), s.weight) for s in open_task_sets(folder / "mixture.yaml")] == [
        (3, 3),
        (1, 1),
    ]


def test_every_option_of_a_command_is_one():
    text = PAGE.read_text().replace("\\\n", " ")
    commands = re.findall(r"^    pyvision-rl (.*)$", text, re.MULTILINE)
    assert len(commands) == len(COMMANDS)
    for command in commands:
        name = next(name for name in COMMANDS if command.startswith(name))
        words = shlex.split(command.removeprefix(name))
        options = words[next(at for at, word in enumerate(words) if word.startswith("--")) :]
        parse_config(name, COMMANDS[name], options)
