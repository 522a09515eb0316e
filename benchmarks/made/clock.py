"""Wall time of a machine that does nothing else, measured on one that does."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

POLL_S = 0.001


class _Selector(selectors.DefaultSelector):
    """Lets time pass at once where the process only waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: QuietLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0 or self.loop is None:
            return super().select(timeout)
        end = self.loop.time() + timeout
        while (left := end - self.loop.time()) > 0:
            if events := super().select(POLL_S if self.loop.num_working else 0):
                return events
            if not self.loop.num_working:
                self.loop.skipped_s += left
        return []


class QuietLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is the CPU time of this process and the time it had to wait for.

    Work is what runs here or in an executor, one thing at a time; sleeping takes no real time.
    """

    def __init__(self) -> None:
        self.skipped_s = 0.0
        self.num_working = 0
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return time.process_time() + self.skipped_s

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self.num_working += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: object) -> None:
        self.num_working -= 1


def run_quietly(job: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Run a job; its result and the seconds that it takes where nothing else runs."""
    with asyncio.Runner(loop_factory=QuietLoop) as runner:
        loop = runner.get_loop()
        start = loop.time()
        result = runner.run(job)
        return result, loop.time() - start
