"""An engine on a vLLM server by token ids: what is sampled is what is kept, log-probs included.

The server must run with `--enable-scale-out` (vLLM 0.32), which opens `/inference/v1/generate`, and
with `--logprobs-mode processed_logprobs`: else its log-probs are of the temperature-1 distribution
that still has the banned tokens. `VLLMEngine.check` asks whether it does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from math import isqrt
from typing import Literal

from PIL.Image import Image
from PIL.Image import new as new_image

from pyvision_rl.errors import PyVisionError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.images import fit_image, num_visual_tokens
from pyvision_rl.model.server_client import (
    ContextFullError,
    NotFoundError,
    ServerClient,
    first_choice,
)
from pyvision_rl.model.server_engine import MAX_SEED, UNKNOWN_LOGPROB, data_url
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

    async def check(self) -> None:
        """Raise PyVisionError in one line unless the server takes ids and tells log-probs of the
        distribution that it samples from, and sees the smallest and the largest image as we do.
        """
        await self._check_logprobs()
        pixels = self.codec.pixels
        for side in (1, 1 + isqrt(pixels.max_pixels)):
            image = fit_image(new_image("RGB", (side, side)), pixels)
            # Where the model is too short for the image, no trajectory will hold one.
            with contextlib.suppress(ContextFullError):
                await self.render([image], payload="none")

    async def _check_logprobs(self) -> None:
        # No model writes an image token: certain with the bias in the log-prob, else impossible.
        params = {
            "max_tokens": 1,
            "temperature": 1.0,
            "logit_bias": {str(self.codec.image_pad_id): -BANNED_BIAS},
            "logprobs": 0,
            "output_kind": FINAL_ONLY,
        }
        body = {
            "model": await self.client.model(),
            "token_ids": [self.codec.end_of_turn_id],
            "sampling_params": params,
        }
        try:
            choice = first_choice(await self.client.post(GENERATE, body))
        except NotFoundError as error:
            raise PyVisionError(
                f"{error}; must be a vLLM of at least 0.32 started with --enable-scale-out"
            ) from error
        if any(abs(logprob) > 1e-3 for logprob in _logprobs(choice)):
            raise PyVisionError(
                f"server {self.client.config.url}: tells log-probs of another distribution than it "
                "samples from; start it with --logprobs-mode processed_logprobs"
            )

    async def render(
        self, images: Sequence[Image], payload: Literal["tensors", "none"] = "tensors"
    ) -> Mapping[str, object]:
        """The images as the server prepares them. Raises PyVisionError where it resizes one: vLLM
        puts features of any size into a run of image tokens, and answers from what it misread.
        """
        url, pixels = self.client.config.url, self.codec.pixels
        parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
        body = {
            "model": await self.client.model(),
            "max_tokens": 1,
            "messages": [{"role": "user", "content": parts}],
            "mm_payload": payload,
        }
        features = (await self.client.post(RENDER, body)).get("features")
        lengths = _rendered_lengths(features) if isinstance(features, Mapping) else []
        if not isinstance(features, Mapping) or len(lengths) != len(images):
            raise PyVisionError(f"server {url}: renders {len(lengths)} of {len(images)} images")
        for image, length in zip(images, lengths, strict=True):
            if length != num_visual_tokens(image):
                raise PyVisionError(
                    f"server {url}: makes {length} tokens of an image of {image.width} x "
                    f"{image.height}, {num_visual_tokens(image)} here; start it with "
                    f"--mm-processor-kwargs '{json.dumps(asdict(pixels))}'"
                )
        return features


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
        return self._completion(choice, is_cut=_is_cut(params))

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
            self._features = await self.engine.render(images)
            self._num_images = len(images)
        runs = image_runs(token_ids, self.engine.codec.image_pad_id)
        if len(runs) != len(images):
            raise PyVisionError(f"{len(images)} images for {len(runs)} runs of image tokens")
        return {**self._features, "mm_placeholders": {"image": runs}}

    def _completion(self, choice: Mapping[str, object], *, is_cut: bool) -> Completion:
        ids = choice.get("token_ids")
        token_ids = tuple(int(token) for token in ids) if isinstance(ids, list) else ()
        logprobs = _logprobs(choice)
        if len(logprobs) != len(token_ids):
            raise PyVisionError(
                f"server: {len(token_ids)} token ids with {len(logprobs)} log-probs; must be equal"
            )
        if is_cut:
            logprobs = (UNKNOWN_LOGPROB,) * len(token_ids)
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


def _is_cut(params: SamplingParams) -> bool:
    """Whether vLLM's log-probs are of what top-k and top-p leave, not of the whole distribution."""
    return params.temperature > 0 and (params.top_k > 0 or params.top_p < 1)


def _rendered_lengths(features: Mapping[str, object]) -> list[object]:
    """How many tokens each of the rendered images takes."""
    held = features.get("mm_placeholders")
    places = held.get("image") if isinstance(held, Mapping) else None
    return [place.get("length") for place in places] if isinstance(places, list) else []


def _logprobs(choice: Mapping[str, object]) -> tuple[float, ...]:
    held = choice.get("logprobs")
    content = held.get("content") if isinstance(held, Mapping) else None
    entries = content if isinstance(content, list) else []
    return tuple(float(entry["logprob"]) for entry in entries)
