"""The part of the configuration that a runtime keeps to itself."""

from __future__ import annotations

import msgspec

from pyvision_rl.sandbox.config import FigureStyle


class Limits(msgspec.Struct, frozen=True):
    """What of the configuration a runtime itself keeps to."""

    timeout_s: float
    max_text_chars: int
    max_figures: int
    max_figure_px: int
    figures: FigureStyle
