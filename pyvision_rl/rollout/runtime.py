"""What an episode asks of the place where its programs run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from PIL.Image import Image

from pyvision_rl.sandbox import CellResult


class ProgramRuntime(Protocol):
    """Where one trajectory's programs run, with variables that live from turn to turn."""

    async def run(self, code: str) -> CellResult:
        """Run a program to its end or limit; never raises for what the program does."""
        ...


class RuntimePool(Protocol):
    """Opens runtimes: a sandbox pool of this machine, or a client of one elsewhere."""

    def runtime(
        self, *, images: Sequence[Image], videos: Sequence[str | Path], seed: int
    ) -> AbstractAsyncContextManager[ProgramRuntime]:
        """A runtime in which the k-th image is `image_clue_k`, the k-th video `video_clue_k`."""
        ...
