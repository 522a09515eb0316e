"""Cold-start traces of the embedded task: the oracle's behaviours, played in the real sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pyvision_rl.data.needle import KINDS, Kind, NeedlePlan, TraceTurn, trace_turns
from pyvision_rl.errors import ConfigError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.rollout.episode import RolloutConfig
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.sft.play import play_traces
from pyvision_rl.types import Task


@dataclass(frozen=True)
class NeedleTraceConfig:
    """How often the traces look, per kind: shares of 0, 1 and 2 looks.

    A cold start that always looks enough would leave RL nothing to find; one that never does
    leaves it nothing to reinforce.
    """

    easy: tuple[float, float, float] = (0.5, 0.4, 0.1)
    """Looks at easy items; 0 is enough."""
    one_look: tuple[float, float, float] = (0.35, 0.5, 0.15)
    """Looks at one-look items; with 0 the answer is a guess that the loss skips."""
    two_looks: tuple[float, float, float] = (0.3, 0.45, 0.25)
    """Looks at two-look items; with 0 or 1 the answer is a guess that the loss skips."""

    def __post_init__(self) -> None:
        for kind in KINDS:
            shares = self.shares(kind)
            if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
                raise ConfigError(
                    f"traces.{kind}: {shares} must be 3 shares, none negative, not all 0"
                )

    def shares(self, kind: Kind) -> tuple[float, float, float]:
        """Shares of 0, 1 and 2 looks."""
        return {"easy": self.easy, "one_look": self.one_look, "two_looks": self.two_looks}[kind]


async def write_needle_traces(
    folder: Path,
    tasks: Sequence[Task],
    plans: Mapping[str, NeedlePlan],
    codec: ChatCodec,
    pool: SandboxPool,
    rollout: RolloutConfig,
    config: NeedleTraceConfig,
    seed: int,
) -> Path:
    """Play every task once, with a drawn number of looks, and write the traces."""
    rng = Random(seed)
    turns: dict[str, list[TraceTurn]] = {}
    for task in tasks:
        plan = plans[task.images[0].name]
        (num_looks,) = rng.choices((0, 1, 2), config.shares(plan.kind))
        turns[task.id] = trace_turns(plan, num_looks)
    return await play_traces(folder, tasks, turns, codec, pool, rollout, seed)
