"""How much better a trajectory was than its group (paper Eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pyvision_rl.types import Group, KeptGroup, StopReason

STD_FLOOR = 1e-6

Baseline = Literal["played", "kept"]
"""Whose rewards the baseline is of: all but lost sandboxes, or the trajectories in the loss."""


def group_advantages(
    group: Group, *, normalize_std: bool = False, over: Sequence[int] | None = None
) -> tuple[float, ...]:
    """A_i = R_i - mean(R) for each trajectory of the group, [G].

    The baseline is over all trajectories that are the policy's own doing, broken ones included,
    or over those that `over` names; a lost sandbox gets 0. `normalize_std` divides by the standard
    deviation as plain GRPO does, which the paper drops: it blows up the advantages of groups that
    hardly differ.
    """
    base = group if over is None else part_of(group, over)
    mean = base.reward_mean
    scale = max(base.reward_std, STD_FLOOR) if normalize_std else 1.0
    return tuple(
        0.0 if trajectory.stop is StopReason.SANDBOX_LOST else (reward.total - mean) / scale
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
    )


def kept_advantages(
    kept: KeptGroup, *, normalize_std: bool = False, baseline: Baseline = "played"
) -> tuple[float, ...]:
    """Advantages of the chosen trajectories, in the order of `kept.indices`."""
    over = kept.indices if baseline == "kept" else None
    advantages = group_advantages(kept.group, normalize_std=normalize_std, over=over)
    return tuple(advantages[index] for index in kept.indices)


def part_of(group: Group, indices: Sequence[int]) -> Group:
    """Some of a group's trajectories as a group of their own."""
    return Group(
        group.task,
        tuple(group.trajectories[index] for index in indices),
        tuple(group.rewards[index] for index in indices),
    )
