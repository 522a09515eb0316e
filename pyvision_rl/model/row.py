"""One completion in the making: its tokens, where they stand, and its stream of random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL.Image import Image

from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.model.inputs import image_key, mrope_positions
from pyvision_rl.model.sampling import Uniforms
from pyvision_rl.types import Context


@dataclass(eq=False)
class Row:
    """A completion in the making.

    `session` names what may be kept between turns. `token_ids` are the context and what was
    sampled; the first `length` of them are in the cache. `places` [3, T] are the context's
    positions. `is_opening`: other rows may begin with the very same context.
    """

    session: int
    token_ids: list[int]
    images: tuple[Image, ...]
    places: np.ndarray
    params: SamplingParams
    uniforms: Uniforms
    is_opening: bool
    logprobs: list[float] = field(default_factory=list)
    length: int = 0

    @classmethod
    def of(
        cls, session: int, context: Context, params: SamplingParams, seed: int, image_pad_id: int
    ) -> Row:
        """A row ready to join. Raises InputError where tokens and images disagree."""
        token_ids, images = list(context.token_ids), context.images
        places = mrope_positions(token_ids, images, image_pad_id)
        uniforms = Uniforms(seed)
        return cls(session, token_ids, images, places, params, uniforms, not context.turns)

    @cached_property
    def opening(self) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        """Equal for rows whose contexts are equal in tokens and images."""
        return tuple(self.token_ids), tuple(map(image_key, self.images))

    @property
    def sampled(self) -> list[int]:
        """What the policy has written so far."""
        return self.token_ids[self.places.shape[1] :]

    def sampled_tail(self, size: int) -> list[int]:
        """The last `size` tokens, or fewer, of what the policy has written so far."""
        return self.token_ids[max(self.places.shape[1], len(self.token_ids) - size) :]

    @property
    def next_place(self) -> int:
        """Position of the token that comes next, the same in all three dimensions."""
        return self._context_end + len(self.logprobs)

    @cached_property
    def _context_end(self) -> int:
        return int(self.places.max()) + 1

    def places_from(self, start: int) -> np.ndarray:
        """Positions [3, Q] of all tokens from `start` on."""
        stop = self.next_place
        written = np.arange(stop - len(self.logprobs), stop)
        places = np.concatenate([self.places, np.broadcast_to(written, (3, len(written)))], axis=1)
        return places[:, start:]
