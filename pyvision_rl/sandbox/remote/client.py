"""`SandboxClient`: a fleet of sandbox servers behind the interface of `SandboxPool`. Needs
the `server` extra.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx
from PIL import Image

from pyvision_rl.closing import Closing
from pyvision_rl.errors import ConfigError, SandboxError
from pyvision_rl.sandbox.config import CellResult, ResultKind
from pyvision_rl.sandbox.remote import messages
from pyvision_rl.sandbox.wire import WireError

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 600.0
"""Cells wait for an exec slot on the server; its own limits end them long before this."""


class SandboxClient(Closing):
    """Runtimes on other machines. Each stays on the server that its name hashes to."""

    def __init__(self, urls: Sequence[str], token: str) -> None:
        if not urls:
            raise ConfigError("a sandbox client needs at least one server url")
        self._urls = [url.rstrip("/") for url in urls]
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.AsyncClient(
            headers=headers, timeout=timeout, limits=limits, trust_env=False
        )

    async def __aenter__(self) -> Self:
        """Check that every server answers; raises `SandboxError` naming one that does not."""
        for url in self._urls:
            try:
                (await self.http.get(f"{url}/health")).raise_for_status()
            except httpx.HTTPError as error:
                await self.close()
                raise SandboxError(f"sandbox server {url} does not answer: {error}") from None
        return self

    async def close(self) -> None:
        """Close the connections; servers drop runtimes that stay idle."""
        await self.http.aclose()

    def runtime(
        self,
        images: Sequence[Image.Image] = (),
        videos: Sequence[str | Path] = (),
        seed: int = 0,
    ) -> RemoteRuntime:
        """As `SandboxPool.runtime`; videos are paths below the server's video folder."""
        name = uuid.uuid4().hex
        server = max(self._urls, key=lambda url: hashlib.sha256(f"{url} {name}".encode()).digest())
        return RemoteRuntime(self.http, server, images, [str(path) for path in videos], seed)


class RemoteRuntime(Closing):
    """As `Runtime`, on a server, where it is opened with the first cell."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        server: str,
        images: Sequence[Image.Image],
        videos: list[str],
        seed: int,
    ) -> None:
        self._http = http
        self._server = server
        self._images = list(images)
        self._videos = videos
        self._seed = seed
        self._url: str | None = None
        self._ending: ResultKind | None = None
        self._turn = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether another cell can run."""
        return self._ending is None

    async def close(self) -> None:
        """End the runtime on its server; a server that is gone is no error."""
        self._ending = self._ending or "dead"
        url, self._url = self._url, None
        if url is not None:
            try:
                await self._http.delete(url)
            except httpx.HTTPError:
                return

    async def run(self, code: str) -> CellResult:
        """Run one cell; a server or network that fails is `sandbox_lost`."""
        code = code.encode("utf-8", "replace").decode()
        async with self._turn:
            if self._ending is not None:
                return CellResult(self._ending, "RuntimeError: the runtime has ended", [], 0.0)
            try:
                answer, images = await self._ask(code)
            except (httpx.HTTPError, WireError) as error:
                self._ending = "sandbox_lost"
                return CellResult("sandbox_lost", f"RuntimeError: {error}", [], 0.0)
            except BaseException:
                self._ending = "dead"
                raise
            if not answer.alive:
                self._ending = answer.kind
            return CellResult(answer.kind, answer.text, images, answer.seconds)

    async def _ask(self, code: str) -> tuple[messages.CellAnswer, list[Image.Image]]:
        if self._url is None:
            images = [image.convert("RGB") for image in self._images]
            sizes = [image.size for image in images]
            asked = messages.OpenRuntime(self._seed, sizes, self._videos)
            body = await self._post(f"{self._server}/runtimes", messages.pack(asked, images))
            opened, _ = messages.unpack(body, messages.Opened)
            self._url = f"{self._server}/runtimes/{opened.id}"
            self._images = []
        cell = messages.pack(messages.RunCell(code))
        body = await self._post(f"{self._url}/run", cell)
        answer, blobs = messages.unpack(body, messages.CellAnswer)
        return answer, messages.split_images(answer.images, blobs)

    async def _post(self, url: str, body: bytes) -> bytes:
        headers = {"Content-Type": messages.MEDIA_TYPE}
        response = await self._http.post(url, content=body, headers=headers)
        if response.is_error:
            raise WireError(f"{url} answers {response.status_code}: {response.text[:200]}")
        return response.content
