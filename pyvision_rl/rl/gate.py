"""A look at the first rollouts: can RL help this policy at all?"""

from __future__ import annotations

from collections.abc import Sequence

from pyvision_rl.types import Group, StopReason

MIN_WELL_FORMED = 0.9
MIN_ACCURACY_WITH_LOOK = 0.25
MIN_LOOK_SHARE = 0.05


def gate_warning(groups: Sequence[Group]) -> str | None:
    """One line that says why RL is unlikely to help and what to do, or None.

    RL at this scale moves decisions that the policy already makes sometimes: where most turns are
    malformed, or a look hardly ever leads to a right answer, rewards are noise.
    """
    played = [(g.trajectories[i], g.rewards[i]) for g in groups for i in g.counted]
    if not played:
        return None
    broken = (StopReason.NO_ACTION, StopReason.MAX_TOKENS)
    well_formed = sum(trajectory.stop not in broken for trajectory, _ in played) / len(played)
    looked = [reward.accuracy for trajectory, reward in played if trajectory.looked]
    if well_formed < MIN_WELL_FORMED:
        return (
            f"RL is unlikely to help: only {well_formed:.0%} of the trajectories are well formed "
            f"(at least {MIN_WELL_FORMED:.0%} needed); train the SFT stage longer, or raise "
            "rollout.max_completion_tokens if they were cut"
        )
    if len(looked) < MIN_LOOK_SHARE * len(played):
        return (
            f"RL is unlikely to help: only {len(looked)} of {len(played)} trajectories ever look; "
            "add traces that call the tool to the SFT data, or check the prompt template"
        )
    accuracy = sum(looked) / len(looked)
    if accuracy < MIN_ACCURACY_WITH_LOOK:
        return (
            f"RL is unlikely to help: accuracy after a look is {accuracy:.2f} "
            f"(at least {MIN_ACCURACY_WITH_LOOK} needed); train the SFT stage longer or on "
            "easier tasks first"
        )
    return None
