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
TIMELINE = "pyvision_rl.sandbox.timeline"
DECORD = "decord"


class LateVideo(MetaPathFinder, Loader):
    """Finds the video reader, under its own name and under decord's."""

    def __init__(self) -> None:
        self._codes = {name: code_of(name) for name in (VIDEO, TIMELINE)}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> ModuleSpec | None:
        """A spec for what is kept and for decord, None for every other name."""
        return ModuleSpec(fullname, self) if fullname in (*self._codes, DECORD) else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        """decord's module is one that the reader makes of itself."""
        if spec.name != DECORD:
            return None
        from pyvision_rl.sandbox import video

        video.install_as_decord()
        return sys.modules[DECORD]

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the code that was kept."""
        if code := self._codes.get(module.__name__):
            exec(code, module.__dict__)


def code_of(name: str) -> types.CodeType:
    """The code of a module that is not loaded."""
    spec = importlib.util.find_spec(name)
    code = spec.loader.get_code(name) if spec and isinstance(spec.loader, InspectLoader) else None
    if code is None:
        raise ImportError(f"{name} has no code to keep")
    return code
