"""curves.png: a run at a glance, drawn without pyplot's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from pyvision_rl.runs.metrics import MetricRow


@dataclass(frozen=True)
class Panel:
    """One plot: the metric `key` as a bold line, `key/<kind>` as a thin one each.

    `share`: a value between 0 and 1, drawn on that axis.
    """

    title: str
    key: str
    share: bool = False


PANELS = (
    Panel("Accuracy on unseen tasks", "eval/accuracy", share=True),
    Panel("Well-formed trajectories on unseen tasks", "eval/format", share=True),
    Panel("Calls on unseen tasks", "eval/tool_calls_mean"),
    Panel("Accuracy of rollouts", "reward/accuracy", share=True),
    Panel("Reward of rollouts", "reward/mean"),
    Panel("Tool calls per trajectory", "rollout/tool_calls"),
    Panel("Trajectories without a call", "rollout/zero_call_share", share=True),
    Panel("Turns per trajectory", "rollout/turns"),
    Panel("Tokens written per trajectory", "rollout/completion_tokens"),
    Panel("Visual tokens per trajectory", "rollout/visual_tokens"),
    Panel("Visual tokens shown by programs", "rollout/visual_tokens_shown"),
    Panel("Entropy per token (nats)", "loss/entropy"),
    Panel("Groups of constant reward", "select/constant_share", share=True),
    Panel("SFT loss per token", "loss/sft"),
)

_COLUMNS = 3
_INK, _GREY = "#222222", "#8a8a8a"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours: distinct for colour-blind readers and in print."""


def draw_curves(rows: Sequence[MetricRow], panels: Sequence[Panel] = PANELS) -> bytes:
    """A PNG with a plot for each panel of whose metric the rows hold a finite value."""
    keys = {key for row in rows for key, value in row.values.items() if math.isfinite(value)}
    shown = [panel for panel in panels if _lines(panel, keys)] or list(panels[:1])
    kinds = sorted({kind for panel in shown for kind in _lines(panel, keys) if kind})
    colours = {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(kinds)}
    height = math.ceil(len(shown) / _COLUMNS)
    width = min(len(shown), _COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(4.2 * width, 2.7 * height + 0.5), dpi=110, layout=layout)
    FigureCanvasAgg(figure)
    for place, panel in enumerate(shown):
        axes = figure.add_subplot(height, width, place + 1)
        for kind in _lines(panel, keys):
            key = f"{panel.key}/{kind}" if kind else panel.key
            _draw_line(axes, rows, key, colours.get(kind, _INK), bold=not kind)
        _dress(axes, panel)
        axes.set_xlim(*_with_margin(rows[0].step, rows[-1].step))
    figure.supxlabel("step", fontsize=10, color=_INK)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _lines(panel: Panel, keys: set[str]) -> list[str]:
    """The kinds that a panel shows, "" for all of them together, which is drawn last and on top."""
    prefix = f"{panel.key}/"
    kinds = sorted(key.removeprefix(prefix) for key in keys if key.startswith(prefix))
    return kinds + ([""] if panel.key in keys else [])


def _draw_line(axes: Axes, rows: Sequence[MetricRow], key: str, colour: str, *, bold: bool) -> None:
    points = [
        (row.step, row.values[key])
        for row in rows
        if key in row.values and math.isfinite(row.values[key])
    ]
    steps, values = [step for step, _ in points], [value for _, value in points]
    label = "all" if bold else key.rsplit("/", 1)[1].replace("_", " ")
    axes.plot(
        steps,
        values,
        color=colour,
        label=label,
        linewidth=2.2 if bold else 1.3,
        marker="o" if len(points) <= 40 else "",
        markersize=3.5 if bold else 2.5,
    )


def _with_margin(low: float, high: float) -> tuple[float, float]:
    """Room beside the outermost points, also where there is only one."""
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _dress(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=10.5, color=_INK, loc="left", fontweight="bold")
    axes.tick_params(labelsize=8.5, colors=_GREY, labelcolor=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#bbbbbb")
    if panel.share:
        axes.set_ylim(-0.02, 1.02)
    elif axes.lines:
        low, high = axes.dataLim.intervaly
        axes.set_ylim(min(0.0, low), _with_margin(min(0.0, low), high)[1])
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(handles[::-1], labels[::-1], fontsize=8, frameon=False, loc="best")
