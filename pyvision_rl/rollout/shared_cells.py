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
    """A pool for the `num_episodes` episodes of one group, which all have the same media.

    A runtime of it answers from what another one of the group got for the same cells, in the same
    order, from the first on; the process of its own starts when it leaves the common way, and runs
    the cells up to there again. So that results can be equal, all have the group's seed.
    """

    def __init__(self, pool: RuntimePool, seed: int, num_episodes: int) -> None:
        self._pool = pool
        self._seed = seed
        self._way = _CommonWay(num_episodes)

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

            runtime = _SharedRuntime(self._way, open_own)
            stack.callback(self._way.leave, runtime)
            self._way.join(runtime)
            yield runtime


class _CommonWay:
    """What the cells of a group gave, for as long as an episode may still come by them: results
    hold figures at full size. One that begins again, its sandbox lost, may find them gone.
    """

    def __init__(self, num_episodes: int) -> None:
        self.answers: dict[Cells, asyncio.Future[CellResult | None]] = {}
        self._num_to_come = num_episodes
        self._walkers: set[_SharedRuntime] = set()

    def join(self, runtime: _SharedRuntime) -> None:
        """An episode begins."""
        self._num_to_come -= 1
        self._walkers.add(runtime)

    def leave(self, runtime: _SharedRuntime) -> None:
        """An episode has ended, or goes on alone."""
        self._walkers.discard(runtime)
        self.clear()

    def clear(self) -> None:
        """Let go of the answers that lie ahead of nobody."""
        if self._num_to_come > 0:
            return
        pasts = {walker.past for walker in self._walkers}
        for cells in list(self.answers):
            if not any(cells[: len(past)] == past != cells for past in pasts):
                del self.answers[cells]


class _SharedRuntime:
    """One episode's view: the cells so far, and a process once it needs one."""

    def __init__(self, way: _CommonWay, open_own: Callable[[], Awaitable[ProgramRuntime]]) -> None:
        self.past: Cells = ()
        self._way = way
        self._open_own = open_own
        self._own: ProgramRuntime | None = None
        self._num_run = 0
        """Cells of the past that the own process has run."""
        self._is_alone = False
        """Whether a cell ended in a way that is not shared: what follows is this episode's own."""

    async def run(self, code: str) -> CellResult:
        """The answer to a program after the programs before, from the group or the own process."""
        if self._is_alone:
            return await self._run(code)
        cells = (*self.past, code)
        while answer := self._way.answers.get(cells):
            if shared := await asyncio.shield(answer):
                self._go_on(cells)
                return shared
        return await self._run_for_all(cells)

    async def _run_for_all(self, cells: Cells) -> CellResult:
        answer = asyncio.get_running_loop().create_future()
        self._way.answers[cells] = answer
        result = None
        try:
            result = await self._run(cells[-1])
        finally:
            if result is None or result.kind not in SHARED_KINDS:
                self._is_alone = True
                del self._way.answers[cells]
                answer.set_result(None)
                self._way.leave(self)
        if not self._is_alone:
            self._num_run = len(cells)
            answer.set_result(result)
            self._go_on(cells)
        return result

    def _go_on(self, cells: Cells) -> None:
        self.past = cells
        self._way.clear()

    async def _run(self, code: str) -> CellResult:
        own = self._own = self._own or await self._open_own()
        while self._num_run < len(self.past):
            again = await own.run(self.past[self._num_run])
            if again.kind not in SHARED_KINDS:  # it ended well before: the policy is not to blame
                return replace(again, kind="sandbox_lost", images=[])
            self._num_run += 1
        return await own.run(code)
