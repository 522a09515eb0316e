"""Memory of the host over many tasks: the images of tasks that are done are given back."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import psutil
from PIL import Image

from pyvision_rl.model.scripted import ScriptedEngine
from pyvision_rl.rollout.episode import Agent, RolloutConfig
from pyvision_rl.rollout.group import run_group
from pyvision_rl.sandbox import CellResult
from pyvision_rl.types import Context, Task

CONFIG = RolloutConfig(prompt="brief", max_tokens=4000, max_completion_tokens=300)
SHOW = "look\n<code>\n```python\nplt.show()\n```\n</code>"
ANSWER = "I see 7.\n<answer>\n\\boxed{7}\n</answer>"
MAX_GROWN_MB = 20
"""100 groups whose trajectories are kept, their images fitted, take 34 MB; whole images 200 MB."""


class Mirror:
    """Shows a copy of the given image for every program: as many pixels as a sandbox would."""

    @asynccontextmanager
    async def runtime(self, *, images, videos, seed):
        yield self
        self.images = []

    async def run(self, code):
        return CellResult("ok", "", [Image.new("RGB", (600, 600))], 0.0)


def write(context: Context) -> str:
    return ANSWER if context.turns else SHOW


def test_memory_does_not_grow_with_the_tasks_played(codec, tmp_path):
    agent = Agent(ScriptedEngine(codec, write), codec, Mirror(), CONFIG)
    process = psutil.Process()

    def play(index: int) -> None:
        path = tmp_path / "image.png"
        pixels = np.full((600, 600, 3), index % 256, np.uint8)
        pixels[:, index % 600] = 255
        Image.fromarray(pixels).save(path, compress_level=0)
        task = Task(str(index), "Which digit?", "7", images=(path,))
        asyncio.run(run_group(agent, task, 2, seed=index))

    for index in range(30):
        play(index)
    before = process.memory_info().rss
    for index in range(30, 130):
        play(index)
    grown_mb = (process.memory_info().rss - before) / 2**20
    assert grown_mb < MAX_GROWN_MB
