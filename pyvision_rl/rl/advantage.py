"""How much better a trajectory was than its group (paper Eq. 2)."""

from __future__ import annotations

from pyvision_rl.types import Group, StopReason

STD_FLOOR = 1e-6


def group_advantages(group: Group, *, normalize_std: bool = False) -> tuple[float, ...]:
    """A_i = R_i - mean(R) for each trajectory of the group, [G].

    The baseline is over all trajectories that are the policy's own doing, broken ones included;
    a lost sandbox gets 0. `normalize_std` divides by the standard deviation as plain GRPO does,
    which the paper drops: it blows up the advantages of groups that hardly differ.
    """
    scale = max(group.reward_std, STD_FLOOR) if normalize_std else 1.0
    return tuple(
        0.0
        if trajectory.stop is StopReason.SANDBOX_LOST
        else (reward.total - group.reward_mean) / scale
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
    )
