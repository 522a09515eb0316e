"""The part of the configuration that a runtime keeps to itself, and how many files may be open."""

from __future__ import annotations

import resource

import msgspec

from pyvision_rl.sandbox.config import FigureStyle


class Limits(msgspec.Struct, frozen=True):
    """What of the configuration a runtime itself keeps to."""

    timeout_s: float
    max_text_chars: int
    max_figures: int
    max_figure_px: int
    figures: FigureStyle


def allow_open_files() -> None:
    """Let this process open as many files as it ever may: a living runtime takes two here and one
    in the fork server, and 1024 is what most machines give at first.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
