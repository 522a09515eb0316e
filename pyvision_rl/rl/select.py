"""Oversample, filter, rank: which of the drawn groups are trained on (paper Sec. 3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pyvision_rl.errors import ConfigError, SelectionError
from pyvision_rl.types import BROKEN_STOPS, Group, KeptGroup, Selection, StopReason, Trajectory


@dataclass(frozen=True)
class SelectConfig:
    """Draw `oversample` groups, drop what teaches nothing, keep the `num_groups` best."""

    oversample: int = 32
    """Groups drawn in one round."""
    num_groups: int = 16
    """Groups trained on in one step."""
    min_groups: int = 1
    """Fewer usable groups than this after the last round stop the run."""
    max_rounds: int = 4
    """Rounds drawn until `num_groups` are usable."""
    drop_constant: bool = True
    """Drop groups in which every reward is the same: their advantages are all zero."""
    drop_broken: bool = True
    """Drop trajectories that ended without an answer or a program, or over a limit."""
    drop_without_look: bool = False
    """Drop trajectories to which no program ever showed an image (the paper's code, not its text):
    answers without a look then never get gradient."""
    rank_by_std: bool = True
    """Keep the groups whose rewards differ most; off: the first ones drawn."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_groups <= self.num_groups:
            raise ConfigError(
                f"select: need 1 <= min_groups <= num_groups, "
                f"got min_groups={self.min_groups}, num_groups={self.num_groups}"
            )
        if self.oversample < self.num_groups:
            raise ConfigError(
                f"select.oversample: {self.oversample}, must be at least num_groups="
                f"{self.num_groups}"
            )
        if self.max_rounds < 1:
            raise ConfigError(f"select.max_rounds: {self.max_rounds}, must be at least 1")


def drop_reason(trajectory: Trajectory, config: SelectConfig) -> str | None:
    """Why a trajectory stays out of the loss, None where it may enter.

    It counts for its group's baseline all the same, a lost sandbox excepted.
    """
    if trajectory.stop is StopReason.SANDBOX_LOST:
        return "sandbox_lost"
    if config.drop_broken and trajectory.stop in BROKEN_STOPS:
        return trajectory.stop.value
    if config.drop_without_look and not trajectory.looked:
        return "without_look"
    return None


def select(drawn: Sequence[Group], config: SelectConfig) -> Selection:
    """Filter and rank groups; `dropped` counts groups as `group/...` and trajectories by reason.

    Groups of equal spread stay in the order in which they were drawn.
    """
    dropped: Counter[str] = Counter()
    usable: list[KeptGroup] = []
    for group in drawn:
        if config.drop_constant and group.reward_std == 0:
            dropped["group/constant"] += 1
            continue
        reasons = [drop_reason(trajectory, config) for trajectory in group.trajectories]
        dropped.update(reason for reason in reasons if reason)
        indices = tuple(index for index, reason in enumerate(reasons) if reason is None)
        if indices:
            usable.append(KeptGroup(group, indices))
        else:
            dropped["group/no_trajectory"] += 1
    if config.rank_by_std:
        usable.sort(key=lambda kept: -kept.group.reward_std)
    if surplus := len(usable) - config.num_groups:
        dropped["group/ranked_below"] += max(surplus, 0)
    return Selection(tuple(drawn), tuple(usable[: config.num_groups]), +dropped)


async def collect(
    draw: Callable[[int], Awaitable[Sequence[Group]]], config: SelectConfig
) -> Selection:
    """Draw groups until enough are usable. `draw(n)` plays n fresh tasks.

    Raises SelectionError, with the reasons counted, where even the last round leaves fewer than
    `min_groups`.
    """
    drawn: list[Group] = []
    selection = Selection((), (), Counter())
    for _ in range(config.max_rounds):
        drawn += await draw(config.oversample)
        selection = select(drawn, config)
        if len(selection.kept) == config.num_groups:
            return selection
    if len(selection.kept) >= config.min_groups:
        return selection
    reasons = ", ".join(f"{reason} {count}" for reason, count in selection.dropped.most_common())
    raise SelectionError(
        f"{len(drawn)} groups drawn in {config.max_rounds} rounds, {len(selection.kept)} usable, "
        f"at least {config.min_groups} needed; dropped: {reasons or 'none'}"
    )
