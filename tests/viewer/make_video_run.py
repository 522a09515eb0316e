"""A run of video tasks: scripts that fetch frames of encoded clips through the real sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from pyvision_rl.data.needle_video import make_clip, oracle_clip_turns
from pyvision_rl.data.needle_video_files import write_clip
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.scripted import play_texts
from pyvision_rl.model.tiny import TINY_BASE
from pyvision_rl.reward.reward import RewardConfig, score_group
from pyvision_rl.rollout.episode import Agent, RolloutConfig, open_task, run_episode
from pyvision_rl.rollout.videos import VideoConfig
from pyvision_rl.runs import GroupRecord, RunFolder
from pyvision_rl.sandbox import SandboxConfig, SandboxPool
from pyvision_rl.types import Group, Task

CONFIG_YAML = "policy: {model: tiny}\nagent: {sandbox: {figures: pixels}}\nseed: 0\n"
CLIP = make_clip(3)

_CONTEXT = {"on_demand": VideoConfig(), "hybrid": VideoConfig("hybrid", num_frames=4)}
_BATCH = """Three frames of the second half, then one of them closer.
<code>
```python
n, fps = len(video_clue_0), video_clue_0.get_avg_fps()
frames = video_clue_0.get_batch(np.linspace(n // 2, n - 1, 3).astype(int))
print(n, fps, frames.shape)
for frame in frames:
    plt.imshow(frame)
    plt.show()
```
</code>"""


def write_video_run(folder: Path, real_clip: Path | None = None) -> Path:
    """Step 1: the oracle on a clip whose frames it fetches; step 2: the same with four frames in
    the prompt; step 3, where a real clip is given: three frames of it.
    """
    asyncio.run(_write(folder, real_clip))
    return folder


async def _write(folder: Path, real_clip: Path | None) -> None:
    codec = ChatCodec.from_folder(TINY_BASE, PixelLimits(784, 28224))
    clip = folder.with_name(f"{folder.name}.mp4")
    write_clip(clip, CLIP.frames)
    asked = Task("clip", CLIP.question, CLIP.asked.digit, videos=(clip,), source="needle-video")
    oracle = oracle_clip_turns(CLIP.asked)
    sandbox = SandboxConfig(isolation="best_effort", figures="pixels", timeout_s=20)
    with RunFolder.create(folder, CONFIG_YAML) as run:
        async with SandboxPool(sandbox) as pool:
            for step, context in enumerate(_CONTEXT, 1):
                group = await _play(codec, pool, asked, oracle, _CONTEXT[context])
                run.write_groups(step, "train", [GroupRecord(group)])
            if real_clip:
                task = Task("real", "What happens?", "a rabbit", videos=(real_clip,))
                texts = [_BATCH, "<answer>a rabbit</answer>"]
                group = await _play(codec, pool, task, texts, VideoConfig())
                run.write_groups(3, "train", [GroupRecord(group)])


async def _play(
    codec: ChatCodec, pool: SandboxPool, task: Task, texts: Sequence[str], video: VideoConfig
) -> Group:
    config = RolloutConfig(video=video, max_tokens=4000, max_completion_tokens=600)
    agent = Agent(play_texts(codec, {task.id: texts}), codec, pool, config)
    trajectory = await run_episode(agent, open_task(agent, task), seed=0)
    return score_group(task, (trajectory,), RewardConfig())
