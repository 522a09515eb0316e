"""What a sandbox is told (`SandboxConfig`) and what a cell gives back (`CellResult`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from pyvision_rl.errors import ConfigError

Isolation = Literal["strict", "best_effort", "none"]
FigureStyle = Literal["matplotlib", "pixels"]
ResultKind = Literal[
    "ok",
    "error",
    "timeout",
    "killed_timeout",
    "killed_memory",
    "dead",
    "protocol",
    "sandbox_lost",
]


@dataclass(frozen=True)
class SandboxConfig:
    """Limits of every runtime of a pool. All of them bound one runtime, not the pool."""

    isolation: Isolation = "strict"
    """strict refuses to start where model code cannot be confined; best_effort warns; none is for
    debugging.
    """
    timeout_s: float = 10.0
    """A cell that runs longer is interrupted; its variables survive."""
    grace_s: float = 1.0
    """Seconds after `timeout_s` until a cell that swallows the interrupt is killed with its
    runtime.
    """
    memory_mb: int = 2048
    """Address space a runtime may add to what the fork server gave it."""
    scratch_mb: int = 64
    """Largest file, and all files together, in a runtime's scratch folder."""
    max_running: int = 0
    """Cells that compute at once; 0 means one more than there are usable cores: no core idles
    while the pool takes in an answer. One that only waits does not count.
    """
    max_text_chars: int = 10_000
    """Longer output keeps its head and its tail and says how much was cut."""
    max_figures: int = 16
    """Figures returned per cell; the rest is counted in the text."""
    max_figure_px: int = 4096 * 4096
    """Pixels (width x height) of the largest figure; a larger one is an error in the cell."""
    figures: FigureStyle = "matplotlib"
    """matplotlib keeps its own look; pixels shows a lone `imshow` image at its own size, without
    axes.
    """

    def __post_init__(self) -> None:
        """Check every limit alone."""
        for name in ("timeout_s", "grace_s", "memory_mb", "scratch_mb", "max_figure_px"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"sandbox {name} is {getattr(self, name)}: it must be positive")
        for name in ("max_running", "max_figures"):
            if getattr(self, name) < 0:
                raise ConfigError(f"sandbox {name} is {getattr(self, name)}: it must be 0 or more")
        if self.max_text_chars < 200:
            raise ConfigError(f"sandbox max_text_chars is {self.max_text_chars}: at least 200")

    @property
    def num_slots(self) -> int:
        """`max_running` with 0 resolved."""
        return self.max_running or len(os.sched_getaffinity(0)) + 1


@dataclass(frozen=True)
class CellResult:
    """What one cell gave back, bounded and safe to show to a policy.

    `kind` is ok, error (an exception in the cell), timeout (interrupted, variables kept) or one of
    the endings after which the runtime is gone: killed_timeout, killed_memory, dead, protocol (the
    child broke the wire format) and sandbox_lost (the sandbox failed, the code is not to blame).
    """

    kind: ResultKind
    text: str
    """stdout and stderr as written, then the trimmed traceback."""
    images: list[Image.Image]
    """Shown figures in order, RGB."""
    seconds: float
    """Wall time from sending the cell to having its answer, without the wait for an exec slot."""
