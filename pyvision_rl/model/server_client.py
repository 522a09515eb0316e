"""HTTP to a model server: bounded, patient with failures that pass, clear about the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
from collections.abc import Mapping

import httpx

from pyvision_rl.closing import Closing
from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.server_config import ServerConfig

MAX_BACKOFF_S = 60.0
RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
CONTEXT_FULL = re.compile(
    r"context[ _]length|context window|max_model_len|longer than the max|too many tokens",
    re.IGNORECASE,
)
SHOWN_CHARS = 200


class ContextFullError(PyVisionError):
    """The server's model cannot take so long a context."""


class NotFoundError(PyVisionError):
    """The server has no such path, or no such model."""


class ServerClient(Closing):
    """Requests to one server. Use it as `async with`."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._model = config.model
        key = os.environ.get(config.api_key_env, "")
        self._http = httpx.AsyncClient(
            timeout=config.timeout_s,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # Loading the certificates takes a while, and plain http has no use for them.
            verify=config.url.startswith("https:"),
            limits=httpx.Limits(max_connections=config.max_in_flight),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def model(self) -> str:
        """The configured model, else the first that the server lists."""
        if not self._model:
            try:
                listed = (await self.get("/models")).get("data")
            except NotFoundError as error:
                raise PyVisionError(f"{error}; the address must go up to and with /v1") from error
            first = listed[0] if isinstance(listed, list) and listed else None
            name = first.get("id") if isinstance(first, Mapping) else None
            if not isinstance(name, str):
                raise PyVisionError(f"server {self.config.url}: lists no model; give server.model")
            self._model = name
        return self._model

    async def get(self, path: str) -> Mapping[str, object]:
        """The json object at a path below the address."""
        return await self._request("GET", self.config.url.rstrip("/") + path, None)

    async def post(self, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
        """The reply to a json body; a path in front of `/v1` is written `../path`.

        Raises ContextFullError where the context is too long for the model, PyVisionError in one
        line where the server refuses or cannot be reached after all attempts.
        """
        base = self.config.url.rstrip("/")
        if path.startswith("../"):
            base, path = base.removesuffix("/v1"), path[2:]
        return await self._request("POST", base + path, body)

    async def _request(
        self, method: str, url: str, body: Mapping[str, object] | None
    ) -> Mapping[str, object]:
        async with self._slots:
            failure = ""
            for attempt in range(self.config.max_retries + 1):
                wait_s = min(MAX_BACKOFF_S, self.config.backoff_s * 2**attempt)
                try:
                    response = await self._http.request(method, url, json=body)
                except httpx.TransportError as error:
                    failure = f"{type(error).__name__} {error}".strip()
                else:
                    if response.is_success:
                        return _json_object(response)
                    failure = _refusal(response)
                    wait_s = max(wait_s, retry_after_s(response))
                if attempt < self.config.max_retries:
                    # Requests that failed together must not all come back together.
                    await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
        attempts = self.config.max_retries + 1
        raise PyVisionError(f"server {url}: gave up after {attempts} attempts: {failure}")


def _refusal(response: httpx.Response) -> str:
    """What the server said against a request; raises where asking again is of no use."""
    said = " ".join(response.text.split())[:SHOWN_CHARS]
    failure = f"status {response.status_code} {said}"
    if response.status_code in RETRIED_STATUS:
        return failure
    if response.status_code in (400, 413, 422) and CONTEXT_FULL.search(response.text):
        raise ContextFullError(f"server {response.url}: {failure}")
    kind = NotFoundError if response.status_code == 404 else PyVisionError
    raise kind(f"server {response.url}: {failure}")


def _json_object(response: httpx.Response) -> Mapping[str, object]:
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        value = response.json()
        if isinstance(value, Mapping):
            return value
    said = " ".join(response.text.split())[:SHOWN_CHARS]
    raise PyVisionError(f"server {response.url}: reply is no json object: {said}")


def retry_after_s(response: httpx.Response) -> float:
    """What a `Retry-After` in seconds asks for, at most a minute; 0 for none."""
    seconds = response.headers.get("retry-after", "")
    return min(MAX_BACKOFF_S, float(seconds)) if seconds.isdecimal() else 0.0


def first_choice(reply: Mapping[str, object]) -> Mapping[str, object]:
    """The first of a reply's choices. Raises PyVisionError where it has none."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        raise PyVisionError(f"server: a reply without choices: {str(reply)[:SHOWN_CHARS]}")
    return choice
