"""The pool's handle on its fork server process: starts it, asks for runtimes, hears of their
ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pyvision_rl.errors import SandboxError
from pyvision_rl.sandbox import control

log = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0
"""The first start on a machine builds matplotlib's font cache."""
CLOSE_TIMEOUT_S = 5.0

PROGRAM = """
import sys
sys.path[:] = sys.argv.pop().splitlines()
from pyvision_rl.sandbox.zygote import main
main()
"""


@dataclass(eq=False)
class Child:
    """A forked runtime: its pidfd, and a future that gets its exit code, or None if the fork server
    went first.
    """

    pidfd: int
    ended: asyncio.Future[int | None]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has gone is no error."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def release(self) -> None:
        """Close the pidfd."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


@dataclass(eq=False)
class ServerProcess:
    """One running fork server."""

    process: subprocess.Popen[bytes]
    control_socket: socket.socket
    errors: IO[bytes]
    loop: asyncio.AbstractEventLoop
    ready: asyncio.Future[control.Ready]
    lost: bool = False
    _next_id: int = 0
    _starting: dict[int, asyncio.Future[Child]] = field(default_factory=dict)
    _children: dict[int, Child] = field(default_factory=dict)

    @classmethod
    async def start(cls, setup: control.Setup) -> ServerProcess:
        """Start a fork server and wait until it is warm; raises `SandboxError` with its reason if
        it cannot.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        with theirs:
            process = launch(theirs.fileno(), errors)
        ours.setblocking(False)
        server = cls(process, ours, errors, loop, loop.create_future())
        loop.add_reader(ours, server._on_packet)
        ours.send(control.encode(setup))
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await server.ready
        except TimeoutError:
            await server.close()
            raise SandboxError(f"the fork server was not ready in {START_TIMEOUT_S:g} s") from None
        except BaseException:
            await server.close()
            raise
        return server

    async def spawn(self, descriptors: list[int]) -> Child:
        """Fork a runtime that inherits `descriptors`: its channel, then its videos."""
        if self.lost:
            raise SandboxError("the fork server is gone")
        self._next_id += 1
        started: asyncio.Future[Child] = self.loop.create_future()
        self._starting[self._next_id] = started
        message = control.encode(control.Spawn(self._next_id, len(descriptors) - 1))
        try:
            socket.send_fds(self.control_socket, [message], descriptors)
        except OSError as error:
            self._starting.pop(self._next_id, None)
            raise SandboxError(f"the fork server does not answer: {error}") from None
        return await started

    async def close(self) -> None:
        """Close the control socket; the server ends its runtimes and removes their folders."""
        self._lose()
        for _ in range(int(CLOSE_TIMEOUT_S / 0.01)):
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.01)
        else:
            self.process.kill()
        self.process.wait()
        self.errors.close()

    def _on_packet(self) -> None:
        packet, descriptors = b"", list[int]()
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.control_socket, control.MAX_PACKET, 4)
        except BlockingIOError:
            return
        except OSError:
            log.debug("the fork server's socket broke", exc_info=True)
        if packet:
            self._on_message(control.TO_POOL.decode(packet), descriptors)
        else:
            self._lose()

    def _on_message(self, message: control.FromServer, descriptors: list[int]) -> None:
        match message:
            case control.Ready():
                self.ready.set_result(message)
            case control.Spawned(identity) if descriptors:
                self._on_spawned(identity, descriptors[0])
            case control.Spawned(identity):  # it ends by itself when its channel is closed
                self._refuse(self._starting.pop(identity), "too many open files")
            case control.Exited(identity, code):
                if child := self._children.pop(identity, None):
                    self._end(child, code)
            case control.Refused(identity, reason):
                self._refuse(self.ready if identity < 0 else self._starting.pop(identity), reason)

    def _on_spawned(self, identity: int, pidfd: int) -> None:
        child = Child(pidfd, self.loop.create_future())
        self._children[identity] = child
        started = self._starting.pop(identity)
        if started.done():  # whoever asked was cancelled
            child.signal(signal.SIGKILL)
            child.ended.add_done_callback(lambda _: child.release())
        else:
            started.set_result(child)

    def _lose(self) -> None:
        """The server is gone or being closed: nothing that it forked will answer any more."""
        if self.lost:
            return
        self.lost = True
        self.loop.remove_reader(self.control_socket)
        self.control_socket.close()
        for child in self._children.values():
            child.signal(signal.SIGKILL)
            self._end(child, None)
        self._children.clear()
        for waiting in (self.ready, *self._starting.values()):
            if not waiting.done():
                waiting.set_exception(SandboxError(self._last_words()))
                waiting.exception()
        self._starting.clear()

    def _last_words(self) -> str:
        self.errors.seek(0)
        text = self.errors.read()[-2000:].decode("utf-8", "replace").strip()
        return f"the fork server ended: {text or 'it said nothing'}"

    @staticmethod
    def _refuse(waiting: asyncio.Future[Any], reason: str) -> None:
        if not waiting.done():
            waiting.set_exception(SandboxError(reason))

    @staticmethod
    def _end(child: Child, code: int | None) -> None:
        if not child.ended.done():
            child.ended.set_result(code)


def launch(descriptor: int, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """The fork server's process: this interpreter and import path, a clean environment, its own
    session.
    """
    path = "\n".join(str(Path(entry).absolute()) for entry in sys.path)
    arguments = [sys.executable, "-P", "-c", PROGRAM, str(descriptor), str(os.getpid())]
    return subprocess.Popen(
        [*arguments, path],
        env=clean_environment(),
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        start_new_session=True,
    )


def clean_environment() -> dict[str, str]:
    """Nothing of the host's environment but where matplotlib keeps its font cache and how to find
    the interpreter.
    """
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path(home) / "matplotlib")),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM"):
        environment[f"{library}_NUM_THREADS"] = "1"
    return environment
