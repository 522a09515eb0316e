"""Our own engine: samples from the policy's transformers model, many trajectories at once.

One thread owns the model; the event loop hands rows to it and takes completions. Trajectories come
and go between any two tokens: none waits for another's sandbox.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.model.decode import Decoder
from pyvision_rl.model.engine import SamplingParams, Session
from pyvision_rl.model.policy import Policy
from pyvision_rl.model.row import Row
from pyvision_rl.types import Completion, Context

JOIN_STEPS = 8
"""Tokens after which a waiting row joins the running ones, however few wait with it."""

JOIN_SHARE = 0.25
"""Waiting rows, as a share of the running ones, that join at once: one prefill serves them all."""


@dataclass(frozen=True)
class EngineConfig:
    """How many completions are drawn at once, and when waiting ones join."""

    max_rows: int = 256
    """Completions drawn side by side; more wait."""
    kv_cache_tokens: int = 262_144
    """Tokens whose keys and values are held: of running rows, padded, and of waiting sessions."""
    schedule: Literal["continuous", "barrier"] = "continuous"
    """continuous: rows join and leave at any token. barrier: rows join when every open session
    waits, in the order in which sessions were opened, so that a run repeats bit by bit on a CPU
    however long its tools take."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "kv_cache_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"engine.{name}: {getattr(self, name)}, must be at least 1")


class HFEngine:
    """An Engine on a `Policy`, whose weights may be updated in place while nothing is drawn."""

    def __init__(self, policy: Policy, config: EngineConfig | None = None) -> None:
        self.policy = policy
        self.config = config or EngineConfig()
        # Only the thread touches the decoder, but for reads while no tick runs.
        self._decoder = Decoder(policy, self.config.kv_cache_tokens)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._numbers = itertools.count()
        self._open: set[int] = set()
        self._ended: list[int] = []
        self._futures: dict[Row, asyncio.Future[Completion]] = {}
        self._waiting: list[Row] = []
        self._admitted: list[Row] = []
        self._driver: asyncio.Task[None] | None = None
        self._steps_since_join = 0
        self._is_wanted = False
        self._is_closed = False

    async def __aenter__(self) -> HFEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop drawing, whoever waits, and end the thread."""
        self._is_closed = True
        self._fail(PyVisionError("the engine was closed"))
        if self._driver:
            await asyncio.wait([self._driver])
        self._thread.submit(self._decoder.clear)
        self._thread.shutdown()

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Open a trajectory; its keys and values are kept from turn to turn while there is room."""
        return self._session()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        number = next(self._numbers)
        self._open.add(number)
        try:
            yield _HFSession(self, number)
        finally:
            self._open.remove(number)
            self._ended.append(number)
            self._release()

    def _release(self) -> None:
        """A session has ended: others may have waited for it, or nobody is left."""
        if self._waiting:
            self._drive()
        elif not self._open and not self._is_closed:
            self._ended.clear()
            self._thread.submit(self._decoder.clear)

    async def generate(
        self, session: int, context: Context, params: SamplingParams, seed: int
    ) -> Completion:
        """One completion for an open session, given by its number. See `Session.generate`."""
        if self._is_closed:
            raise PyVisionError("the engine was closed")
        row = Row.of(session, context, params, seed, self.policy.codec.image_pad_id)
        if len(row.token_ids) + params.max_tokens > self.config.kv_cache_tokens:
            raise InputError(
                f"engine.kv_cache_tokens: {self.config.kv_cache_tokens} are too few for a context "
                f"of {len(row.token_ids)} tokens and a completion of up to {params.max_tokens}"
            )
        self._futures[row] = asyncio.get_running_loop().create_future()
        self._waiting.append(row)
        self._drive()
        try:
            return await self._futures[row]
        finally:
            # A row without a future is dropped, wherever it is.
            del self._futures[row]
            self._is_wanted = True

    def _drive(self) -> None:
        """Have a task that moves rows through the model as long as any can move."""
        self._is_wanted = True
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._run())
            self._driver.add_done_callback(self._end_drive)

    def _end_drive(self, driver: asyncio.Task[None]) -> None:
        """Hand what broke the driver to everyone who waits for it."""
        if driver.cancelled():
            self._fail(PyVisionError("the engine was stopped"))
        elif error := driver.exception():
            self._thread.submit(self._decoder.clear)
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._is_wanted = True
        self._waiting.clear()
        self._admitted.clear()
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_closed:
            if self.config.schedule == "barrier":
                # Whoever is about to wait does so before the barrier is judged.
                await asyncio.sleep(0)
            joining = self._next_rows()
            gone = [row for row in self._decoder.rows if row not in self._futures]
            if not joining and not self._decoder.rows:
                return
            self._is_wanted = False
            finished, given_up = await loop.run_in_executor(self._thread, self._tick, joining, gone)
            self._admitted = given_up + self._admitted
            for row, completion in finished:
                if (future := self._futures.get(row)) and not future.done():
                    future.set_result(completion)

    def _next_rows(self) -> list[Row]:
        """The rows that join now, in order, as far as there is room."""
        self._waiting = [row for row in self._waiting if row in self._futures]
        self._admitted = [row for row in self._admitted if row in self._futures]
        if self._is_admitting():
            self._admitted += sorted(self._waiting, key=lambda row: row.session)
            self._waiting.clear()
        if not self._is_joining():
            return []
        room = self.config.max_rows - len(self._decoder.rows)
        count = self._decoder.num_fitting(self._admitted[:room])
        joining, self._admitted = self._admitted[:count], self._admitted[count:]
        return joining

    def _is_joining(self) -> bool:
        is_crowd = len(self._admitted) >= JOIN_SHARE * len(self._decoder.rows)
        return is_crowd or self._steps_since_join >= JOIN_STEPS

    def _is_admitting(self) -> bool:
        if self.config.schedule == "continuous":
            return True
        is_idle = not self._decoder.rows and not self._admitted
        return is_idle and len(self._waiting) == len(self._open)

    def _tick(
        self, joining: Sequence[Row], gone: Sequence[Row]
    ) -> tuple[list[tuple[Row, Completion]], list[Row]]:
        """Draw tokens until someone is done or wanted; runs in the thread."""
        decoder = self._decoder
        decoder.remove(gone)
        while self._ended:
            decoder.forget(self._ended.pop())
        given_up = decoder.advance()
        if joining:
            decoder.join(joining)
            self._steps_since_join = 0
        while decoder.rows:
            finished = decoder.step()
            self._steps_since_join += 1
            if finished or given_up or self._is_due():
                return finished, given_up
            given_up = decoder.advance()
        return [], given_up

    def _is_due(self) -> bool:
        """Whether the event loop has something to say; a barrier's steps never depend on that."""
        is_wanted = self._is_wanted and self.config.schedule == "continuous"
        return self._is_closed or (is_wanted and self._steps_since_join >= JOIN_STEPS)


class _HFSession:
    """A trajectory's number at the engine."""

    def __init__(self, engine: HFEngine, number: int) -> None:
        self._engine = engine
        self._number = number

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        return await self._engine.generate(self._number, context, params, seed)
