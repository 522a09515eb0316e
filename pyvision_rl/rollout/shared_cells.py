"""Equal cells of a group run once: its episodes often open with the same program, and starting an
interpreter costs more than running one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from PIL.Image import Image

from pyvision_rl.rollout.runtime import ProgramRuntime, RuntimePool
from pyvision_rl.sandbox import CellResult

SHARED_KINDS = frozenset({"ok", "error"})
"""Endings that depend on the cells alone; a timeout or a death also depends on the machine."""

Cells = tuple[str, ...]


class SharedCells:
    """A pool for the episodes of one group, which all have the same media.

    A runtime of it answers from what another one of the group got for the same cells, in the same
    order, from the first on; the process of its own starts when it leaves the common way, and runs
    the cells up to there again. So that results can be equal, all have the group's seed.
    """

    def __init__(self, pool: RuntimePool, seed: int) -> None:
        self._pool = pool
        self._seed = seed
        self._answers: dict[Cells, asyncio.Future[CellResult | None]] = {}

    @asynccontextmanager
    async def runtime(
        self, *, images: Sequence[Image], videos: Sequence[str | Path], seed: int
    ) -> AsyncIterator[ProgramRuntime]:
        """A runtime; `seed`, the episode's, is not used, the group's is."""
        del seed
        async with AsyncExitStack() as stack:

            async def open_own() -> ProgramRuntime:
                own = self._pool.runtime(images=images, videos=videos, seed=self._seed)
                return await stack.enter_async_context(own)

            yield _SharedRuntime(self._answers, open_own)


class _SharedRuntime:
    """One episode's view: the cells so far, and a process once it needs one."""

    def __init__(
        self,
        answers: dict[Cells, asyncio.Future[CellResult | None]],
        open_own: Callable[[], Awaitable[ProgramRuntime]],
    ) -> None:
        self._answers = answers
        self._open_own = open_own
        self._own: ProgramRuntime | None = None
        self._past: Cells = ()
        self._num_run = 0
        """Cells of the past that the own process has run."""
        self._is_alone = False
        """Whether a cell ended in a way that is not shared: what follows is this episode's own."""

    async def run(self, code: str) -> CellResult:
        """The answer to a program after the programs before, from the group or the own process."""
        if self._is_alone:
            return await self._run(code)
        cells = (*self._past, code)
        while answer := self._answers.get(cells):
            if shared := await asyncio.shield(answer):
                self._past = cells
                return shared
        return await self._run_for_all(cells)

    async def _run_for_all(self, cells: Cells) -> CellResult:
        answer = asyncio.get_running_loop().create_future()
        self._answers[cells] = answer
        result = None
        try:
            result = await self._run(cells[-1])
        finally:
            if result is None or result.kind not in SHARED_KINDS:
                self._is_alone = True
                del self._answers[cells]
                answer.set_result(None)
        if not self._is_alone:
            self._past = cells
            self._num_run = len(cells)
            answer.set_result(result)
        return result

    async def _run(self, code: str) -> CellResult:
        own = self._own = self._own or await self._open_own()
        while self._num_run < len(self._past):
            again = await own.run(self._past[self._num_run])
            if again.kind not in SHARED_KINDS:  # it ended well before: the policy is not to blame
                return replace(again, kind="sandbox_lost", images=[])
            self._num_run += 1
        return await own.run(code)
