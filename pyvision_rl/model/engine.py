"""What a rollout needs of whatever samples from the policy: tokens in, tokens and log-probs out."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pyvision_rl.types import Completion, Context


@dataclass(frozen=True)
class SamplingParams:
    """How one completion is drawn.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 switch those limits off. `max_tokens` bounds
    this completion alone. A completion ends with the end-of-turn token or once its text holds one
    of `stop`, which is kept.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ("</code>",)


class Session(Protocol):
    """One trajectory's use of an engine, which may keep what it computed for earlier turns."""

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        """Continue `context`, which only ever grows, by one completion.

        Log-probs are log softmax(logits / temperature) of the sampled tokens, before top-k and
        top-p; where temperature is 0, of the temperature-1 distribution.
        Vision and padding tokens are never sampled. `seed` alone decides the random numbers.
        """
        ...


class Engine(Protocol):
    """Samples completions for many trajectories at once."""

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Open a trajectory; what is kept for it is freed when the context ends."""
        ...
