"""Players on a real Ray cluster with real sandboxes; the policy is a script."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from pyvision_rl.distributed.config import DistributedConfig, VerlConfig
from pyvision_rl.errors import InputError, PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.rollout.agent import AgentConfig
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxConfig
from pyvision_rl.types import StopReason, Task

pytestmark = [pytest.mark.usefixtures("verl"), pytest.mark.slow]

PIXELS = PixelLimits(784, 28224)
LOOK = "<code>\n```python\nplt.imshow(image_clue_0); plt.show()\n```\n</code>"
SLEEP = "<code>\n```python\nimport time; time.sleep(3); print('slept')\n```\n</code>"
ANSWER = "<answer>\n\\boxed{'7'}\n</answer>"


@dataclass(frozen=True)
class Answer:
    token_ids: list[int]
    log_probs: list[float]


@dataclass(frozen=True)
class Script:
    """A sampler that first runs `code` and, once it has seen what came of it, answers."""

    model: str
    code: str

    async def generate(self, request_id, *, prompt_ids, sampling_params, image_data=None) -> Answer:
        codec = ChatCodec.from_folder(self.model, PIXELS)
        has_run = "tool_response" in codec.decode(prompt_ids)
        ids = list(codec.encode_completion(ANSWER if has_run else self.code)[0])
        return Answer(ids, [-0.1] * len(ids))


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    ray = pytest.importorskip("ray")
    root = Path(__file__).parents[2]
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(root)}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def config(tiny_random_checkpoint, tmp_path) -> DistributedConfig:
    return DistributedConfig(
        policy=PolicyConfig(str(tiny_random_checkpoint), PIXELS),
        data="unused.json",
        out=str(tmp_path),
        group_size=2,
        agent=AgentConfig(
            sandbox=SandboxConfig(isolation="best_effort", figures="pixels"),
            rollout=RolloutConfig(prompt="brief", max_tokens=2048, max_completion_tokens=400),
        ),
        verl=VerlConfig(gpus_per_node=1, players_per_node=2),
    )


@pytest.fixture
def task(tmp_path) -> Task:
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((84, 84)).save(path)
    return Task("t", "Which digit?", "7", images=(Path("picture.png"),))


def play(config, tasks, code, folder, meanwhile=None):
    """The groups of some tasks, in order; `meanwhile` happens once they are being played."""
    from pyvision_rl.distributed.players import open_players

    async def run():
        async with open_players(config, Script(config.policy.model, code), folder) as play_group:
            jobs = [
                asyncio.ensure_future(play_group(task, seed)) for seed, task in enumerate(tasks)
            ]
            if meanwhile:
                await asyncio.to_thread(meanwhile)
            return await asyncio.gather(*jobs)

    return asyncio.run(run())


def has_cell(process: psutil.Process) -> bool:
    """Whether this is a player with a fork server, its keeper and a cell below it."""
    try:
        is_player = "ray::Player" in " ".join(process.cmdline())
        return is_player and len(process.children(recursive=True)) >= 3
    except psutil.Error:
        return False


def wait_for_cells() -> list[psutil.Process]:
    """Both players of this test's own cluster, once each runs a cell."""
    for _ in range(1200):
        found = [p for p in psutil.Process().children(recursive=True) if has_cell(p)]
        if len(found) == 2:
            return found
        time.sleep(0.1)
    raise AssertionError("no cells within two minutes")


def test_groups_are_played_with_the_sandboxes_of_all_players(ray, config, task, tmp_path):
    groups = play(config, [task] * 4, LOOK, tmp_path)
    assert len(groups) == 4
    for trajectories in groups:
        assert [t.stop for t in trajectories] == [StopReason.ANSWERED] * 2
        assert all(t.answer == "7" and t.looked for t in trajectories)
        # the members of a group share the given image, also when they come from far
        assert trajectories[0].prompt.images[0] is trajectories[1].prompt.images[0]
    assert len({t.seed for trajectories in groups for t in trajectories}) == 8


def test_a_killed_sandbox_pool_costs_a_second_try(ray, config, task, tmp_path):
    def kill_pools() -> None:
        for player in wait_for_cells():
            for process in player.children(recursive=True):
                with_signal(process, signal.SIGKILL)

    groups = play(config, [task] * 2, SLEEP, tmp_path, kill_pools)
    assert [t.stop for group in groups for t in group] == [StopReason.ANSWERED] * 4


def test_a_killed_player_is_replaced(ray, config, task, tmp_path):
    groups = play(
        config,
        [task] * 2,
        SLEEP,
        tmp_path,
        lambda: with_signal(wait_for_cells()[0], signal.SIGKILL),
    )
    assert [t.stop for group in groups for t in group] == [StopReason.ANSWERED] * 4


def test_what_an_episode_raises_arrives_as_itself(ray, config, task, tmp_path):
    broken = replace(task, images=(Path("nowhere.png"),))
    with pytest.raises(InputError, match=r"nowhere\.png") as raised:
        play(config, [broken], LOOK, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_everywhere_is_said_in_one_line(ray, config, task, tmp_path):
    with pytest.raises(PyVisionError) as raised:
        play(config, [task], LOOK, tmp_path / "elsewhere")
    assert "all machines must share it" in str(raised.value)


def with_signal(process: psutil.Process, number: signal.Signals) -> None:
    """Signal one process of this test's own, which may be gone already."""
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return


def test_an_error_is_one_line_and_a_strange_one_leaves_its_trace(ray, tmp_path):
    from pyvision_rl.distributed.launch import FAILURE, one_line

    def fail(error: Exception) -> PyVisionError:
        def inner() -> None:
            raise error

        def outer() -> None:
            ray.get(ray.remote(inner).remote())

        with pytest.raises(ray.exceptions.RayError) as raised:
            ray.get(ray.remote(outer).remote())
        return one_line(raised.value, tmp_path)

    ours = fail(InputError("file.json: row 3: no question"))
    assert type(ours) is InputError
    assert str(ours) == "file.json: row 3: no question"
    assert not (tmp_path / FAILURE).exists()
    strange = fail(RuntimeError("out of memory\nand more"))
    assert str(strange) == f"verl: RuntimeError: out of memory (see {tmp_path / FAILURE})"
    assert "and more" in (tmp_path / FAILURE).read_text()
