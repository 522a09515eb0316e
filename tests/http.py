"""Real HTTP servers of the tests' own: any Starlette app, and a chat server that plays a script."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The address of an app that a thread serves until the end."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="error", timeout_graceful_shutdown=1, timeout_keep_alive=60
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def unused_address() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@dataclass
class ChatServer:
    """OpenAI chat completions: `write` makes the text of each request from its messages.

    Stops at `stop` as servers do, with the string cut off. A status in `failures` is sent instead,
    one a request, first to last.
    """

    write: Callable[[list[dict]], str] = lambda messages: "hello"
    failures: list[tuple[int, str]] = field(default_factory=list)
    delay_s: float = 0.0
    keep_stop: bool = False
    usage: dict | None = None
    bodies: list[dict] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": "served-model"}]})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        await asyncio.sleep(self.delay_s)
        self.in_flight -= 1
        if self.failures:
            status, text = self.failures.pop(0)
            return PlainTextResponse(text, status)
        text, finish = self.write(body["messages"]), "stop"
        for stop in body.get("stop", []) if not self.keep_stop else []:
            text = text.partition(stop)[0]
        room = body.get("max_tokens", 10**6) * 4
        if len(text) > room:
            text, finish = text[:room], "length"
        message = {"role": "assistant", "content": text}
        reply = {"choices": [{"message": message, "finish_reason": finish}]}
        # Escaped, so that half of a character can be sent.
        body = json.dumps(reply | ({"usage": self.usage} if self.usage else {}))
        return Response(body, media_type="application/json")
