"""Drawing tokens: limits on the distribution, one stream of random numbers a request, stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pyvision_rl.model.engine import SamplingParams

DRAWS_PER_BLOCK = 256


class Uniforms:
    """The random numbers of one completion, decided by its seed alone, whatever runs beside it."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._block: list[float] = []

    def draw(self) -> float:
        """The next number in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(DRAWS_PER_BLOCK).tolist()[::-1]
        return self._block.pop()


@dataclass(frozen=True)
class Limits:
    """Sampling parameters of the rows of a batch, as tensors [R] where a row needs them."""

    temperature: Tensor
    is_greedy: Tensor
    top_k: Tensor | None
    top_p: Tensor | None

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocabulary: int, device: torch.device) -> Limits:
        """Collect the rows' parameters; limits that no row sets cost nothing."""
        temperature = torch.tensor([p.temperature for p in params], device=device)
        top_k = torch.tensor([p.top_k or vocabulary for p in params], device=device)
        top_p = torch.tensor([p.top_p for p in params], device=device)
        is_limited = any(p.top_k or p.top_p < 1 for p in params)
        return cls(
            temperature=torch.where(temperature == 0, 1.0, temperature),
            is_greedy=temperature == 0,
            top_k=top_k if is_limited else None,
            top_p=top_p if is_limited else None,
        )


def sample(logits: Tensor, uniforms: Tensor, limits: Limits) -> tuple[Tensor, Tensor]:
    """Draw a token for each row of logits [R, V]; returns tokens and log-probs [R].

    The log-prob is of the whole distribution at the row's temperature, before top-k and top-p.
    A token is found by inverting the cumulative probabilities at the row's uniform number.
    """
    logprobs = (logits / limits.temperature[:, None]).log_softmax(-1)
    # Doubles: in single precision the sum over a large vocabulary misplaces rare tokens.
    probs = logprobs.exp().double()
    if limits.top_k is not None and limits.top_p is not None:
        probs = probs * _allowed(probs, limits.top_k, limits.top_p)
    cumulative = probs.cumsum(-1)
    # Just below the total, so that rounding never reaches past the last possible token.
    target = uniforms * (1 - 1e-12) * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    tokens = torch.where(limits.is_greedy, logits.argmax(-1), drawn)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _allowed(probs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Whether each token [R, V] is among the k likeliest, and of those within the share p."""
    ordered, indices = probs.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(probs.shape[-1], device=probs.device)
    ordered = ordered * (rank < top_k[:, None])
    before = ordered.cumsum(-1) - ordered
    # The likeliest token is always allowed: nothing stands before it.
    kept = (before < top_p[:, None] * ordered.sum(-1, keepdim=True)) & (ordered > 0)
    return torch.zeros_like(kept).scatter(-1, indices, kept)


class StopStrings:
    """Tells when the text of a completion holds a stop string, looking at its last tokens only."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._strings = strings
        self._last = {string[-1] for string in strings}
        # A token is at least one byte, so a string never spans more tokens than it has bytes.
        self.window = max((len(string.encode()) for string in strings), default=0)
        self._may_end: dict[int, bool] = {}

    def ended_by(self, token_ids: list[int]) -> bool:
        """Whether the last of `token_ids`, the completion's last `window`, ends a stop string."""
        if not token_ids:
            return False
        last = token_ids[-1]
        may_end = self._may_end.get(last)
        if may_end is None:
            piece = self._tokenizer.decode([last])
            # A replacement character stands for part of a character, which this token may end.
            may_end = any(char in self._last or char == "\ufffd" for char in piece)
            self._may_end[last] = may_end
        if not may_end:
            return False
        tail = self._tokenizer.decode(token_ids)
        return any(string in tail for string in self._strings)
