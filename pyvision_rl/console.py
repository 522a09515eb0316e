"""What a person sees in the terminal: a progress bar, one line per step, a closing table."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pyvision_rl.eval.report import Report

PLAIN_WIDTH = 120
"""Columns of lines that go to a file or a pipe."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


class ConsoleHandler(logging.Handler):
    """Log lines above the progress bar, as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        say(self.format(record))


STEP_FIELDS = (
    ("reward/mean", "reward", "{:.2f}"),
    ("reward/accuracy", "accuracy", "{:.2f}"),
    ("rollout/tool_calls", "calls", "{:.2f}"),
    ("rollout/zero_call_share", "no call", "{:.0%}"),
    ("rollout/visual_tokens", "visual tokens", "{:.0f}"),
    ("select/kept", "groups", "{:.0f}"),
    ("loss/sft", "loss", "{:.3f}"),
    ("eval/format", "well formed", "{:.0%}"),
    ("eval/accuracy", "right", "{:.0%}"),
    ("loss/entropy", "entropy", "{:.2f}"),
    ("learner/grad_norm", "grad", "{:.2f}"),
    ("rate/tokens_per_s", "tokens/s", "{:.0f}"),
    ("rate/cells_per_s", "cells/s", "{:.1f}"),
    ("time/rollout_s", "rollout", "{:.1f}s"),
    ("time/update_s", "update", "{:.1f}s"),
)
"""Metrics of a step's line, in order, those that the step has."""


class StageProgress:
    """A bar for one stage; lines above it stay."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, total=total)

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Move the bar and leave a line with the step's metrics."""
        self.advance(done, total)
        parts = [f"{name} {form.format(metrics[key])}" for key, name, form in _shown(metrics)]
        if "time/eta_s" in metrics and done < total:
            parts.append(f"left {_duration(metrics['time/eta_s'])}")
        say(f"  step {done:>{len(str(total))}}/{total}  " + "  ".join(parts))


def _duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds where there are no hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{rest:02d}"


def _shown(metrics: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    return (field for field in STEP_FIELDS if field[0] in metrics)


@contextmanager
def stage(name: str) -> Iterator[StageProgress]:
    """A heading and a bar with rate and remaining time while the stage runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield StageProgress(progress, progress.add_task(name, total=None))


def say(text: str) -> None:
    """One plain line."""
    console.print(text, soft_wrap=True, markup=False)


def report_table(title: str, reports: Sequence[tuple[str, Report]]) -> Table:
    """A row per report: accuracy with its interval, per kind, and how the agent got there."""
    kinds = sorted({kind for _, report in reports for kind in report.by_kind})
    table = Table(title=title)
    table.add_column("policy")
    visual = "visual tokens given + shown"
    for column in ("accuracy", "95 % interval", *kinds, "calls", "no call", visual):
        table.add_column(column, justify="right")
    for name, report in reports:
        figures = report.overall
        low, high = figures.accuracy_ci95
        per_kind = [
            f"{report.by_kind[kind].accuracy:.2f}" if kind in report.by_kind else ""
            for kind in kinds
        ]
        table.add_row(
            name,
            f"{figures.accuracy:.3f}",
            f"{low:.2f} to {high:.2f}",
            *per_kind,
            f"{figures.tool_calls_mean:.2f}",
            f"{figures.zero_call_share:.0%}",
            f"{figures.visual_tokens_given_mean:.0f} + {figures.visual_tokens_shown_mean:.0f}",
        )
    return table
