"""Imports that only some cells need, so that not every runtime pays for them: the video reader and
the libraries below it.

A runtime cannot read this package's files; the reader's code waits in memory.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

VIDEO = "pyvision_rl.sandbox.video"
DECORD = "decord"


class LateVideo(MetaPathFinder, Loader):
    """Finds the video reader, under its own name and under decord's."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec(VIDEO)
        if spec is None or not isinstance(spec.loader, InspectLoader):
            raise ImportError(f"{VIDEO} has no code to keep")
        self._code = spec.loader.get_code(VIDEO)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> ModuleSpec | None:
        """A spec for the two names, None for every other."""
        return ModuleSpec(fullname, self) if fullname in (VIDEO, DECORD) else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        """decord's module is one that the reader makes of itself."""
        if spec.name == VIDEO:
            return None
        from pyvision_rl.sandbox import video

        video.install_as_decord()
        return sys.modules[DECORD]

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the code that was kept."""
        if module.__name__ == VIDEO and self._code is not None:
            exec(self._code, module.__dict__)
