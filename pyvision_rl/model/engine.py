"""What a rollout needs of whatever samples from the policy: tokens in, tokens and log-probs out."""

from __future__ import annotations

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


class Engine(Protocol):
    """Samples completions for many trajectories at once; each `generate` is one turn of one of them.

    Log-probs are those of the distribution sampled from at temperature 1 without limits, that is
    log softmax(logits / temperature) before top-k and top-p; for greedy decoding, of the
    temperature-1 distribution. Vision and padding tokens are never sampled.
    """

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        """Continue `context` by one completion; the same seed and weights give the same tokens."""
        ...
