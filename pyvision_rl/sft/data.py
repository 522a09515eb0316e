"""Traces as samples: the same tokens that an episode with these texts would have."""

from __future__ import annotations

import random

from PIL.Image import Image

from pyvision_rl.data.media import load_image
from pyvision_rl.data.traces import Message, Trace
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.codec import IMAGE, SYSTEM, ChatCodec
from pyvision_rl.rollout.seeds import derive_seed


def encode_trace(trace: Trace, codec: ChatCodec) -> Sample:
    """Token ids of a trace; the loss mask is 1 on assistant text and its end-of-turn token.

    Excluded spans are masked out. `logprobs` are 0 and the advantage is 1: nothing was sampled.
    Raises InputError for an image that cannot be read.
    """
    images = iter([load_image(path) for path in trace.images])
    messages = list(enumerate(trace.messages))
    system = SYSTEM
    if messages[0][1].role == "system":
        system = messages.pop(0)[1].text
    token_ids: list[int] = []
    mask: list[int] = []
    seen: list[Image] = []
    for index, message in messages:
        if message.role == "assistant":
            spans = [(s.start, s.end) for s in trace.excluded if s.message == index]
            ids, learn = codec.encode_completion(message.text, spans)
            mask += map(int, learn)
        else:
            shown = [next(images) for _ in range(message.num_images)]
            text = _user_text(message)
            observation = (
                codec.continue_conversation(text, shown, closed=True)
                if token_ids
                else codec.open_conversation(text, shown, system)
            )
            ids = observation.token_ids
            mask += [0] * len(ids)
            seen += observation.images
        token_ids += ids
    zeros = (0.0,) * len(token_ids)
    return Sample(tuple(token_ids), tuple(mask), zeros, 1.0, tuple(seen))


def _user_text(message: Message) -> str:
    """The message as the chat shows it: the observation role wraps its content."""
    text = IMAGE.join(message.parts)
    if message.role == "observation":
        return f"<tool_response>\n{text}\n</tool_response>"
    return text


def epoch_batches(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of one epoch's batches, shuffled.

    Not sorted by length: length tells how often a trace looks, and a batch of one kind pulls the
    policy's decision to that kind. Padding is saved where batches are cut into micro-batches.
    """
    order = list(range(num_samples))
    random.Random(derive_seed(seed, "sft", epoch)).shuffle(order)
    return [order[at : at + batch_size] for at in range(0, num_samples, batch_size)]
