"""The body of a chat request, typed; fields that it has no use for are ignored."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec

from pyvision_rl.errors import InputError
from pyvision_rl.rollout.episode import LEAST_TEMPERATURE, RolloutConfig

_Stop = Annotated[str, msgspec.Meta(min_length=1)]


class Extras(msgspec.Struct, frozen=True):
    """What a client may ask beyond OpenAI's interface, under `pyvision`."""

    trajectory: bool = False


class ChatRequest(msgspec.Struct, frozen=True):
    """A request; None where the server's own setting holds."""

    messages: list[object]
    stream: bool | None = False
    n: int | None = None
    seed: int | None = None
    stop: _Stop | Annotated[tuple[_Stop, ...], msgspec.Meta(max_length=4)] | None = None
    """Cuts the reply, not what the agent writes on the way to it."""
    logprobs: bool | None = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int, msgspec.Meta(lt=2**31)] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    pyvision: Extras = Extras()

    def applied_to(self, config: RolloutConfig, least_tokens: int = 0) -> RolloutConfig:
        """The limits with this request's sampling, its tokens raised to `least_tokens`.

        Raises ConfigError for values out of range.
        """
        temperature = config.temperature if self.temperature is None else self.temperature
        if 0 < temperature < LEAST_TEMPERATURE:  # greedy is what it means
            temperature = 0.0
        limit = self.max_completion_tokens or self.max_tokens
        if limit is None or limit == 0:
            limit = config.max_completion_tokens
        elif limit > 0:
            limit = max(limit, least_tokens)
        return replace(
            config,
            temperature=temperature,
            top_p=config.top_p if self.top_p is None else self.top_p,
            top_k=config.top_k if self.top_k is None else self.top_k,
            max_completion_tokens=limit,
        )

    def cut(self, reply: str) -> str:
        """The reply up to the first stop string."""
        stops = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        places = [place for stop in stops if (place := reply.find(stop)) >= 0]
        return reply[: min(places, default=None)]


def read_request(data: bytes) -> ChatRequest:
    """The request in a body. Raises InputError that names the field that cannot be used."""
    try:
        request = msgspec.json.decode(data, type=ChatRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"request: {error}") from error
    if request.n not in (None, 1):
        raise InputError(f"request: n = {request.n}; only 1 is supported")
    if request.logprobs:
        raise InputError("request: logprobs are not told: the reply is not sampled in one piece")
    return request
