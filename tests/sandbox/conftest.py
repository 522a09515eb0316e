"""A sandbox whose event loop runs in its own thread, so that tests read as plain calls."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import pytest
from PIL import Image

from pyvision_rl.sandbox import CellResult, Layer, Runtime, SandboxConfig, SandboxPool

T = TypeVar("T")


class Sandbox:
    """A pool and its runtimes, called synchronously."""

    def __init__(self, config: SandboxConfig, without: Sequence[Layer] = ()) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.pool = self.call(self._open(config, without))

    async def _open(self, config: SandboxConfig, without: Sequence[Layer]) -> SandboxPool:
        return await SandboxPool(config, without).__aenter__()

    def call(self, coroutine: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=120)

    def runtime(
        self,
        images: Sequence[Image.Image] = (),
        videos: Sequence[str | Path] = (),
        seed: int = 0,
    ) -> SyncRuntime:
        return SyncRuntime(self, self.pool.runtime(images, videos, seed))

    def run(self, *cells: str) -> CellResult:
        """The last result of `cells` in a runtime of their own."""
        runtime = self.runtime()
        try:
            return [runtime.run(cell) for cell in cells][-1]
        finally:
            runtime.close()

    def close(self) -> None:
        self.call(self.pool.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class SyncRuntime:
    def __init__(self, sandbox: Sandbox, runtime: Runtime) -> None:
        self._sandbox = sandbox
        self.runtime = runtime

    @property
    def alive(self) -> bool:
        return self.runtime.alive

    def run(self, code: str) -> CellResult:
        return self._sandbox.call(self.runtime.run(code))

    def close(self) -> None:
        self._sandbox.call(self.runtime.close())


def layers_left_out() -> list[Layer]:
    """A variable lets the suite run again with fewer layers (test_elsewhere.py)."""
    named = os.environ.get("PYVISION_SANDBOX_WITHOUT", "").split()
    return [layer for layer in get_args(Layer) if layer in named]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The default configuration with a short time limit."""
    opened = Sandbox(SandboxConfig(timeout_s=2.0, grace_s=0.5), layers_left_out())
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def patient_sandbox() -> Iterator[Sandbox]:
    """For cells that import large libraries, perhaps from a slow disk."""
    opened = Sandbox(SandboxConfig(timeout_s=60.0), layers_left_out())
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def pixel_sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(SandboxConfig(figures="pixels"))
    yield opened
    opened.close()
