"""Runs to look at: needle tasks played by scripts of several habits through the real sandbox."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image

from pyvision_rl.data.needle import KINDS, NeedleItem, item_seed, make_item, trace_turns
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.scripted import ScriptedEngine, play_texts
from pyvision_rl.model.tiny import TINY_BASE
from pyvision_rl.reward.reward import RewardConfig, score_group
from pyvision_rl.rl.advantage import group_advantages
from pyvision_rl.rl.metrics import rollout_metrics
from pyvision_rl.rl.monitor import CollapseMonitor
from pyvision_rl.rl.select import SelectConfig, drop_reason, select
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.runs import GroupRecord, RunFolder, selection_records
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.types import Completion, Context, Group, Task

CONFIG_YAML = "policy: {model: tiny}\nagent: {sandbox: {figures: pixels}}\nseed: 0\n"
SANDBOX = SandboxConfig(isolation="best_effort", figures="pixels", timeout_s=5)
SELECT = SelectConfig(oversample=4, num_groups=2)
ROLLOUT = RolloutConfig(
    prompt="brief", max_tool_calls=4, max_tokens=1200, max_completion_tokens=400, max_images=8
)

_FAILED = """The tags are small here. I enlarge the lower half first.
<code>
```python
half = image_clue_0.crop((0, 336, 672, 672))
print("half:", half.size)
plt.imshow(half.resize((400, 200)).rotat(90))
plt.show()
```
</code>"""
_MEASURE = """How bright is each quarter? I measure before I look closer.
<code>
```python
import numpy as np

pixels = np.asarray(image_clue_0.convert("L"))
for row in range(2):
    for column in range(2):
        part = pixels[row*336:row*336+336, column*336:column*336+336]
        print(f"quarter {row} {column}: mean {part.mean():.1f}")
```
</code>"""


@dataclass(frozen=True)
class Doubtful:
    """A scripted engine with made-up log-probs: a scripted policy is certain of all it writes."""

    engine: ScriptedEngine

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Doubtful]:
        yield self

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        completion = await self.engine.generate(context, params, seed=seed)
        rng = random.Random(seed)
        logprobs = tuple(-(rng.random() ** 6) * 3 for _ in completion.token_ids)
        return replace(completion, logprobs=logprobs)


def write_run(
    folder: Path,
    num_steps: int,
    num_groups: int,
    group_size: int,
    *,
    seed: int = 0,
    falling: bool = False,
) -> Path:
    """A finished run, its task images in `folder`-data beside it.

    Its policy looks more and more often, or, `falling`, less and less.
    """
    skills = [step / num_steps for step in range(1, num_steps + 1)]
    if falling:
        skills = [1 - 1.4 * skill for skill in skills]
    asyncio.run(_write(folder, skills, num_groups, group_size, seed))
    return folder


async def _write(
    folder: Path, skills: Sequence[float], num_groups: int, size: int, seed: int
) -> None:
    codec = ChatCodec.from_folder(TINY_BASE, PixelLimits(784, 28224))
    images = folder.with_name(f"{folder.name}-data")
    images.mkdir()
    async with SandboxPool(SANDBOX) as pool:
        with RunFolder.create(folder, CONFIG_YAML) as run:
            monitor = CollapseMonitor()
            for step, skill in enumerate(skills, 1):
                rng = random.Random(f"{seed} {step}")
                groups = [
                    await _play(codec, pool, images, (seed, step, place), size, skill, rng)
                    for place in range(num_groups)
                ]
                _record(run, step, groups, monitor)


_CROP = "<code>\n```python\nplt.imshow({}.crop({}))\nplt.show()\n```\n</code>"
_ZOOM = [
    _CROP.format("image_clue_0", (100, 100, 268, 268)),
    _CROP.format("image_clue_1", (10, 20, 94, 104)),
    "<answer>7</answer>",
]


def write_zoom_run(folder: Path) -> Path:
    """One trajectory that crops the image, and then the figure that shows the crop."""
    asyncio.run(_write_zoom(folder))
    return folder


async def _write_zoom(folder: Path) -> None:
    codec = ChatCodec.from_folder(TINY_BASE, PixelLimits(784, 28224))
    path = folder.with_name("zoomed.png")
    Image.linear_gradient("L").resize((672, 480)).convert("RGB").save(path)
    task = Task("zoom", "What is in the corner?", "7", (path,))
    async with SandboxPool(SANDBOX) as pool:
        agent = Agent(play_texts(codec, {task.id: _ZOOM}), codec, pool, ROLLOUT)
        trajectory = await run_episode(agent, open_task(agent, task), seed=0)
    with RunFolder.create(folder, CONFIG_YAML) as run:
        group = score_group(task, (trajectory,), RewardConfig())
        run.write_groups(1, "train", [GroupRecord(group)])


def _record(run: RunFolder, step: int, groups: Sequence[Group], monitor: CollapseMonitor) -> None:
    selection = select(groups, SELECT)

    def why(group: Group, index: int) -> str:
        reason = drop_reason(group.trajectories[index], SELECT)
        return reason or ("group/ranked_below" if group.reward_std else "group/constant")

    metrics = rollout_metrics(selection)
    monitor.watch(step, metrics)
    run.log(step, metrics | monitor.metrics())
    run.write_warnings([asdict(warned) for warned in monitor.warnings])
    run.write_groups(step, "train", selection_records(selection, why, group_advantages))


async def _play(
    codec: ChatCodec,
    pool: SandboxPool,
    images: Path,
    place: tuple[int, int, int],
    size: int,
    skill: float,
    rng: random.Random,
) -> Group:
    seed, step, number = place
    kind = KINDS[number % len(KINDS)]
    item = make_item(item_seed("train", seed, step * 64 + number), kind)
    path = images / f"step{step}-{number}.png"
    Image.fromarray(item.image).save(path)
    task = Task(
        f"{step}-{number}", item.question, item.plan.answer, (path,), source="needle", ability=kind
    )
    trajectories = []
    for index in range(size):
        texts = _texts(item, rng, skill)
        script = ScriptedEngine(codec, lambda context, texts=texts: texts[len(context.turns)])
        agent = Agent(Doubtful(script), codec, pool, ROLLOUT)
        trajectories.append(await run_episode(agent, open_task(agent, task), seed=index))
    return score_group(task, tuple(trajectories), RewardConfig())


def _texts(item: NeedleItem, rng: random.Random, skill: float) -> list[str]:
    """What one trajectory writes: the skilled look where they must, the others guess or fail."""
    if rng.random() < 0.06:
        return ["I do not know where to begin."]
    looks = len(item.plan.looks) if rng.random() < 0.25 + 0.7 * skill else rng.choice([0, 0, 1])
    looks = 0 if item.plan.kind == "easy" and rng.random() < 0.5 else looks
    texts = [turn.text for turn in trace_turns(item.plan, looks)]
    needed = {"easy": 0, "one_look": 1, "two_looks": 2}[item.plan.kind]
    if looks < needed and rng.random() < 0.8:
        texts[-1] = texts[-1].replace(item.plan.answer, rng.choice("0123456789"))
    if rng.random() < 0.2:
        texts.insert(0, rng.choice([_FAILED, _MEASURE]))
    return texts
