"""An engine that tells what is written and seen while an episode goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pyvision_rl.model.engine import Engine, SamplingParams, Session
from pyvision_rl.types import Completion, Context

OnText = Callable[[str], None]


@dataclass(frozen=True)
class WatchedEngine:
    """Passes everything on to `engine`, and every new text of the trajectory to `on_text`."""

    engine: Engine
    on_text: OnText

    @asynccontextmanager
    async def session(self) -> AsyncIterator[_WatchedSession]:
        """Open a trajectory of the engine's."""
        async with self.engine.session() as session:
            yield _WatchedSession(session, self.on_text)


@dataclass(frozen=True)
class _WatchedSession:
    session: Session
    on_text: OnText

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        """Continue `context`, telling first what it has grown by, then what was written."""
        if context.turns and context.turns[-1].observation:
            self.on_text(f"\n{context.turns[-1].observation.text}\n")
        completion = await self.session.generate(context, params, seed=seed)
        self.on_text(completion.text)
        return completion
