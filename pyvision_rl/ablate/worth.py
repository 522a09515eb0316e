"""Does a look pay? Rewards with and without a call when a run begins, and what became of the calls.

Two rules are tested. The first looks at the kind of task that most of the data is: calls live on if
and only if accuracy with the tool times (1 + coefficient x calls) is at least the accuracy of a
direct answer, that is, if trajectories that call are rewarded at least as well as those that do
not. The second asks the same of all tasks by what the policy gradient sees of it: the covariance of
calling and reward within a group.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunReader

NUM_STEPS = 3
"""Steps that are taken together, at the beginning, soon after and at the end."""
SOON = 7
"""First of the steps soon after."""
COLUMNS = ("step", "group", "ability", "reward", "num_tool_calls")

Rollouts = list[tuple[bool, float]]
"""Of each trajectory whether it calls, and its reward."""


@dataclass(frozen=True)
class Estimated:
    """A mean and its standard error; nan where nothing was there to be averaged."""

    mean: float
    error: float

    @property
    def is_sure(self) -> bool:
        """Whether it is further than two standard errors from nothing."""
        return abs(self.mean) > 2 * self.error

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class Worth:
    """What a look was worth in the first steps of a run, and the share of calls from then on."""

    kind: str
    """The most frequent kind of task."""
    gain: Estimated
    """Reward of calling over that of answering directly, on tasks of that kind; over the groups in
    which some call and some do not."""
    pull: Estimated
    """Covariance of calling (0 or 1) and reward within a group, over all groups of all kinds."""
    share_first: float
    """Share of trajectories with a call in the first steps, on tasks of that kind."""
    share_soon: float
    """The same in steps 7 to 9."""
    share_last: float
    """The same at the end."""

    def verdict(self, force: Estimated, after: float) -> str:
        """Whether the sign of `force` foretold that calls became no rarer, or that they did."""
        if not force.is_sure:
            return "undecided"
        return "yes" if (force.mean > 0) == (after >= self.share_first) else "no"


RULES: tuple[tuple[str, Callable[[Worth], str]], ...] = (
    ("gain, soon", lambda worth: worth.verdict(worth.gain, worth.share_soon)),
    ("gain, at last", lambda worth: worth.verdict(worth.gain, worth.share_last)),
    ("pull, soon", lambda worth: worth.verdict(worth.pull, worth.share_soon)),
    ("pull, at last", lambda worth: worth.verdict(worth.pull, worth.share_last)),
)
"""What foretells, and when it is held against the calls."""


def worth_of(run: Path) -> Worth:
    """What a look was worth in a finished run. Raises InputError where it has no records."""
    rows = RunReader(run).trajectories(phases=["train"], columns=COLUMNS).to_pylist()
    if not rows:
        raise InputError(f"{run}: no trajectories are recorded")
    steps = sorted({row["step"] for row in rows})
    kinds = Counter(row["ability"] for row in rows)
    kind = kinds.most_common(1)[0][0]
    groups: dict[tuple[str, int, int], Rollouts] = defaultdict(list)
    for row in rows:
        place = row["ability"], row["step"], row["group"]
        groups[place].append((row["num_tool_calls"] > 0, row["reward"]))

    def played(some: Sequence[int], of: Container[str]) -> list[Rollouts]:
        return [group for (what, step, _), group in groups.items() if step in some and what in of]

    first, last = steps[:NUM_STEPS], steps[-NUM_STEPS:]
    soon = [step for step in steps if SOON <= step < SOON + NUM_STEPS] or last
    mixed = [group for group in played(first, [kind]) if 0 < _share(group) < 1]
    return Worth(
        kind,
        _estimate([_difference(group) for group in mixed]),
        _estimate([_covariance(group) for group in played(first, kinds)]),
        *(_share([*chain(*played(some, [kind]))]) for some in (first, soon, last)),
    )


def _share(group: Rollouts) -> float:
    """Share that calls."""
    return sum(calls for calls, _ in group) / len(group) if group else math.nan


def _difference(group: Rollouts) -> float:
    """Mean reward of those that call over that of those that do not; a group has both."""
    calling = [reward for calls, reward in group if calls]
    direct = [reward for calls, reward in group if not calls]
    return math.fsum(calling) / len(calling) - math.fsum(direct) / len(direct)


def _covariance(group: Rollouts) -> float:
    """Covariance of calling and reward: p (1 - p) times the difference."""
    share = _share(group)
    return share * (1 - share) * _difference(group) if 0 < share < 1 else 0.0


def _estimate(values: Sequence[float]) -> Estimated:
    count = len(values)
    mean = math.fsum(values) / count if count else math.nan
    if count < 2:
        return Estimated(mean, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimated(mean, math.sqrt(variance / count))


def worth_table(rows: Sequence[tuple[str, Worth]]) -> list[str]:
    """A Markdown table, a line a run, and how often each rule was right."""
    lines = [
        f"Does a look pay? Gain: reward of calling over answering directly, on the kind of task "
        f"that is most frequent. Pull: covariance of calling and reward within groups, all tasks. "
        f"Both in the first {NUM_STEPS} steps, ± one standard error. Share of trajectories of that "
        f"kind with a call then, in steps {SOON} to {SOON + NUM_STEPS - 1} and in the last "
        f"{NUM_STEPS}. Was the change of that share foretold by the sign of gain and of pull?",
        "",
        "| run | kind | gain | pull | calls first | soon | last | "
        + " | ".join(name for name, _ in RULES)
        + " |",
        "|" + "---|" * (7 + len(RULES)),
    ]
    for name, worth in rows:
        shares = (worth.share_first, worth.share_soon, worth.share_last)
        cells = [f"{share:.2f}" for share in shares] + [verdict(worth) for _, verdict in RULES]
        lines.append(
            f"| {name} | {worth.kind} | {worth.gain} | {worth.pull} | {' | '.join(cells)} |"
        )
    lines += ["", f"Over {len(rows)} runs:", ""]
    for name, verdict in RULES:
        counts = Counter(verdict(worth) for _, worth in rows)
        found = ", ".join(f"{word} {counts[word]}" for word in ("yes", "no", "undecided"))
        lines.append(f"* {name}: {found}")
    return lines
