"""Conversations for engine tests: an environment that answers at once, with images or without."""

import numpy as np
from PIL import Image

from pyvision_rl.model.engine import SamplingParams
from pyvision_rl.types import Context, Turn


def picture(seed, width=84, height=84):
    """A noise image, the same for the same arguments."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def answer(codec, completion, seed, first):
    """An observation whose length and images vary with `seed`."""
    images = [
        picture(100 + seed + k, 28 * (1 + seed % 4), 28 * (1 + k + seed % 3))
        for k in range(seed % 3)
    ]
    return codec.observation(completion, "ok " * (seed % 7), images, first, True)


async def play(engine, codec, seed, num_turns=3, params=None, wait=None):
    """A whole conversation; `wait(turn)` is awaited where a tool would run. Returns its turns."""
    params = params or SamplingParams(max_tokens=12 + seed % 9)
    images = [picture(seed // 2, 84, 112)] if seed % 5 else []
    prompt = codec.prompt("find the red tag " * (1 + seed // 2 % 3), images)
    context = Context(str(seed), prompt)
    async with engine.session() as session:
        for turn in range(num_turns):
            completion = await session.generate(context, params, seed=seed * 10 + turn)
            observation = None
            if turn < num_turns - 1:
                if wait:
                    await wait(turn)
                observation = answer(codec, completion, seed + turn, len(context.images))
            context = Context(
                context.id, context.prompt, (*context.turns, Turn(completion, observation))
            )
    return context
