"""What one step of rollouts looked like, as flat numbers for the run's metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pyvision_rl.reward.reward import RIGHT_FROM
from pyvision_rl.rl.advantage import Baseline, kept_advantages
from pyvision_rl.types import Group, Reward, Selection, StopReason, Trajectory


def rollout_metrics(selection: Selection, baseline: Baseline = "played") -> dict[str, float]:
    """Means over all drawn trajectories (lost sandboxes left out), kept or not."""
    played = list(_played(selection.drawn))
    trajectories = [trajectory for trajectory, _ in played]
    rewards = [reward for _, reward in played]
    return {
        "reward/mean": _mean([reward.total for reward in rewards]),
        "reward/accuracy": _mean([reward.accuracy for reward in rewards]),
        "reward/tool": _mean([reward.tool for reward in rewards]),
        **_accuracy_by_kind(selection.drawn),
        "rollout/tool_calls": _mean([t.num_tool_calls for t in trajectories]),
        "rollout/zero_call_share": _mean([t.num_tool_calls == 0 for t in trajectories]),
        "rollout/divided_share": _mean([_is_divided(group) for group in selection.drawn]),
        "rollout/failed_calls": _mean(
            [t.num_tool_calls - t.num_ok_tool_calls for t in trajectories]
        ),
        "rollout/turns": _mean([len(t.turns) for t in trajectories]),
        "rollout/completion_tokens": _mean([t.num_completion_tokens for t in trajectories]),
        "rollout/visual_tokens": _mean([t.num_visual_tokens for t in trajectories]),
        "rollout/visual_tokens_given": _mean([t.num_visual_tokens_given for t in trajectories]),
        "rollout/visual_tokens_shown": _mean([t.num_visual_tokens_shown for t in trajectories]),
        **_stop_shares(trajectories),
        **_selection_metrics(selection),
        "select/right_negative_share": _right_negative_share(selection, baseline),
    }


def rate_metrics(selection: Selection, rollout_s: float) -> dict[str, float]:
    """What a second of rollouts gave: sampled tokens, results of programs (one that several
    episodes share counts for each), trajectories.
    """
    trajectories = [t for group in selection.drawn for t in group.trajectories]
    return {
        "rate/tokens_per_s": sum(t.num_completion_tokens for t in trajectories) / rollout_s,
        "rate/cells_per_s": sum(t.num_tool_calls for t in trajectories) / rollout_s,
        "rate/trajectories_per_s": len(trajectories) / rollout_s,
    }


def _played(groups: Sequence[Group]) -> Iterator[tuple[Trajectory, Reward]]:
    for group in groups:
        for index in group.counted:
            yield group.trajectories[index], group.rewards[index]


def _is_divided(group: Group) -> bool:
    """Whether some of a group call and some do not: only such groups teach to call, or not to."""
    return len({group.trajectories[index].num_tool_calls > 0 for index in group.counted}) == 2


def _accuracy_by_kind(groups: Sequence[Group]) -> dict[str, float]:
    kinds: dict[str, list[float]] = {}
    for trajectory, reward in _played(groups):
        if trajectory.task.ability:
            kinds.setdefault(trajectory.task.ability, []).append(reward.accuracy)
    return {f"reward/accuracy/{kind}": _mean(kinds[kind]) for kind in sorted(kinds)}


def _stop_shares(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Every reason in every step, 0 too: a gap in a curve would be drawn as a line."""
    reasons = [stop for stop in StopReason if stop is not StopReason.SANDBOX_LOST]
    return {f"stop/{stop}": _mean([t.stop is stop for t in trajectories]) for stop in reasons}


def _selection_metrics(selection: Selection) -> dict[str, float]:
    spread = [group.reward_std for group in selection.drawn]
    return {
        "select/drawn": float(len(selection.drawn)),
        "select/kept": float(len(selection.kept)),
        "select/reward_std": _mean(spread),
        "select/constant_share": _mean([std == 0 for std in spread]),
        **{f"select/dropped/{reason}": float(n) for reason, n in selection.dropped.items()},
    }


def _right_negative_share(selection: Selection, baseline: Baseline) -> float:
    """Share of the right trajectories trained on whose advantage is negative (paper Fig. 6)."""
    negative = [
        advantage < 0
        for kept in selection.kept
        for index, advantage in zip(
            kept.indices, kept_advantages(kept, baseline=baseline), strict=True
        )
        if kept.group.rewards[index].accuracy >= RIGHT_FROM
    ]
    return _mean(negative)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
