"""`Runtime`: one trajectory's interpreter, a confined process that is stopped between its cells."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from pyvision_rl.closing import Closing
from pyvision_rl.errors import SandboxError
from pyvision_rl.sandbox import wire
from pyvision_rl.sandbox.channel import Channel
from pyvision_rl.sandbox.config import CellResult, ResultKind, SandboxConfig
from pyvision_rl.sandbox.server_process import Child, ServerProcess
from pyvision_rl.sandbox.slots import Activity, Slots

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 60.0
"""For forking a runtime and handing it its images: generous, since only a broken machine takes
long.
"""


class Home(Protocol):
    """What runtimes share: the pool, as they see it."""

    config: SandboxConfig
    slots: Slots

    async def server(self) -> ServerProcess:
        """The living fork server."""
        ...

    def forget(self, runtime: Runtime) -> None:
        """Drop a closed runtime."""
        ...


class Runtime(Closing):
    """One interpreter, whose process starts with the first cell. Cells run one after the other;
    names persist between them.
    """

    def __init__(
        self, pool: Home, images: Sequence[Image.Image], videos: Sequence[Path], seed: int
    ) -> None:
        self._pool = pool
        self._images = list(images)
        self._videos = list(videos)
        self._seed = seed
        self._child: Child | None = None
        self._channel: Channel | None = None
        self._ending: ResultKind | None = None
        self._turn = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether another cell can run: false once a cell ended the runtime or it was closed."""
        return self._ending is None

    async def close(self) -> None:
        """End the process and wait until it is gone."""
        self._ending = self._ending or "dead"
        if self._child is not None:  # a cell that runs sees the end of its channel
            self._child.signal(signal.SIGKILL)
        async with self._turn:
            await self._kill()
        self._pool.forget(self)

    async def run(self, code: str) -> CellResult:
        """Run one cell; every outcome is a `CellResult`, also of a runtime that has already
        ended.
        """
        if len(code) > wire.MAX_CODE_CHARS:
            long = f"ValueError: a cell of {len(code)} characters, at most {wire.MAX_CODE_CHARS}"
            return CellResult("error", long, [], 0.0)
        code = code.encode("utf-8", "replace").decode()
        if self._ending is None:
            async with self._pool.slots.hold(self._activity), self._turn:
                if self._ending is None:  # or it was closed meanwhile
                    return await self._run(code)
        return CellResult(self._ending or "dead", "RuntimeError: the runtime has ended", [], 0.0)

    def _activity(self) -> Activity | None:
        return Activity.of(self._child.pidfd) if self._child else None

    async def _run(self, code: str) -> CellResult:
        started = time.monotonic()
        config = self._pool.config
        try:
            if self._child is None:
                await self._start()
            started = time.monotonic()
            async with asyncio.timeout(config.timeout_s + config.grace_s):
                request = wire.Run(secrets.randbits(63), code)
                reply, images = await self._exchange(request)
            return CellResult(reply.kind, reply.text, images, time.monotonic() - started)
        except TimeoutError:
            kind: ResultKind = "killed_timeout"
            text = (
                f"TimeoutError: the cell did not stop after {config.timeout_s:g} s and was killed"
            )
        except wire.WireError as error:
            kind, text = "protocol", f"RuntimeError: the runtime broke its protocol ({error})"
        except SandboxError as error:
            kind, text = "sandbox_lost", f"RuntimeError: the sandbox was lost ({error})"
        except OSError:
            kind, text = await self._explain_end()
        except Exception as error:  # whatever a cell provokes here, the run goes on
            log.exception("a runtime is lost to an error of the pool's own")
            kind, text = "sandbox_lost", f"RuntimeError: the sandbox was lost ({error!r})"
        except BaseException:
            self._ending = "dead"
            await self._kill()
            raise
        self._ending = self._ending or kind
        await self._kill()
        return CellResult(self._ending, text, [], time.monotonic() - started)

    async def _start(self) -> None:
        """A process with its images and videos; `SandboxError` where there is none in time."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._open()
        except (OSError, wire.WireError) as error:
            reason = str(error) or "no answer"
            raise SandboxError(f"a runtime did not start: {reason}") from None

    async def _open(self) -> None:
        """Fork the process, once more if the fork server was lost meanwhile, and hand it images and
        videos.
        """
        for attempt in range(2):
            try:
                await self._fork()
                break
            except SandboxError:
                if attempt:
                    raise
        images = [i if i.mode == "RGB" else i.convert("RGB") for i in self._images]
        opened = wire.Open(
            secrets.randbits(63), self._seed, [i.size for i in images], len(self._videos)
        )
        await self._exchange(opened, images)
        self._images = []

    async def _fork(self) -> None:
        server = await self._pool.server()
        ours, theirs = socket.socketpair()
        videos: list[int] = []
        try:
            videos += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in self._videos]
            self._child = await server.spawn([theirs.fileno(), *videos])
            self._channel = Channel(ours, self._pool.config)
            if self._ending is not None:
                raise ConnectionError("it was closed meanwhile")
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for descriptor in videos:
                os.close(descriptor)

    async def _exchange(
        self, request: wire.Request, given: Sequence[Image.Image] = ()
    ) -> tuple[wire.Reply, list[Image.Image]]:
        """The answer to a request; the process runs only meanwhile."""
        channel = self._channel
        if channel is None:
            raise ConnectionError
        channel.refuse_unasked()
        self._thaw()
        answer = await channel.ask(request, given)
        self._freeze()
        return answer

    def _freeze(self) -> None:
        """Stop the process until the next cell: threads that a cell left behind burn no one's
        time.
        """
        if self._child is not None:
            self._child.signal(signal.SIGSTOP)

    def _thaw(self) -> None:
        if self._child is not None:
            self._child.signal(signal.SIGCONT)

    async def _explain_end(self) -> tuple[ResultKind, str]:
        """The channel is closed: why the process ended, by what its parent, the fork server, waited
        for.
        """
        code: int | None = None
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            code = await self._wait()
        if code is None:
            return "sandbox_lost", "RuntimeError: the sandbox was lost"
        if code == -signal.SIGKILL:
            what = "its memory, files or threads"
            return "killed_memory", f"MemoryError: the runtime was killed for {what}"
        names = {known.value: known.name for known in signal.Signals}  # most real-time ones miss
        how = f"signal {names.get(-code, -code)}" if code < 0 else f"exit status {code}"
        return "dead", f"RuntimeError: the cell ended the interpreter ({how})"

    async def _wait(self) -> int | None:
        child = self._child
        if child is None:
            return None
        try:
            async with asyncio.timeout(1.0):
                return await asyncio.shield(child.ended)
        except TimeoutError:
            child.signal(signal.SIGKILL)
            await asyncio.shield(child.ended)
            return 0

    async def _kill(self) -> None:
        channel, child = self._channel, self._child
        self._channel = self._child = None
        if channel is not None:
            channel.close()
        if child is not None:
            child.ended.add_done_callback(lambda _: child.release())
            child.signal(signal.SIGKILL)
            await asyncio.shield(child.ended)
