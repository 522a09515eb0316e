"""The files and commands of docs/extending.md, as a reader would use them."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pyvision_rl.cli.parse import parse_config
from pyvision_rl.data.readers import RULE_NAMES, read_tasks
from pyvision_rl.eval.stage import EvalConfig
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.reward import RewardConfig, score
from pyvision_rl.reward.declared import grade_task
from pyvision_rl.rollout.episode import Agent, open_task, run_episode
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.types import Task
from tests.docs.blocks import DOCS, blocks_of, write_files

PAGE = DOCS / "extending.md"
MAX_LINES = 30


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The page's files, and the data that it speaks of."""
    write_files(PAGE, tmp_path)
    museum = tmp_path / "museum"
    museum.mkdir()
    for name in ("vase", "sword"):
        Image.linear_gradient("L").resize((100, 60)).convert("RGB").save(museum / f"{name}.png")
    lines = ["file,right,wrong,room", "vase.png,a vase,a cup,Greece", "sword.png,a sword,an axe,N"]
    (museum / "labels.csv").write_text("\n".join(lines) + "\n")
    box = {"question": "Where?", "answer": "0, 0, 10, 10", "image_path": "museum/vase.png"}
    (tmp_path / "boxes.json").write_text(json.dumps([{"id": "b", "rule": "box_iou", **box}]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_part_is_short():
    parts = PAGE.read_text().split("\n## ")[1:]
    assert len(parts) == 3
    for part in parts:
        texts = [text for _, name, text in blocks_of(part) if name]
        assert texts
        assert sum(text.count("\n") + 1 for text in texts) < MAX_LINES


def test_a_data_set(folder, capsys):
    runpy.run_path("convert.py")
    assert "2 tasks, 2 images, 0 videos; 0 problems in 0 rows" in capsys.readouterr().out
    vase, sword = read_tasks("museum/tasks.json")
    assert (vase.id, vase.ability, sword.ability) == ("museum-0", "Greece", "N")
    assert grade_task(vase, "a vase") == 1
    assert grade_task(sword, "B") == 0


def test_a_reward_rule(folder):
    try:
        runpy.run_path("mine.py")
        (task,) = read_tasks("boxes.json")
        assert grade_task(task, "(0, 0, 10, 10)") == 1
        # 5 x 10 of 100 and 100 are shared: 50 / 150.
        assert grade_task(task, "5 0 15 10") == pytest.approx(1 / 3)
        assert grade_task(task, "20 20 30 30") == 0
        assert grade_task(task, "in the corner") == 0
        for odd in ("...", "1.2.3 . 4", "3 3 3 3", "10 10 0 0", "0 0 0 0", "9 9 1 1 1"):
            assert grade_task(task, odd) == grade_task(Task("t", "?", odd), odd, "box_iou") == 0
        assert grade_task(Task("t", "?", "0 0 2 2"), "0 0 2 1", "box_iou") == 0.5
    finally:
        RULE_NAMES.discard("box_iou")


def test_an_episode(folder, codec):
    runpy.run_path("convert.py")
    options = ["--config=zoom.yaml", "--policy.model=tiny", "--data=museum/tasks.json", "--out=o"]
    config = parse_config("eval", EvalConfig, [*options, "--agent.sandbox.isolation=best_effort"])
    (task, _) = read_tasks(config.data)
    template = Path("zoom.txt").read_text()
    call = template[template.index("<code>") : template.index("</code>") + len("</code>")]
    again = call.replace("image_clue_0", "image_clue_1")
    answer = "<answer>\n\\boxed{A}\n</answer>"

    async def play():
        async with SandboxPool(config.agent.sandbox) as pool:
            engine = play_texts(codec, {task.id: [call, again, answer]})
            agent = Agent(engine, codec, pool, config.agent.rollout)
            return await run_episode(agent, open_task(agent, task), seed=0)

    trajectory = asyncio.run(play())
    assert trajectory.prompt.text.endswith("Question: What is shown?\nA. a vase\nB. a cup")
    assert trajectory.num_ok_tool_calls == 2
    assert [turn.observation and len(turn.observation.images) for turn in trajectory.turns] == [
        1,
        1,
        None,
    ]
    assert score(trajectory, RewardConfig()).total == pytest.approx(1.2)


@pytest.mark.slow
def test_the_commands(folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands = [text for kind, _, text in blocks_of(PAGE.read_text()) if kind == "bash"]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            ["bash", "-ec", command], env={**os.environ, "PATH": path}, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(Path("runs/zoom/summary.json").read_text())["num_tasks"] == 2
    assert "def zoom" in Path("runs/zoom/setup.py").read_text()
