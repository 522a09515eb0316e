"""Traces as samples: the same tokens that an episode with these texts would have."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from PIL.Image import Image

from pyvision_rl.data.media import load_image
from pyvision_rl.data.traces import VIDEO, Message, Trace
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.codec import IMAGE, SYSTEM, ChatCodec
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.rollout.videos import FramesConfig, open_video

ON_DEMAND = FramesConfig()


def encode_trace(trace: Trace, codec: ChatCodec, frames: FramesConfig = ON_DEMAND) -> Sample:
    """Token ids of a trace; the loss mask is 1 on assistant text and its end-of-turn token.

    A `<video>` becomes the frames that the context has; where it has none, by default, its name in
    the runtime, or nothing at the end of a line. Excluded spans are masked out. `logprobs` are 0
    and the advantage is 1: nothing was sampled. Raises InputError for an image or video that cannot
    be read.
    """
    media = _Media(trace, frames)
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
            text, shown = media.show(message)
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


class _Media:
    """Images and frames of a trace in the order in which its messages name them."""

    def __init__(self, trace: Trace, frames: FramesConfig) -> None:
        self._images = iter([load_image(path) for path in trace.images])
        self._videos: Iterator[tuple[str, list[Image]]] = (
            (f"<video_clue_{number}>", list(open_video(path, frames).frames()))
            for number, path in enumerate(trace.videos)
        )
        self._marks = re.compile(f"{IMAGE}|{VIDEO}\n?" if trace.videos else IMAGE)

    def show(self, message: Message) -> tuple[str, list[Image]]:
        """The message as the chat has it, each image an `<image>`; an observation is wrapped."""
        shown: list[Image] = []

        def take(mark: re.Match[str]) -> str:
            if mark[0] == IMAGE:
                shown.append(next(self._images))
                return IMAGE
            (name, frames), line_end = next(self._videos), mark[0].removeprefix(VIDEO)
            shown.extend(frames)
            if frames:
                return IMAGE * len(frames) + line_end
            return "" if line_end else name

        text = self._marks.sub(take, IMAGE.join(message.parts))
        if message.role == "observation":
            return f"<tool_response>\n{text}\n</tool_response>", shown
        return text, shown


def epoch_batches(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of one epoch's batches, shuffled.

    Not sorted by length: length tells how often a trace looks, and a batch of one kind pulls the
    policy's decision to that kind. Padding is saved where batches are cut into micro-batches.
    """
    order = list(range(num_samples))
    random.Random(derive_seed(seed, "sft", epoch)).shuffle(order)
    return [order[at : at + batch_size] for at in range(0, num_samples, batch_size)]
