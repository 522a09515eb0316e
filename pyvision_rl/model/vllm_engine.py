"""An engine on a vLLM server by token ids: what is sampled is what is kept, log-probs included.

The server must run with `--enable-scale-out` (vLLM 0.32), which opens `/inference/v1/generate`, and
with `--logprobs-mode processed_logprobs`: else its log-probs are of the temperature-1 distribution
that still has the banned tokens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby

from PIL.Image import Image

from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.server_client import ContextFullError, ServerClient, first_choice
from pyvision_rl.model.server_engine import MAX_SEED, data_url
from pyvision_rl.types import Completion, Context

GENERATE = "../inference/v1/generate"
RENDER = "/chat/completions/render"
BANNED_BIAS = -100.0
"""The most that vLLM takes off a logit: a probability below 1e-40 at temperature 1."""
FINAL_ONLY = 2
"""vLLM's RequestOutputKind.FINAL_ONLY."""


@dataclass(frozen=True)
class VLLMEngine:
    """Samples by token ids; images travel as features that the server renders itself. `banned_ids`
    are those that the policy never writes, vision tokens among them.
    """

    client: ServerClient
    codec: ChatCodec
    banned_ids: tuple[int, ...]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[VLLMSession]:
        """Open a trajectory; the features of its images are kept until it grows."""
        yield VLLMSession(self)


@dataclass
class VLLMSession:
    """One trajectory at the server."""

    engine: VLLMEngine
    _num_images: int = 0
    _features: Mapping[str, object] = field(default_factory=dict)

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        """Continue `context` by ids; one too long for the model ends as an empty "length"."""
        token_ids = context.token_ids
        body: dict[str, object] = {
            "model": await self.engine.client.model(),
            "token_ids": list(token_ids),
            "sampling_params": self._sampling(params, seed),
        }
        try:
            if context.images:
                body["features"] = await self._placed_features(context.images, token_ids)
            choice = first_choice(await self.engine.client.post(GENERATE, body))
        except ContextFullError:
            return Completion((), (), "", "length")
        return self._completion(choice)

    def _sampling(self, params: SamplingParams, seed: int) -> Mapping[str, object]:
        return {
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "seed": seed & MAX_SEED,
            "stop": list(params.stop),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "logit_bias": {str(token): BANNED_BIAS for token in self.engine.banned_ids},
            "logprobs": 0,
            "output_kind": FINAL_ONLY,
        }

    async def _placed_features(
        self, images: Sequence[Image], token_ids: Sequence[int]
    ) -> Mapping[str, object]:
        """The images as the server prepares them, placed where our own ids have them."""
        if self._num_images != len(images):
            parts = [{"type": "image_url", "image_url": {"url": data_url(i)}} for i in images]
            body = {
                "model": await self.engine.client.model(),
                "max_tokens": 1,
                "messages": [{"role": "user", "content": parts}],
            }
            features = (await self.engine.client.post(RENDER, body)).get("features")
            if not isinstance(features, Mapping):
                raise PyVisionError(f"server {self.engine.client.config.url}: renders no features")
            self._num_images, self._features = len(images), features
        runs = image_runs(token_ids, self.engine.codec.image_pad_id)
        if len(runs) != len(images):
            raise PyVisionError(f"{len(images)} images for {len(runs)} runs of image tokens")
        return {**self._features, "mm_placeholders": {"image": runs}}

    def _completion(self, choice: Mapping[str, object]) -> Completion:
        ids = choice.get("token_ids")
        token_ids = tuple(int(token) for token in ids) if isinstance(ids, list) else ()
        logprobs = _logprobs(choice)
        if len(logprobs) != len(token_ids):
            raise PyVisionError(
                f"server: {len(token_ids)} token ids with {len(logprobs)} log-probs; must be equal"
            )
        text = self.engine.codec.decode(token_ids)
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        return Completion(token_ids, logprobs, text, finish)


def image_runs(token_ids: Sequence[int], image_pad_id: int) -> list[dict[str, int]]:
    """Offset and length of every run of image tokens, as vLLM wants them."""
    runs: list[dict[str, int]] = []
    offset = 0
    for token, run in groupby(token_ids):
        length = len(list(run))
        if token == image_pad_id:
            runs.append({"offset": offset, "length": length})
        offset += length
    return runs


def _logprobs(choice: Mapping[str, object]) -> tuple[float, ...]:
    held = choice.get("logprobs")
    content = held.get("content") if isinstance(held, Mapping) else None
    entries = content if isinstance(content, list) else []
    return tuple(float(entry["logprob"]) for entry in entries)
