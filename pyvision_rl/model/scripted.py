"""An engine that plays given texts: oracles, baselines and tests without a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.types import Completion, Context


@dataclass(frozen=True)
class ScriptedEngine:
    """Asks `script` what to write next, given all that was written and seen so far.

    Log-probs are 0: the script was certain. A text beyond `max_tokens` is cut ("length").
    """

    codec: ChatCodec
    script: Callable[[Context], str]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ScriptedEngine]:
        """Open a trajectory; nothing is kept for it."""
        yield self

    async def generate(self, context: Context, params: SamplingParams, *, seed: int) -> Completion:
        """Write the script's next text; `seed` does not matter."""
        token_ids, _ = self.codec.encode_completion(self.script(context))
        cut = token_ids[: params.max_tokens]
        finish = "stop" if len(cut) == len(token_ids) else "length"
        return Completion(cut, (0.0,) * len(cut), self.codec.decode(cut), finish)


def play_texts(codec: ChatCodec, texts: Mapping[str, Sequence[str]]) -> ScriptedEngine:
    """An engine that writes, for each task id, the given texts turn by turn."""
    return ScriptedEngine(codec, lambda context: texts[context.id][len(context.turns)])
