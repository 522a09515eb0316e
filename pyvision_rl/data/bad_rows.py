"""Rows that were fine when the run began and turned bad later: skipped, told, up to a bound."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from pyvision_rl.errors import InputError, MediaError
from pyvision_rl.types import Task

logger = logging.getLogger(__name__)


@dataclass
class BadRows:
    """Tasks whose media cannot be read any more; `limit` of them are skipped."""

    limit: int
    ids: set[str] = field(default_factory=set)
    num_skipped: int = 0

    def skip(self, task: Task, error: MediaError) -> None:
        """Note that a draw of the task is left out. Raises InputError beyond the limit."""
        self.num_skipped += 1
        if task.id in self.ids:
            return
        self.ids.add(task.id)
        if len(self.ids) > self.limit:
            raise InputError(
                f"task {task.id}: {error}; {len(self.ids)} tasks have turned bad, "
                f"max_bad_rows is {self.limit}"
            )
        logger.warning(
            "task %s is skipped (%d of at most %d): %s", task.id, len(self.ids), self.limit, error
        )

    def take_metrics(self) -> dict[str, float]:
        """Draws that were skipped since the last call."""
        skipped, self.num_skipped = self.num_skipped, 0
        return {"data/skipped": float(skipped)}
