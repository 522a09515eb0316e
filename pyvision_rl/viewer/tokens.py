"""The tokens of a trajectory as text: what was sampled, with its log-probs, and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import yaml
from tokenizers import Tokenizer

from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunReader
from pyvision_rl.runs.config import resolve_model
from pyvision_rl.runs.schema import StoredTrajectory

_FILE = "tokenizer.json"
_MANY = 8
_SHIPPED = {"tiny": Path(__file__).parents[1] / "model" / "tiny_base"}


@dataclass(frozen=True)
class TokenRun:
    """Tokens that were all sampled or all not (`logprobs` empty): prompt, completion, observation.

    A token repeated many times, as image places are, is one text and its `counts` entry.
    """

    texts: tuple[str, ...]
    token_ids: tuple[int, ...]
    counts: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class TokenView:
    """Prompt first, then for each turn its completion and, where there is one, its observation.

    `known`: a tokenizer was found; else the texts are the ids.
    """

    runs: tuple[TokenRun, ...]
    known: bool


class TokenReader:
    """Turns ids into text with the tokenizer of a run, looked for once; `known`: there is one."""

    def __init__(self, reader: RunReader) -> None:
        folder = _tokenizer_folder(reader)
        self._tokenizer = Tokenizer.from_file(str(folder / _FILE)) if folder else None
        self.known = folder is not None
        self._text = lru_cache(maxsize=200_000)(self._decode)

    def view(self, trajectory: StoredTrajectory) -> TokenView:
        """All tokens of a trajectory in the order in which the policy saw them."""
        runs = [self._given(trajectory.prompt.token_ids)]
        for turn in trajectory.turns:
            texts = tuple(map(self._text, turn.token_ids))
            ones = (1,) * len(texts)
            runs.append(TokenRun(texts, turn.token_ids, ones, turn.logprobs))
            if turn.observation:
                runs.append(self._given(turn.observation.token_ids))
        return TokenView(tuple(runs), self.known)

    def _given(self, token_ids: Sequence[int]) -> TokenRun:
        runs: list[tuple[int, int]] = []
        for token_id, same in groupby(token_ids):
            count = sum(1 for _ in same)
            runs += [(token_id, count)] if count >= _MANY else [(token_id, 1)] * count
        return TokenRun(
            texts=tuple(self._text(token_id) for token_id, _ in runs),
            token_ids=tuple(token_id for token_id, _ in runs),
            counts=tuple(count for _, count in runs),
            logprobs=(),
        )

    def _decode(self, token_id: int) -> str:
        if self._tokenizer is None:
            return str(token_id)
        return self._tokenizer.decode([token_id], skip_special_tokens=False)


def _tokenizer_folder(reader: RunReader) -> Path | None:
    """The run's newest checkpoint, else the model that its configuration names."""
    candidates = [checkpoint.path for checkpoint in reversed(reader.checkpoints())]
    try:
        config = yaml.safe_load(reader.config_yaml)
    except (InputError, yaml.YAMLError):
        config = None  # then the tokens are shown by their ids
    policy = config.get("policy") if isinstance(config, dict) else None
    model = policy.get("model") if isinstance(policy, dict) else None
    if isinstance(model, str):
        candidates.append(_SHIPPED.get(model) or _model_folder(model))
    return next((path for path in candidates if (path / _FILE).is_file()), None)


def _model_folder(model: str) -> Path:
    try:
        return Path(resolve_model(model))
    except InputError:
        return Path(model)
