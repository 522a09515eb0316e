"""Places of running cells. A cell that only waits, as one that sleeps, lends its own meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

CHECK_S = 0.2
"""Seconds between two looks at a running cell; most have ended before the first."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""What the kernel counts CPU time in."""


@dataclass(frozen=True)
class Activity:
    """A process as the kernel sees it: CPU seconds so far, and whether it sleeps just now."""

    cpu_s: float
    is_asleep: bool

    @classmethod
    def of(cls, pidfd: int) -> Activity | None:
        """None where the process has gone, or the kernel does not tell."""
        try:
            info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
            pid = next(int(line[4:]) for line in info.splitlines() if line.startswith("Pid:"))
            # The name, in brackets, may hold anything, and need not be text.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (OSError, StopIteration):
            return None
        return cls((int(fields[11]) + int(fields[12])) * TICK_S, fields[0] == b"S")


Look = Callable[[], Activity | None]


class Slots:
    """So many cells may compute at once; who comes first is served first."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._queue: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def hold(self, look: Look) -> AsyncIterator[None]:
        """Wait for a place and hold it; `look` tells what the cell is doing.

        A cell that stops waiting has its place again at once, even where all are taken: for a
        while more cells than there are places may compute, and new ones wait for them.
        """
        await self._take()
        holder = _Holder(self, look)
        try:
            yield
        finally:
            holder.end()

    async def _take(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give()
            raise

    def give(self) -> None:
        """A place is free, or lent."""
        self._free += 1
        while self._free > 0 and self._queue:
            turn = self._queue.popleft()
            if not turn.done():  # or whoever waited has given up
                turn.set_result(None)
                self._free -= 1

    def claim(self) -> None:
        """Who lent a place needs it again."""
        self._free -= 1


class _Holder:
    """A cell in its place, looked at now and then."""

    def __init__(self, slots: Slots, look: Look) -> None:
        self._slots = slots
        self._look = look
        self._cpu_s = 0.0
        self._is_lent = False
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def _check(self) -> None:
        waits = self._is_waiting()
        if waits and not self._is_lent:
            self._slots.give()
        elif self._is_lent and not waits:
            self._slots.claim()
        self._is_lent = waits
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def _is_waiting(self) -> bool:
        """Asleep now, and hardly awake since the last look: its threads may work while it waits."""
        activity = self._look()
        if activity is None:
            return False
        used_s, self._cpu_s = activity.cpu_s - self._cpu_s, activity.cpu_s
        return activity.is_asleep and used_s <= TICK_S

    def end(self) -> None:
        self._timer.cancel()
        if not self._is_lent:
            self._slots.give()
