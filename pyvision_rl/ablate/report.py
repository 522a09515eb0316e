"""Results over seeds: a table with confidence intervals, and a figure for every ablation."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from pyvision_rl.ablate.config import AblateConfig, Ablation, Arm, all_runs, run_of
from pyvision_rl.ablate.worth import (
    NUM_STEPS,
    SOON,
    Estimated,
    Worth,
    worth_of,
    worth_table,
)
from pyvision_rl.runs import RunReader
from pyvision_rl.runs.files import write_file

TABLE = "table.md"
WORTH = "worth_of_a_look"
LAST_STEPS = 5
"""Steps at the end of a run whose mean stands for training."""

_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t for 1 to 10 degrees of freedom; for more, that of 10."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")

PANELS = (
    ("rollout/tool_calls", "Tool calls per trajectory"),
    ("reward/accuracy", "Accuracy of rollouts"),
    ("select/right_negative_share", "Right, but negative advantage"),
    ("loss/entropy", "Entropy per token (nats)"),
)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval; without one (nan) where there is a single seed."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmRuns:
    """What the runs of an arm left, a seed each: rows of metrics, and the summary's numbers."""

    arm: Arm
    curves: list[list[tuple[int, dict[str, float]]]]
    summaries: list[dict[str, float]]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and Student's interval: seeds are few, and their spread is what is not known."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean, math.nan, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = _STUDENT[min(count - 1, len(_STUDENT)) - 1] * math.sqrt(variance / count)
    return Estimate(mean, mean - half, mean + half)


def write_report(out: Path, config: AblateConfig) -> Path:
    """Write table.md and figures/; every run must be done."""
    rows: list[str] = []
    columns: list[Column] = []
    for ablation in config.ablations:
        arms = [_read_arm(out, config, arm, config.seeds) for arm in ablation.arms]
        columns = _columns(arms[0])
        rows += [_row([ablation.name, arm.arm.name], arm, columns) for arm in arms]
        write_file(out / "figures" / f"{ablation.name}.png", draw(ablation, arms))
    worths = [(title, worth_of(out / "runs" / run.name)) for title, run in all_runs(config)]
    write_file(out / "figures" / f"{WORTH}.png", draw_worths([worth for _, worth in worths]))
    table = out / TABLE
    lines = [*_header(config, columns), *rows, "", *_seed_table(out, config), ""]
    lines += worth_table(worths)
    write_file(table, ("\n".join(lines) + "\n").encode())
    return table


def _read_arm(out: Path, config: AblateConfig, arm: Arm, seeds: Sequence[int]) -> ArmRuns:
    curves: list[list[tuple[int, dict[str, float]]]] = []
    summaries: list[dict[str, float]] = []
    for seed in seeds:
        name = run_of(config, arm, seed).name
        rows = RunReader(out / "runs" / name).metrics()
        curves.append([(row.step, row.values) for row in rows])
        (judged,) = RunReader(out / "evals" / name).metrics()
        summaries.append(judged.values)
    return ArmRuns(arm, curves, summaries)


Column = tuple[str, Callable[[ArmRuns], list[float]]]


def _judged(key: str) -> Callable[[ArmRuns], list[float]]:
    return lambda arm: [summary[key] for summary in arm.summaries]


def _trained(key: str) -> Callable[[ArmRuns], list[float]]:
    def last(arm: ArmRuns) -> list[float]:
        ends = [[values[key] for _, values in curve][-LAST_STEPS:] for curve in arm.curves]
        return [math.fsum(end) / len(end) for end in ends]

    return last


def _columns(arm: ArmRuns) -> list[Column]:
    prefix = "eval/accuracy/"
    keys = [key for key in arm.summaries[0] if key.startswith(prefix)]
    return [
        ("accuracy", _judged("eval/accuracy")),
        *((key.removeprefix(prefix), _judged(key)) for key in keys),
        ("calls", _judged("eval/tool_calls_mean")),
        ("no call", _judged("eval/zero_call_share")),
        ("calls in training", _trained("rollout/tool_calls")),
        ("right but negative", _trained("select/right_negative_share")),
    ]


