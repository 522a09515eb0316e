"""Traces as samples: the same tokens that an episode with these texts would have."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from PIL.Image import Image

from pyvision_rl.data.media import load_image
from pyvision_rl.data.traces import VIDEO, Message, Role, Span, Trace
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.codec import IMAGE, SYSTEM, ChatCodec
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.rollout.videos import FramesConfig, open_video

ON_DEMAND = FramesConfig()
MEMORY_BYTES = 2**31
"""Samples that are held at once; the images of a large data set would not fit."""
TOKEN_BYTES = 64
"""What a token of a sample takes: an int, and its place in three tuples."""


@dataclass(frozen=True)
class ShownMessage:
    """A message as the chat has it: each of its images an `<image>` in the text, observations
    wrapped as user messages. `number` is its place in the trace.
    """

    number: int
    role: Role
    text: str
    images: tuple[Image, ...] = ()


def show_messages(trace: Trace, frames: FramesConfig = ON_DEMAND) -> list[ShownMessage]:
    """The messages of a trace with their images read.

    A `<video>` becomes the frames that the context has; where it has none, by default, its name in
    the runtime, or nothing at the end of a line. Raises InputError for an image or video that
    cannot be read.
    """
    media = _Media(trace, frames)
    shown = []
    for number, message in enumerate(trace.messages):
        if message.role in ("system", "assistant"):
            shown.append(ShownMessage(number, message.role, message.text))
        else:
            text, images = media.show(message)
            shown.append(ShownMessage(number, "user", text, tuple(images)))
    return shown


def encode_trace(trace: Trace, codec: ChatCodec, frames: FramesConfig = ON_DEMAND) -> Sample:
    """Token ids of a trace as `show_messages` has it; the loss mask is 1 on assistant text and its
    end-of-turn token.

    Excluded spans are masked out. `logprobs` are 0 and the advantage is 1: nothing was sampled.
    """
    return encode_messages(show_messages(trace, frames), trace.excluded, codec)


def encode_messages(
    messages: Sequence[ShownMessage], excluded: Sequence[Span], codec: ChatCodec
) -> Sample:
    """The sample of messages that begin with a user's, or with a system line and a user's."""
    system = SYSTEM
    token_ids: list[int] = []
    mask: list[int] = []
    seen: list[Image] = []
    for message in messages:
        if message.role == "system":
            system = message.text
            continue
        if message.role == "assistant":
            spans = [(s.start, s.end) for s in excluded if s.message == message.number]
            ids, learn = codec.encode_completion(message.text, spans)
            mask += map(int, learn)
        else:
            observation = (
                codec.continue_conversation(message.text, message.images, closed=True)
                if token_ids
                else codec.open_conversation(message.text, message.images, system)
            )
            ids = observation.token_ids
            mask += [0] * len(ids)
            seen += observation.images
        token_ids += ids
    zeros = (0.0,) * len(token_ids)
    return Sample(tuple(token_ids), tuple(mask), zeros, 1.0, tuple(seen))


class TraceSamples(Sequence[Sample]):
    """The samples of traces. All are encoded once, so that a bad one is found before training; the
    first `max_bytes` of them are held, the others encoded again when they are needed.
    """

    def __init__(
        self,
        traces: Sequence[Trace],
        encode: Callable[[int, Trace], Sample],
        max_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._traces = traces
        self._encode = encode
        self._held: dict[int, Sample] = {}
        for row, trace in enumerate(traces):
            sample = encode(row, trace)
            max_bytes -= num_bytes(sample)
            if max_bytes >= 0:
                self._held[row] = sample

    def __len__(self) -> int:
        return len(self._traces)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        rows = range(len(self))[index]
        return self._sample(rows) if isinstance(rows, int) else [self._sample(row) for row in rows]

    def _sample(self, row: int) -> Sample:
        return self._held.get(row) or self._encode(row, self._traces[row])


def num_bytes(sample: Sample) -> int:
    """About what a sample takes in memory."""
    pixels = sum(image.width * image.height for image in sample.images)
    return 3 * pixels + TOKEN_BYTES * len(sample.token_ids)


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
