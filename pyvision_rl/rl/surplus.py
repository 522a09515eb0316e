"""Groups that ranked below the kept ones, for the steps in which they may still be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pyvision_rl.runs import GroupRecord
from pyvision_rl.runs.records import read_groups, recorded_steps, write_groups
from pyvision_rl.types import Group, Selection

PHASE = "surplus"


class Surplus:
    """Surplus groups by the step that drew them; none is older than `max_staleness` steps."""

    def __init__(self, max_staleness: int) -> None:
        self._max_staleness = max_staleness
        self._drawn: dict[int, tuple[Group, ...]] = {}

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that the next step may use, newest first."""
        steps = sorted(self._drawn, reverse=True)
        return tuple(group for step in steps for group in self._drawn[step])

    def staleness(self, groups: Iterable[Group], step: int) -> list[int]:
        """How many steps ago each group was drawn, seen from `step`; 0 for its own."""
        born = {id(group): drawn for drawn, groups in self._drawn.items() for group in groups}
        return [step - born.get(id(group), step) for group in groups]

    def renew(self, selection: Selection, step: int) -> None:
        """Keep of what `step` left over the groups that step + 1 may use."""
        ages = self.staleness(selection.surplus, step)
        left: dict[int, tuple[Group, ...]] = {}
        for group, age in zip(selection.surplus, ages, strict=True):
            if age < self._max_staleness:
                left[step - age] = (*left.get(step - age, ()), group)
        self._drawn = left

    def save(self, folder: Path) -> None:
        """Write the groups as trajectory records."""
        for step, groups in self._drawn.items():
            write_groups(folder, step, PHASE, [GroupRecord(group) for group in groups])

    def load(self, folder: Path) -> None:
        """Go back to what `save` wrote; raises InputError where it cannot be read."""
        self._drawn = {
            step: tuple(record.group for record in read_groups(folder, step, phase))
            for phase, step in recorded_steps(folder)
            if phase == PHASE
        }