def _header(config: AblateConfig, columns: Sequence[Column]) -> list[str]:
    seeds = ", ".join(map(str, config.seeds))
    return [
        f"Means over seeds {seeds} with 95 % intervals (Student), after {config.rl.num_steps} "
        f"steps or as many as taught something, on {config.needle.num_test} unseen items; "
        f"training columns are of the last {LAST_STEPS} steps.",
        "",
        *_head(["ablation", "arm", *(name for name, _ in columns)]),
    ]


def _head(names: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _row(names: Sequence[str], arm: ArmRuns, columns: Sequence[Column]) -> str:
    cells = [_cell(estimate(values(arm))) for _, values in columns]
    return "| " + " | ".join([*names, *cells]) + " |"


def _seed_table(out: Path, config: AblateConfig) -> list[str]:
    """Each run by itself; runs that ablations share stand there once."""
    lines: list[str] = []
    known: set[str] = set()
    for ablation in config.ablations:
        for arm in ablation.arms:
            if (name := run_of(config, arm, config.seeds[0]).name) in known:
                continue
            known.add(name)
            for seed in config.seeds:
                run = _read_arm(out, config, arm, [seed])
                columns = _columns(run)
                lines = lines or _head(["arm", "seed", "steps", *(name for name, _ in columns)])
                title, steps = f"{ablation.name} = {arm.name}", run.curves[0][-1][0]
                lines.append(_row([title, str(seed), str(steps)], run, columns))
    return ["Each run by itself:", "", *lines]


def _cell(found: Estimate) -> str:
    if math.isnan(found.low):
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def draw(ablation: Ablation, arms: Sequence[ArmRuns]) -> bytes:
    """A PNG of the training curves: a line for each arm, the mean; thin ones, its seeds."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(8.4, 5.8), dpi=110, layout=layout)
    FigureCanvasAgg(figure)
    for place, (key, title) in enumerate(PANELS, start=1):
        axes = figure.add_subplot(2, 2, place)
        for colour, arm in zip(_COLOURS * len(arms), arms, strict=False):
            _draw_arm(axes, arm, key, colour)
        axes.set_title(title, fontsize=10.5, loc="left", fontweight="bold")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside upper right", ncols=len(arms), fontsize=9.5, frameon=False
    )
    figure.suptitle(ablation.name.replace("_", " "), fontsize=12, x=0.03, ha="left")
    figure.supxlabel("step", fontsize=10)
    return _png(figure)


def draw_worths(worths: Sequence[Worth]) -> bytes:
    """A PNG with a point a run: what a look was worth at first, and by how much calls grew."""
    figure = Figure(figsize=(8.4, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    gain, pull = figure.subplots(1, 2, sharey=True)
    _draw_force(gain, worths, [worth.gain for worth in worths])
    _draw_force(pull, worths, [worth.pull for worth in worths])
    gain.set_xlabel("gain: reward of a look over a direct answer")
    pull.set_xlabel("pull: covariance of looking and reward")
    gain.set_ylabel("change of the share that looks")
    gain.legend(fontsize=8.5, frameon=False, loc="lower right")
    figure.suptitle("What a look is worth at first, and whether it lives on", fontsize=12)
    return _png(figure)


def _draw_force(axes: Axes, worths: Sequence[Worth], forces: Sequence[Estimated]) -> None:
    """Points with two standard errors; how far calls have come soon, and at last."""
    axes.axhline(0, color="#b0b0b0", linewidth=1)
    axes.axvline(0, color="#b0b0b0", linewidth=1)
    for colour, name in zip(_COLOURS, ("soon", "last"), strict=False):
        axes.errorbar(
            [force.mean for force in forces],
            [getattr(worth, f"share_{name}") - worth.share_first for worth in worths],
            xerr=[2 * force.error for force in forces],
            fmt="o",
            color=colour,
            markersize=4.5,
            elinewidth=0.6,
            label=f"steps {SOON} to {SOON + NUM_STEPS - 1}" if name == "soon" else "at last",
        )
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_arm(axes: Axes, arm: ArmRuns, key: str, colour: str) -> None:
    series = [[(step, values[key]) for step, values in curve] for curve in arm.curves]
    for points in series:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.7, alpha=0.45)
    at: dict[int, list[float]] = defaultdict(list)  # an arm may end early with one of the seeds
    for points in series:
        for step, value in points:
            at[step].append(value)
    means = [math.fsum(values) / len(values) for values in at.values()]
    axes.plot(list(at), means, color=colour, linewidth=2.2, label=arm.arm.name)
