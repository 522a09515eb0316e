"""A `SandboxPool` behind HTTP, for machines with cores to spare. Needs the `server` extra."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.sandbox.config import SandboxConfig
from pyvision_rl.sandbox.pool import SandboxPool
from pyvision_rl.sandbox.remote import messages
from pyvision_rl.sandbox.runtime import Runtime
from pyvision_rl.sandbox.wire import WireError

log = logging.getLogger(__name__)

MIN_TOKEN_CHARS = 16
OPEN_PATHS = ("/health",)


@dataclass(frozen=True)
class ServeConfig:
    """`pyvision-rl sandbox serve`."""

    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    host: str = "127.0.0.1"
    """Loopback unless told otherwise; any other address needs a token of your own."""
    port: int = 8377
    token_file: str = ""
    """File whose first line is the bearer token; without it one is made up and logged."""
    video_folder: str = ""
    """Videos that clients name must lie below it; without it there are none."""
    max_runtimes: int = 2048
    """Runtimes alive at once; one more is answered 503."""
    idle_s: float = 900.0
    """A runtime that ran no cell for so long is closed: its client is gone."""
    max_body_mb: int = 256
    """Largest request, images included."""

    def __post_init__(self) -> None:
        """Check the address and the limits."""
        if not self.token_file and not is_loopback(self.host):
            raise ConfigError(f"host {self.host} is not this machine alone: it needs a token_file")
        for name in ("max_runtimes", "idle_s", "max_body_mb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be positive")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def read_token(config: ServeConfig) -> str:
    """The token of the file, or a fresh one that is logged."""
    if not config.token_file:
        token = secrets.token_urlsafe(24)
        log.warning("no token_file: the bearer token of this run is %s", token)
        return token
    path = Path(config.token_file)
    if not path.is_file():
        raise InputError(f"token_file {path}: no such file")
    token = path.read_text().split("\n")[0].strip()
    if len(token) < MIN_TOKEN_CHARS:
        raise InputError(
            f"token_file {path}: {len(token)} characters in line 1, at least {MIN_TOKEN_CHARS}"
        )
    return token


class Guard:
    """Refuses requests without the bearer token, and bodies that are too large, before they
    are read.
    """

    def __init__(self, app: ASGIApp, token: str, max_body: int) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = dict(scope["headers"])
            if not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
                return await PlainTextResponse("bearer token", 401)(scope, receive, send)
            length = headers.get(b"content-length", b"0")
            if b"transfer-encoding" in headers or not length.isdigit():
                return await PlainTextResponse("content-length", 411)(scope, receive, send)
            if int(length) > self._max_body:
                return await PlainTextResponse("body too large", 413)(scope, receive, send)
        return await self._app(scope, receive, send)


@dataclass(eq=False)
class Hosted:
    """A runtime of a client."""

    runtime: Runtime
    used: float = field(default_factory=time.monotonic)
    running: int = 0


class SandboxServer:
    """The application's state and its endpoints."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self.pool = SandboxPool(config.sandbox)
        self._hosted: dict[str, Hosted] = {}
        self._results: Counter[str] = Counter()
        self._seconds = 0.0

    def app(self, token: str) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/runtimes", self.open, methods=["POST"]),
            Route("/runtimes/{id}/run", self.run, methods=["POST"]),
            Route("/runtimes/{id}", self.close, methods=["DELETE"]),
        ]
        guard = Middleware(Guard, token=token, max_body=self._config.max_body_mb << 20)
        return Starlette(routes=routes, middleware=[guard], lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.pool:
            sweeper = asyncio.create_task(self._sweep())
            yield
            sweeper.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(30.0, self._config.idle_s / 2))
            oldest = time.monotonic() - self._config.idle_s
            for name, hosted in list(self._hosted.items()):
                if not hosted.running and hosted.used < oldest:
                    del self._hosted[name]
                    await hosted.runtime.close()

    async def health(self, request: Request) -> Response:
        """Alive, and with which layers."""
        return JSONResponse({"status": "ok", "layers": self.pool.layers})

    async def metrics(self, request: Request) -> Response:
        """Counts in Prometheus' text format."""
        lines = [f"sandbox_runtimes {len(self._hosted)}"]
        lines += [f"sandbox_running {sum(hosted.running for hosted in self._hosted.values())}"]
        lines += [f"sandbox_cell_seconds_total {self._seconds:.6f}"]
        lines += [f'sandbox_cells_total{{kind="{k}"}} {n}' for k, n in self._results.items()]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def open(self, request: Request) -> Response:
        """A new runtime; its process starts with its first cell."""
        if len(self._hosted) >= self._config.max_runtimes:
            return PlainTextResponse(f"{len(self._hosted)} runtimes are alive", 503)
        try:
            asked, blobs = messages.unpack(await request.body(), messages.OpenRuntime)
            images = messages.split_images(asked.images, blobs)
            videos = [self._video(name) for name in asked.videos]
            runtime = self.pool.runtime(images, videos, asked.seed)
        except (WireError, InputError) as error:
            return PlainTextResponse(str(error), 400)
        name = secrets.token_urlsafe(16)
        self._hosted[name] = Hosted(runtime)
        return Response(messages.pack(messages.Opened(name)), media_type=messages.MEDIA_TYPE)

    def _video(self, name: str) -> Path:
        folder = Path(self._config.video_folder).resolve()
        path = (folder / name).resolve()
        if not self._config.video_folder or not path.is_relative_to(folder):
            raise InputError(f"video {name}: not below this server's video folder")
        return path

    async def run(self, request: Request) -> Response:
        """One cell."""
        hosted = self._hosted.get(request.path_params["id"])
        if hosted is None:
            return PlainTextResponse("no such runtime", 404)
        try:
            asked, _ = messages.unpack(await request.body(), messages.RunCell)
        except (WireError, ClientDisconnect) as error:
            return PlainTextResponse(str(error), 400)
        hosted.running += 1
        try:
            result = await hosted.runtime.run(asked.code)
        finally:
            hosted.running -= 1
            hosted.used = time.monotonic()
        self._results[result.kind] += 1
        self._seconds += result.seconds
        sizes = [image.size for image in result.images]
        answer = messages.CellAnswer(
            result.kind, result.text, result.seconds, sizes, hosted.runtime.alive
        )
        body = messages.pack(answer, result.images)
        return Response(body, media_type=messages.MEDIA_TYPE)

    async def close(self, request: Request) -> Response:
        """End a runtime."""
        hosted = self._hosted.pop(request.path_params["id"], None)
        if hosted is None:
            return PlainTextResponse("no such runtime", 404)
        await hosted.runtime.close()
        return Response(status_code=204)
