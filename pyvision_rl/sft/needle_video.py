"""Cold-start traces of the embedded video task, played in the real sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pyvision_rl.data.needle import TraceTurn
from pyvision_rl.data.needle_video import CLIP_KINDS, ClipKind, Event, clip_turns
from pyvision_rl.errors import ConfigError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.play import play_traces
from pyvision_rl.types import Task


@dataclass(frozen=True)
class NeedleVideoTraceConfig:
    """How often the traces call, per kind: shares of 0, 1, 2 ... calls; the last is enough.

    With fewer the answer is a guess that the loss skips.
    """

    on_sheet: tuple[float, float, float] = (0.1, 0.4, 0.5)
    """0 calls, the sheet, the sheet and the frame."""
    between: tuple[float, float, float, float] = (0.1, 0.3, 0.3, 0.3)
    """0 calls, the first sheet, both sheets, both sheets and the frame."""

    def __post_init__(self) -> None:
        for kind in CLIP_KINDS:
            shares = self.shares(kind)
            if min(shares) < 0 or sum(shares) <= 0:
                raise ConfigError(f"traces.{kind}: {shares}: none may be negative, not all 0")

    def shares(self, kind: ClipKind) -> tuple[float, ...]:
        """Shares of 0, 1, 2 ... calls."""
        return {"on_sheet": self.on_sheet, "between": self.between}[kind]


async def write_needle_video_traces(
    folder: Path,
    tasks: Sequence[Task],
    events: Mapping[str, Event],
    codec: ChatCodec,
    pool: SandboxPool,
    rollout: RolloutConfig,
    config: NeedleVideoTraceConfig,
    seed: int,
) -> Path:
    """Play every task once, with a drawn number of calls, and write the traces."""
    rng = Random(seed)
    scripts: dict[str, list[TraceTurn]] = {}
    for task in tasks:
        event = events[task.videos[0].name]
        shares = config.shares(event.kind)
        (num_looks,) = rng.choices(range(len(shares)), shares)
        scripts[task.id] = clip_turns(event, num_looks)
    return await play_traces(folder, tasks, scripts, codec, pool, rollout, seed)
