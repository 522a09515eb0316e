"""The engine that episodes see: verl's samplers, by token ids, wherever they run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from PIL.Image import Image

from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.types import Completion, Context

NEVER = -100.0
"""vLLM's lowest logit bias: below any logit by so much that the probability is 0 in float32."""


class TokenOutput(Protocol):
    """What a sampler answers."""

    @property
    def token_ids(self) -> list[int]:
        """The sampled tokens."""
        ...

    @property
    def log_probs(self) -> list[float] | None:
        """Their log-probs."""
        ...


class SamplerClient(Protocol):
    """verl's client: one of its samplers serves all requests of the same id."""

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, object],
        image_data: list[Image] | None = None,
    ) -> TokenOutput:
        """Continue a prompt, in which images stand as their expanded tokens."""
        ...


@dataclass(frozen=True)
class VerlEngine:
    """An Engine on verl's samplers; `banned_ids` are never sampled."""

    client: SamplerClient
    codec: ChatCodec
    banned_ids: Sequence[int]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[VerlSession]:
        """Open a trajectory; its turns go to one sampler, which keeps their prefix."""
        yield VerlSession(self, uuid4().hex)


@dataclass(frozen=True)
class VerlSession:
    """One trajectory at its sampler."""

    engine: VerlEngine
    name: str

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        """Continue `context`. Raises PyVisionError where a sampler gives no log-probs."""
        answer = await self.engine.client.generate(
            self.name,
            prompt_ids=list(context.token_ids),
            sampling_params=dict(self._sampling(params, seed)),
            image_data=list(context.images) or None,
        )
        if answer.log_probs is None or len(answer.log_probs) != len(answer.token_ids):
            raise PyVisionError(
                f"sampler: {len(answer.token_ids)} tokens with "
                f"{len(answer.log_probs or ())} log-probs; must be equal"
            )
        codec = self.engine.codec
        text = codec.decode(answer.token_ids)
        # verl says "completed" for an end and for a cut alike.
        is_whole = answer.token_ids[-1:] == [codec.end_of_turn_id] or any(
            stop in text for stop in params.stop
        )
        finish = "stop" if is_whole else "length"
        return Completion(tuple(answer.token_ids), tuple(answer.log_probs), text, finish)

    def _sampling(self, params: SamplingParams, seed: int) -> Mapping[str, object]:
        """In vLLM's words."""
        return {
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k or -1,
            "seed": seed,
            "stop": list(params.stop),
            "stop_token_ids": [self.engine.codec.end_of_turn_id],
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "logit_bias": dict.fromkeys(self.engine.banned_ids, NEVER),
            "logprobs": True,
        }
