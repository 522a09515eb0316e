"""Does a look pay? The reward of looking beside that of answering at once, when a run begins, and
what became of the calls.

The rule under test: on the kind of task that most of the data is, calls live on if and only if
accuracy with the tool times (1 + coefficient x calls) is at least the accuracy of a direct answer,
that is, if the mean reward of trajectories that call is at least that of those that do not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunReader

FIRST_STEPS = 3
"""Steps at the beginning of a run that tell what a look is worth."""
LAST_STEPS = 3
"""Steps at the end that tell whether calls live on."""
COLUMNS = ("step", "ability", "reward", "num_tool_calls")


@dataclass(frozen=True)
class Worth:
    """One run, on the kind of task that it met most often."""

    kind: str
    looking: float
    """Mean reward of trajectories that call, in the first steps; nan where none did."""
    direct: float
    """Mean reward of those that do not."""
    standard_error: float
    """Of the difference of the two."""
    share_before: float
    """Share of trajectories with a call in the first steps."""
    share_after: float
    """The same in the last steps."""

    @property
    def gain(self) -> float:
        """What a look is worth: positive where it pays."""
        return self.looking - self.direct

    @property
    def lives(self) -> bool:
        """Whether looking became no rarer."""
        return self.share_after >= self.share_before

    @property
    def verdict(self) -> str:
        """Whether the rule foretold it; undecided within two standard errors of nothing."""
        if not abs(self.gain) > 2 * self.standard_error:
            return "undecided"
        return "as foretold" if (self.gain > 0) == self.lives else "not as foretold"


def worth_of(run: Path) -> Worth:
    """What a look was worth in a finished run. Raises InputError where it has no records."""
    table = RunReader(run).trajectories(phases=["train"], columns=COLUMNS)
    if not table.num_rows:
        raise InputError(f"{run}: no trajectories are recorded")
    steps = sorted(set(table["step"].to_pylist()))
    kind = Counter(table["ability"].to_pylist()).most_common(1)[0][0]
    table = table.filter(pc.equal(table["ability"], kind))
    first = table.filter(pc.less_equal(table["step"], steps[:FIRST_STEPS][-1]))
    last = table.filter(pc.greater_equal(table["step"], steps[-LAST_STEPS:][0]))
    called = pc.greater(first["num_tool_calls"], 0)
    looking = _rewards(first.filter(called))
    direct = _rewards(first.filter(pc.invert(called)))
    return Worth(
        kind,
        _mean(looking),
        _mean(direct),
        math.sqrt(_variance_of_mean(looking) + _variance_of_mean(direct)),
        _share_with_call(first),
        _share_with_call(last),
    )


def _rewards(rows: pa.Table) -> list[float]:
    return rows["reward"].to_pylist()


def _share_with_call(rows: pa.Table) -> float:
    calls = rows["num_tool_calls"].to_pylist()
    return sum(count > 0 for count in calls) / len(calls) if calls else math.nan


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _variance_of_mean(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def worth_table(rows: Sequence[tuple[str, Worth]]) -> list[str]:
    """A Markdown table, a line a run, and how often the rule was right."""
    lines = [
        f"Does a look pay? Mean rewards of trajectories with and without a call in the first "
        f"{FIRST_STEPS} steps, on the kind of task that is most frequent, and the share with a "
        f"call then and in the last {LAST_STEPS} steps.",
        "",
        "| run | kind | looking | direct | gain | calls at first | at last | rule |",
        "|" + "---|" * 8,
    ]
    for name, worth in rows:
        lines.append(
            f"| {name} | {worth.kind} | {worth.looking:.2f} | {worth.direct:.2f} | "
            f"{worth.gain:+.2f} ± {worth.standard_error:.2f} | {worth.share_before:.2f} | "
            f"{worth.share_after:.2f} | {worth.verdict} |"
        )
    verdicts = Counter(worth.verdict for _, worth in rows)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    return [*lines, "", f"The rule over {len(rows)} runs: {counts}."]
