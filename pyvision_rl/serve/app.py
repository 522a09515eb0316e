"""The HTTP side: requests in, episodes played, bounded, ended when their client leaves."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import logging
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pyvision_rl.errors import ConfigError, InputError, PyVisionError, SandboxError
from pyvision_rl.rollout.episode import Agent, Opening, open_task
from pyvision_rl.rollout.group import play_group
from pyvision_rl.serve.question import read_question
from pyvision_rl.serve.reply import (
    chunk,
    completion_body,
    content_of,
    details_of,
    error_body,
    finish_of,
    usage_of,
)
from pyvision_rl.serve.request import ChatRequest, read_request
from pyvision_rl.serve.watch import OnText, WatchedEngine
from pyvision_rl.types import StopReason, Trajectory

logger = logging.getLogger(__name__)

POLL_S = 0.1
KEEP_ALIVE_S = 15.0
CLIENT_LEFT = 499
MAX_SEED = 2**31 - 1
JSON_TYPE = "application/json"


@dataclass(frozen=True)
class ServeLimits:
    """How much a server takes on."""

    max_running: int = 8
    """Episodes at the same time; further requests wait."""
    max_waiting: int = 64
    """Requests that may wait; further ones get status 429."""
    max_body_mb: int = 64
    """Largest request, media included."""
    timeout_s: float = 900.0
    """Seconds an episode may take, waiting included."""
    api_key_env: str = ""
    """Environment variable with the key that clients must send; empty: none is needed."""
    min_completion_tokens: int = 0
    """What a client's max_tokens is raised to: harnesses ask for 16 and mean the answer alone, but
    an agent thinks and writes programs in each of its turns."""

    def __post_init__(self) -> None:
        for name, least in (("max_running", 1), ("max_waiting", 0), ("max_body_mb", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"limits.{name}: {getattr(self, name)}, must be at least {least}")
        if self.timeout_s <= 0 or self.min_completion_tokens < 0:
            raise ConfigError(
                "limits: timeout_s must be positive, min_completion_tokens not negative"
            )


@dataclass
class AgentServer:
    """The routes over one agent; `model` is the name it answers under."""

    agent: Agent
    model: str = "pyvision-rl"
    limits: ServeLimits = field(default_factory=ServeLimits)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.limits.max_running)
        self._num_admitted = 0
        self._numbers = itertools.count(1)
        self._created = int(time.time())
        name = self.limits.api_key_env
        self._key = os.environ.get(name, "") if name else ""
        if name and not self._key:
            raise InputError(f"serve: the environment has no {name} to take the key from")

    def app(self, hosts: Sequence[str] = ("*",)) -> Starlette:
        """The server as a Starlette application; requests to other host names are refused."""
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/health", self._health),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        )

    async def _models(self, request: Request) -> Response:
        model = {"id": self.model, "object": "model", "created": self._created}
        return JSONResponse({"object": "list", "data": [model | {"owned_by": "pyvision-rl"}]})

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "num_admitted": self._num_admitted})

    def _refusal(self, request: Request) -> Response | None:
        """Why a request is not even read, if it is not."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key and not hmac.compare_digest(sent.encode(), self._key.encode()):
            return _error("the key is missing or wrong", 401)
        # Other types a browser sends to any address, for any page, unasked.
        if request.headers.get("content-type", "").partition(";")[0].strip() != JSON_TYPE:
            return _error(f"content-type must be {JSON_TYPE}", 415)
        if self._num_admitted >= self.limits.max_running + self.limits.max_waiting:
            return _error("too many requests are waiting", 429, {"retry-after": "1"})
        return None

    async def _chat(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        # From here on the place is taken: reading a large body may take a while.
        self._num_admitted += 1
        job: asyncio.Task[Trajectory] | None = None
        texts: asyncio.Queue[str] = asyncio.Queue()
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                asked = read_request(await self._body(request))
            agent = self._agent(asked, texts.put_nowait)
            job = asyncio.create_task(self._play(agent, asked))
        except InputError as error:
            return _error(str(error), 400)
        except TimeoutError:
            return _error("the request took too long to arrive", 408, {"connection": "close"})
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        finally:
            if job is None:
                self._num_admitted -= 1
            else:
                job.add_done_callback(self._release)
        if asked.stream:
            return StreamingResponse(
                self._stream(job, texts, asked), media_type="text/event-stream"
            )
        return await self._answer(request, job, asked)

    def _release(self, job: asyncio.Task[Trajectory]) -> None:
        self._num_admitted -= 1
        if not job.cancelled():
            job.exception()  # seen, whether or not a client is left to hear of it

    async def _body(self, request: Request) -> bytes:
        limit = self.limits.max_body_mb * 2**20
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > limit:
                raise InputError(f"request: over {self.limits.max_body_mb} MB")
        return bytes(data)

    def _agent(self, asked: ChatRequest, on_text: OnText) -> Agent:
        """The agent with a request's own sampling settings."""
        config = asked.applied_to(self.agent.config, self.limits.min_completion_tokens)
        return replace(self.agent, config=config, engine=WatchedEngine(self.agent.engine, on_text))

    async def _play(self, agent: Agent, asked: ChatRequest) -> Trajectory:
        seed = random.randrange(MAX_SEED) if asked.seed is None else asked.seed
        async with asyncio.timeout(self.limits.timeout_s), self._slots:
            with tempfile.TemporaryDirectory(prefix="pyvision-chat-") as folder:
                opening = await asyncio.to_thread(_open, agent, asked, Path(folder))
                (trajectory,) = await play_group(agent, opening, 1, seed)
        if trajectory.stop is StopReason.SANDBOX_LOST:
            raise SandboxError("the sandbox was lost twice; try again")
        return trajectory

    async def _answer(
        self, request: Request, job: asyncio.Task[Trajectory], asked: ChatRequest
    ) -> Response:
        """Wait for the episode, or for the client to leave, whichever comes first."""
        try:
            while not job.done():
                if await request.is_disconnected():
                    return Response(status_code=CLIENT_LEFT)
                await asyncio.wait({job}, timeout=POLL_S)
        finally:
            await _cancel(job)
        failure = _failure(job)
        if failure:
            return _error(*failure)
        name = f"chatcmpl-{next(self._numbers)}"
        return JSONResponse(completion_body(job.result(), name, self.model, asked))

    async def _stream(
        self, job: asyncio.Task[Trajectory], texts: asyncio.Queue[str], asked: ChatRequest
    ) -> AsyncIterator[bytes]:
        """Events: what the agent writes and sees as `reasoning_content`, then the answer."""
        name = f"chatcmpl-{next(self._numbers)}"
        try:
            yield chunk(name, self.model, {"role": "assistant", "content": ""})
            async for text in _until_done(job, texts):
                yield chunk(name, self.model, {"reasoning_content": text}) if text else b": \n\n"
            failure = _failure(job)
            if failure:
                yield b"data: " + json.dumps(error_body(*_kind(*failure))).encode() + b"\n\n"
            else:
                done = job.result()
                details = details_of(done, asked.pyvision.trajectory)
                yield chunk(name, self.model, {"content": asked.cut(content_of(done))})
                end = {"usage": usage_of(done), "pyvision": details}
                yield chunk(name, self.model, {}, finish_of(done), **end)
            yield b"data: [DONE]\n\n"
        finally:
            await _cancel(job)


def _open(agent: Agent, asked: ChatRequest, folder: Path) -> Opening:
    """Write the media of a request into a folder, and read them."""
    return open_task(agent, read_question(asked.messages, folder))


async def _until_done(
    job: asyncio.Task[Trajectory], texts: asyncio.Queue[str]
) -> AsyncIterator[str]:
    """Texts as they come; an empty one from time to time, so that no proxy closes the line."""
    while not (job.done() and texts.empty()):
        reading = asyncio.ensure_future(texts.get())
        try:
            await asyncio.wait(
                {reading, job}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            is_text = reading.done()
            reading.cancel()
        if is_text:
            yield reading.result()
        elif not job.done():
            yield ""


async def _cancel(job: asyncio.Task[Trajectory]) -> None:
    """End an episode that nobody waits for; its sandbox and its session are closed by then."""
    if not job.done():
        job.cancel()
        await asyncio.wait({job})


def _failure(job: asyncio.Task[Trajectory]) -> tuple[str, int] | None:
    """What went wrong with an episode, and the status that says so."""
    if job.cancelled():
        return "the server is stopping", 503
    error = job.exception()
    statuses = ((InputError, 400), (TimeoutError, 504), (SandboxError, 503), (PyVisionError, 502))
    for kind, status in statuses:
        if isinstance(error, kind):
            return str(error) or "the episode took too long", status
    if error is not None:
        logger.error("an episode failed", exc_info=error)
        return "the episode failed; the server's log says why", 500
    return None


def _error(message: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(error_body(*_kind(message, status)), status, headers=headers)


def _kind(message: str, status: int) -> tuple[str, str]:
    return message, "invalid_request_error" if status < 500 else "server_error"
