"""An engine on any OpenAI-compatible chat server: for rollouts and evaluation, never for training.

The server gives text, not tokens: ids are the codec's own reading of that text, and every log-prob
is NaN, which says "unknown" and spoils any loss that it would get into.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from PIL.Image import Image

from pyvision_rl.model.codec import IMAGE, SYSTEM, ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.server_client import ContextFullError, ServerClient, first_choice
from pyvision_rl.types import Completion, Context, Observation

UNKNOWN_LOGPROB = math.nan
MAX_SEED = 2**31 - 1
CODE, CODE_END = "<code>", "</code>"


@dataclass
class TokenUsage:
    """Tokens that a server has read and written: as it counts them, else as the codec does."""

    num_input: int = 0
    num_output: int = 0

    def add(self, told: object, num_input: int, num_output: int) -> None:
        """Count one reply: what its `usage` told, in place of the codec's own counts."""
        usage = told if isinstance(told, Mapping) else {}
        self.num_input += _whole(usage.get("prompt_tokens"), num_input)
        self.num_output += _whole(usage.get("completion_tokens"), num_output)


def _whole(value: object, default: int) -> int:
    return value if type(value) is int and value >= 0 else default


@dataclass(frozen=True)
class ServerEngine:
    """Samples by `/chat/completions`. The server must stop at `stop` strings or be cut there.

    `usage` counts the tokens of all its sessions.
    """

    client: ServerClient
    codec: ChatCodec
    usage: TokenUsage = field(default_factory=TokenUsage)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ServerSession]:
        """Open a trajectory; its images are encoded once."""
        yield ServerSession(self)


@dataclass
class ServerSession:
    """One conversation with the server."""

    engine: ServerEngine
    _urls: dict[int, tuple[Image, str]] = field(default_factory=dict)

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        """Continue `context`; one too long for the server's model ends as an empty "length"."""
        body = {
            "model": await self.engine.client.model(),
            "messages": self._messages(context),
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "seed": seed & MAX_SEED,
            "stop": list(params.stop),
        }
        if params.top_k:
            # Not a field of OpenAI's own interface, so only sent where it is asked for.
            body["top_k"] = params.top_k
        try:
            reply = await self.engine.client.post("/chat/completions", body)
        except ContextFullError:
            return Completion((), (), "", "length")
        choice = first_choice(reply)
        text = restore_stop(choice, _content(choice), params.stop)
        completion = self._completion(text, choice.get("finish_reason") == "length", params)
        num_output = len(completion.token_ids)
        self.engine.usage.add(reply.get("usage"), len(context.token_ids), num_output)
        return completion

    def _completion(self, text: str, is_cut: bool, params: SamplingParams) -> Completion:
        token_ids, _ = self.engine.codec.encode_completion(text)
        if is_cut or any(text.endswith(stop) for stop in params.stop):
            token_ids = token_ids[:-1]  # without the end-of-turn token, which was not reached
        logprobs = (UNKNOWN_LOGPROB,) * len(token_ids)
        return Completion(token_ids, logprobs, text, "length" if is_cut else "stop")

    def _messages(self, context: Context) -> list[Mapping[str, object]]:
        messages: list[Mapping[str, object]] = [{"role": "system", "content": SYSTEM}]
        messages.append(self._user(context.prompt))
        for turn in context.turns:
            messages.append({"role": "assistant", "content": turn.completion.text})
            if turn.observation:
                messages.append(self._user(turn.observation))
        return messages

    def _user(self, seen: Observation) -> Mapping[str, object]:
        texts = seen.text.split(IMAGE)
        parts: list[Mapping[str, object]] = [{"type": "text", "text": texts[0]}]
        for image, text in zip(seen.images, texts[1:], strict=True):
            parts.append({"type": "image_url", "image_url": {"url": self._url(image)}})
            parts.append({"type": "text", "text": text})
        shown = [part for part in parts if part.get("text") != ""]
        return {"role": "user", "content": shown if seen.images else seen.text}

    def _url(self, image: Image) -> str:
        # The image is kept beside its url, so that its id is not used again.
        if id(image) not in self._urls:
            self._urls[id(image)] = (image, data_url(image))
        return self._urls[id(image)][1]


def data_url(image: Image) -> str:
    """The image as a PNG in a data URL."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def restore_stop(choice: Mapping[str, object], text: str, stop: Sequence[str]) -> str:
    """The text up to and with the stop string, which servers cut off or, some, run past."""
    places = [(text.find(mark) + len(mark), mark) for mark in stop if mark in text]
    if places:
        return text[: min(places)[0]]
    reason = choice.get("stop_reason")
    if isinstance(reason, str) and reason in stop:
        return text + reason
    stopped = choice.get("finish_reason") == "stop"
    is_open = text.rfind(CODE) > text.rfind(CODE_END)
    return text + CODE_END if stopped and is_open and CODE_END in stop else text


def _content(choice: Mapping[str, object]) -> str:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    # A server that cuts a text may leave half of a character, which has no tokens.
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""
