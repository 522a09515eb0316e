"""curves.png: the right points on the right plots, whatever a run has logged."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyvision_rl.runs import MetricRow, RunFolder
from pyvision_rl.runs.curves import Panel, draw_curves


def rows(**series: list[float]) -> list[MetricRow]:
    length = max(map(len, series.values()))
    return [
        MetricRow(step, 0.0, {key: values[step] for key, values in series.items()})
        for step in range(length)
    ]


def drawn(found: list[MetricRow], *panels: Panel) -> np.ndarray:
    with Image.open(io.BytesIO(draw_curves(found, panels))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def heights(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean row of a line's colour in the left and the right part of where it is found."""
    ys, xs = np.nonzero((np.abs(pixels - np.array(colour)) < 12).all(axis=-1))
    middle = (xs.min() + xs.max()) / 2
    return np.array([ys[xs < middle].mean(), ys[xs >= middle].mean()])


BLUE = (0x00, 0x72, 0xB2)


@pytest.mark.parametrize("values", [[0.1, 0.9], [0.9, 0.1]])
def test_a_line_goes_where_its_metric_goes(values: list[float]) -> None:
    left, right = heights(drawn(rows(**{"a/b/easy": values}), Panel("A", "a/b")), BLUE)
    assert (right < left) == (values[1] > values[0])


def test_a_gap_and_values_that_are_not_finite_are_skipped() -> None:
    found = [MetricRow(0, 0.0, {"a/b": 1.0}), MetricRow(1, 0.0, {}), MetricRow(2, 0.0, {"a/b": 2})]
    spoilt = [*found[:2], MetricRow(1, 0.0, {"a/b": math.nan}), found[2]]
    assert (drawn(found, Panel("A", "a/b")) == drawn(spoilt, Panel("A", "a/b"))).all()


def test_a_metric_that_was_never_finite_has_no_plot() -> None:
    """Training that diverges logs no finite loss at all; the run still ends with its curves."""
    spoilt = [MetricRow(0, 0.0, {"a/b": 1.0, "c/d": math.nan, "c/d/easy": math.inf})]
    panels = (Panel("A", "a/b"), Panel("C", "c/d"))
    assert (drawn(spoilt, *panels) == drawn([MetricRow(0, 0.0, {"a/b": 1.0})], *panels)).all()
    assert drawn([MetricRow(0, 0.0, {"c/d": math.nan})], *panels).any()


@pytest.mark.parametrize("count", [1, 3, 4])
def test_three_plots_in_a_row(count: int) -> None:
    panels = [Panel(f"Panel {place}", f"a/{place}") for place in range(count)]
    found = rows(**{panel.key: [1.0, 2.0] for panel in panels})
    missing = Panel("Not logged", "a/none")
    height, width, _ = drawn(found, *panels, missing).shape
    assert round(width / 110 / 4.2) == min(count, 3)
    assert round((height / 110 - 0.5) / 2.7) == math.ceil(count / 3)


def test_a_run_draws_its_own_from_the_first_step_on(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "seed: 0") as run:
        run.draw_curves()
        assert not (tmp_path / "curves.png").exists()
        run.log(0, {"eval/accuracy": 0.5})
        run.draw_curves()
        with Image.open(tmp_path / "curves.png") as image:
            image.verify()
