"""Oversample, filter, rank: which of the drawn groups are trained on (paper Sec. 3.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pyvision_rl.errors import ConfigError, SelectionError
from pyvision_rl.reward.reward import RIGHT_FROM
from pyvision_rl.rl.advantage import Baseline, group_advantages, part_of
from pyvision_rl.types import Group, KeptGroup, Selection, StopReason, Trajectory

Stop = Literal["no_action", "max_tokens", "max_images", "code_error", "max_turns"]


@dataclass(frozen=True)
class SelectConfig:
    """Draw `oversample` groups, drop what teaches nothing, keep the `num_groups` best."""

    oversample: int = 32
    """Groups in one round, carried ones among them."""
    num_groups: int = 16
    """Groups trained on in one step."""
    min_groups: int = 1
    """Fewer usable groups than this after the last round stop the run."""
    max_rounds: int = 4
    """Rounds drawn until `num_groups` are usable."""
    drop_constant: bool = True
    """Drop groups in which every reward is the same: their advantages are all zero."""
    drop_stops: tuple[Stop, ...] = ("no_action", "max_tokens", "max_images")
    """Drop trajectories that ended so; by default those whose interaction broke."""
    drop_without_look: bool = False
    """Drop trajectories to which no program ever showed an image (the paper's code, not its text):
    answers without a look then never get gradient."""
    drop_right_negative: bool = False
    """Drop right trajectories whose advantage is negative (an option of the paper's code)."""
    baseline: Baseline = "played"
    """Whose rewards a group's mean and spread are of. played: all but lost sandboxes, before any
    trajectory is dropped. kept: the trajectories that enter the loss."""
    rank_by_std: bool = True
    """Keep the groups whose rewards differ most; off: the first ones drawn."""
    unit: Literal["group", "trajectory"] = "group"
    """What is counted and cut. group: `num_groups` whole groups, as the paper says. trajectory: as
    many trajectories as those would have undropped, the last group split, as its code does."""
    max_staleness: int = 0
    """Groups that ranked below the kept ones stand in for drawn ones for this many more steps; the
    policy has moved on since they were sampled. 0: never."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_groups <= self.num_groups:
            raise ConfigError(
                f"select: need 1 <= min_groups <= num_groups, "
                f"got min_groups={self.min_groups}, num_groups={self.num_groups}"
            )
        if self.max_rounds < 1:
            raise ConfigError(f"select.max_rounds: {self.max_rounds}, must be at least 1")
        if self.max_staleness < 0:
            raise ConfigError(f"select.max_staleness: {self.max_staleness}, must not be negative")
        self._check_unit()

    def _check_unit(self) -> None:
        if self.unit == "group" and self.oversample < self.num_groups:
            raise ConfigError(
                f"select.oversample: {self.oversample}, must be at least num_groups="
                f"{self.num_groups}"
            )
        if not self.num_groups <= self.oversample * self.max_rounds:
            raise ConfigError(
                f"select.oversample: {self.oversample} in max_rounds={self.max_rounds} can never "
                f"give num_groups={self.num_groups}"
            )
        if self.unit == "trajectory" and self.baseline == "kept":
            raise ConfigError(
                "select.baseline: kept needs unit=group; a group that was split has no baseline"
            )


def drop_reason(trajectory: Trajectory, config: SelectConfig) -> str | None:
    """Why a trajectory stays out of the loss whatever its group did, None where it may enter."""
    if trajectory.stop is StopReason.SANDBOX_LOST:
        return "sandbox_lost"
    if trajectory.stop in config.drop_stops:
        return trajectory.stop.value
    if config.drop_without_look and not trajectory.looked:
        return "without_look"
    return None


def drop_reasons(group: Group, config: SelectConfig) -> tuple[str | None, ...]:
    """Why each trajectory of a group stays out of the loss, None where it may enter, [G]."""
    reasons = [drop_reason(trajectory, config) for trajectory in group.trajectories]
    if config.drop_right_negative:
        for index, advantage in enumerate(group_advantages(group)):
            if advantage < 0 and group.rewards[index].accuracy >= RIGHT_FROM:
                reasons[index] = reasons[index] or "right_negative"
    return tuple(reasons)


def baseline_of(group: Group, config: SelectConfig) -> tuple[int, ...]:
    """Indices of the trajectories whose rewards make the group's baseline."""
    if config.baseline == "played":
        return group.counted
    return tuple(i for i, reason in enumerate(drop_reasons(group, config)) if reason is None)


def why_left_out(group: Group, index: int, config: SelectConfig) -> str:
    """The reason why a trajectory that is not in a selection is not."""
    if reason := drop_reasons(group, config)[index]:
        return reason
    is_constant = config.drop_constant and _spread(group, config) == 0
    return "group/constant" if is_constant else "group/ranked_below"


def _spread(group: Group, config: SelectConfig) -> float:
    """Standard deviation of the rewards that make the baseline: what groups are ranked by."""
    return part_of(group, baseline_of(group, config)).reward_std


def select(
    drawn: Sequence[Group], config: SelectConfig, carried: Sequence[Group] = ()
) -> Selection:
    """Filter and rank groups; `dropped` counts groups as `group/...` and trajectories by reason.

    Groups of equal spread stay in the order in which they were drawn, those carried over from
    earlier steps last. What of these was dropped is not counted again.
    """
    dropped: Counter[str] = Counter()
    usable = [kept for group in drawn if (kept := _filter(group, config, dropped))]
    usable += [kept for group in carried if (kept := _filter(group, config, Counter()))]
    if config.rank_by_std:
        usable.sort(key=lambda kept: -_spread(kept.group, config))
    if config.unit == "group":
        kept, below = usable[: config.num_groups], usable[config.num_groups :]
    else:
        kept, below = _cut_trajectories(usable, _num_wanted(drawn, config), dropped)
    dropped["group/ranked_below"] = len(below)
    surplus = tuple(entry.group for entry in below)
    return Selection(tuple(drawn), tuple(kept), +dropped, surplus)


def _filter(group: Group, config: SelectConfig, dropped: Counter[str]) -> KeptGroup | None:
    """What of a group may enter the loss, None where nothing may or all of it is one reward."""
    if config.drop_constant and group.reward_std == 0:
        dropped["group/constant"] += 1
        return None
    reasons = drop_reasons(group, config)
    dropped.update(reason for reason in reasons if reason)
    indices = tuple(index for index, reason in enumerate(reasons) if reason is None)
    if not indices:
        dropped["group/no_trajectory"] += 1
        return None
    if config.drop_constant and _spread(group, config) == 0:
        dropped["group/constant"] += 1
        return None
    return KeptGroup(group, indices)


def _num_wanted(drawn: Sequence[Group], config: SelectConfig) -> int:
    """Trajectories that `num_groups` groups have before any is dropped."""
    return config.num_groups * max((len(group.trajectories) for group in drawn), default=0)


def _cut_trajectories(
    usable: Sequence[KeptGroup], wanted: int, dropped: Counter[str]
) -> tuple[list[KeptGroup], list[KeptGroup]]:
    """The first `wanted` trajectories, and the groups of which none is among them."""
    kept: list[KeptGroup] = []
    for place, entry in enumerate(usable):
        if wanted == 0:
            return kept, list(usable[place:])
        taken = entry.indices[:wanted]
        dropped["ranked_below"] += len(entry.indices) - len(taken)
        kept.append(KeptGroup(entry.group, taken))
        wanted -= len(taken)
    return kept, []


def is_full(selection: Selection, config: SelectConfig) -> bool:
    """Whether nothing more has to be drawn."""
    if config.unit == "group":
        return len(selection.kept) == config.num_groups
    wanted = _num_wanted(selection.drawn, config)
    return 0 < wanted == sum(len(kept.indices) for kept in selection.kept)


async def collect(
    draw: Callable[[int], Awaitable[Sequence[Group]]],
    config: SelectConfig,
    carried: Sequence[Group] = (),
) -> Selection:
    """Draw groups until enough are usable. `draw(n)` plays n fresh tasks, those that it can.

    Carried groups save as many draws in the first round, which still has `num_groups` fresh ones.
    Raises SelectionError, with the reasons counted, where even the last round leaves fewer than
    `min_groups`.
    """
    drawn: list[Group] = []
    num_asked = 0
    selection = Selection((), (), Counter())
    count = max(config.oversample - len(carried), min(config.num_groups, config.oversample))
    for _ in range(config.max_rounds):
        drawn += await draw(count)
        num_asked, count = num_asked + count, config.oversample
        selection = select(drawn, config, carried)
        if is_full(selection, config):
            return selection
    if len(selection.kept) >= config.min_groups:
        return selection
    dropped = +Counter({**selection.dropped, "skipped_task": num_asked - len(drawn)})
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
    raise SelectionError(
        f"{len(drawn)} groups drawn in {config.max_rounds} rounds, {len(selection.kept)} usable, "
        f"at least {config.min_groups} needed; dropped: {reasons or 'none'}"
    )
