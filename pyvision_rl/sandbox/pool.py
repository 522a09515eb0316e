"""`SandboxPool`: many runtimes from one fork server, few cells running at once."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from PIL import Image

from pyvision_rl.closing import Closing
from pyvision_rl.errors import InputError, SandboxError
from pyvision_rl.sandbox import control
from pyvision_rl.sandbox.config import SandboxConfig
from pyvision_rl.sandbox.limits import Limits, allow_open_files
from pyvision_rl.sandbox.runtime import Runtime
from pyvision_rl.sandbox.server_process import ServerProcess
from pyvision_rl.sandbox.slots import Slots

log = logging.getLogger(__name__)

Layer = Literal["seccomp", "landlock", "namespaces", "uid"]


class SandboxPool(Closing):
    """Runs untrusted Python in confined processes; one event loop, one fork server, any number of
    runtimes.
    """

    def __init__(self, config: SandboxConfig | None = None, without: Sequence[Layer] = ()) -> None:
        """`without` leaves layers out on purpose, to see what each is worth; strict may still
        refuse.
        """
        self.config = config or SandboxConfig()
        self.layers: list[str] = []
        self.missing: list[str] = []
        self._without = list(without)
        self._server: ServerProcess | None = None
        self._starting = asyncio.Lock()
        self.slots = Slots(self.config.num_slots)
        self._runtimes: set[Runtime] = set()
        self._open = False

    async def __aenter__(self) -> Self:
        """Start the fork server; raises `SandboxError` where `isolation` cannot be held."""
        self._open = True
        allow_open_files()
        await self.server()
        return self

    async def close(self) -> None:
        """End every runtime and the fork server."""
        self._open = False
        for runtime in list(self._runtimes):
            await runtime.close()
        if self._server is not None:
            await self._server.close()
            self._server = None

    def runtime(
        self,
        images: Sequence[Image.Image] = (),
        videos: Sequence[str | Path] = (),
        seed: int = 0,
    ) -> Runtime:
        """An interpreter with `image_clue_k` and `video_clue_k` bound; its process starts with the
        first cell.
        """
        if not 0 <= seed < 2**63:
            raise InputError(f"sandbox seed {seed}: it must be 0 or more and below 2**63")
        if len(videos) > control.MAX_VIDEOS:
            raise InputError(f"{len(videos)} videos for one runtime: at most {control.MAX_VIDEOS}")
        for path in videos:
            if not Path(path).is_file():
                raise InputError(f"video {path}: no such file")
        runtime = Runtime(self, images, [Path(path) for path in videos], seed)
        self._runtimes.add(runtime)
        return runtime

    async def server(self) -> ServerProcess:
        """The living fork server, started anew if the last one is gone."""
        async with self._starting:
            if not self._open:
                raise SandboxError(
                    "the sandbox pool is closed: use it as `async with SandboxPool(...)`"
                )
            if self._server is None or self._server.lost:
                if self._server is not None:
                    log.warning("the sandbox's fork server is gone; starting another")
                    await self._server.close()
                self._server = await self._start()
            return self._server

    async def _start(self) -> ServerProcess:
        config = self.config
        folder = tempfile.mkdtemp(prefix="pyvision-sandbox-")
        limits = Limits(
            timeout_s=config.timeout_s,
            max_text_chars=config.max_text_chars,
            max_figures=config.max_figures,
            max_figure_px=config.max_figure_px,
            figures=config.figures,
        )
        setup = control.Setup(
            config.isolation,
            folder,
            config.memory_mb,
            config.scratch_mb,
            limits,
            list[str](self._without),
        )
        try:
            server = await ServerProcess.start(setup)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.layers, self.missing = server.ready.result().layers, server.ready.result().missing
        log.info("sandbox layers: %s", ", ".join(self.layers) or "none")
        if config.isolation == "none":
            log.warning(
                "sandbox isolation is none: model code can read, write and reach everything"
            )
        elif self.missing and config.isolation == "best_effort":
            log.warning("sandbox layers missing: %s", "; ".join(self.missing))
        return server

    def forget(self, runtime: Runtime) -> None:
        """Drop a closed runtime."""
        self._runtimes.discard(runtime)
