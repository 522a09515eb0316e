"""The one place where conversations become token ids, for SFT, RL, evaluation and export alike.

The layout is that of the released SFT data (Qwen2.5-VL chat, images named `<image_clue_k>`,
observations in `<tool_response><interpreter>`): trajectories, cold-start traces and the
tokenizer's own chat template give the same ids. Knows nothing of tools, tasks or weights.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pyvision_rl.errors import InputError
from pyvision_rl.model.images import PixelLimits, fit_image, num_visual_tokens
from pyvision_rl.types import Completion, Observation

SYSTEM = "You are a helpful assistant."
IMAGE = "<image>"
"""Stands for an image in the text of a message, as in the released data files."""
IMAGE_PAD = "<|image_pad|>"
END_OF_TURN = "<|im_end|>"
REQUIRED_TOKENS = (
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    IMAGE_PAD,
    "<|video_pad|>",
)


def _image_tags(first: int, count: int) -> str:
    """`count` image placeholders, each between tags that carry the image's name in the runtime."""
    names = [f"image_clue_{index}" for index in range(first, first + count)]
    return "\n".join(f"<{name}>{IMAGE}</{name}>" for name in names)


def prompt_text(text: str, num_images: int, first: int = 0, num_unnamed: int = 0) -> str:
    """A task's user message: the given images, each in its tag, those without a name, the text."""
    parts = (_image_tags(first, num_images), IMAGE * num_unnamed)
    shown = "\n".join(part for part in parts if part)
    return f"{shown}\n\n{text}" if shown else text


def observation_text(output: str, num_images: int, first: int) -> str:
    """A user message that shows what code printed and drew; images are named from `first`."""
    if num_images:
        shown = f"{output}\nImage Result:\n{_image_tags(first, num_images)}"
        body = f"<interpreter>Text Result:\n{shown}</interpreter>\n"
    else:
        body = f"<interpreter>\nText Result:\n{output}</interpreter>\n"
    return f"<tool_response>\n{body}\n</tool_response>"


class ChatCodec:
    """Turns prompts and observations into token ids, and completions into text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pixels: PixelLimits) -> None:
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in REQUIRED_TOKENS if token not in vocabulary]
        if missing:
            raise InputError(
                f"tokenizer {tokenizer.name_or_path}: no token {missing[0]}; "
                "a Qwen2.5-VL tokenizer is needed"
            )
        self.tokenizer = tokenizer
        self.pixels = pixels
        self.end_of_turn_id: int = vocabulary[END_OF_TURN]
        self.image_pad_id: int = vocabulary[IMAGE_PAD]
        special = sorted({*tokenizer.all_special_tokens, *REQUIRED_TOKENS}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)))

    @classmethod
    def from_folder(cls, folder: str | Path, pixels: PixelLimits) -> ChatCodec:
        """Load the tokenizer of a checkpoint in Hugging Face layout (folder or hub id)."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"model {folder}: no tokenizer that loads ({reason})") from error
        if tokenizer is None:
            raise InputError(f"model {folder}: no tokenizer")
        return cls(tokenizer, pixels)

    def escape(self, text: str) -> str:
        """The text with special tokens broken up, so that it can never act as markup.

        Broken in the text itself, not only in the encoding: whatever tokenizes it later, a server
        or an export, sees no special token either. `<image>` and `<video>` are placeholders of
        data files.
        """
        return re.sub(r"<(image|video)>", r"< \1>", self.defuse(text))

    def defuse(self, text: str) -> str:
        """The text with special tokens broken up, placeholders left as they are."""
        return self._special.sub(_break_up, text)

    def prompt(
        self, text: str, images: Sequence[Image], first: int = 0, unnamed: Sequence[Image] = ()
    ) -> Observation:
        """The opening of an episode: system line, one user message, the assistant's turn begun.

        Images are named from `image_clue_{first}`; the `unnamed` follow without tags. All are
        fitted to the pixel limits here; `text` is escaped.
        """
        message = prompt_text(self.escape(text), len(images), first, len(unnamed))
        return self.open_conversation(message, (*images, *unnamed))

    def observation(
        self, completion: Completion, output: str, images: Sequence[Image], first: int, ok: bool
    ) -> Observation:
        """What follows `completion`: its turn closed, the user message, the next turn begun.

        An engine that stopped at `</code>` did not sample `<|im_end|>`; it is then added here, as a
        token that is not the policy's. Images are named from `image_clue_{first}`.
        """
        message = observation_text(self.escape(output), len(images), first)
        closed = completion.token_ids[-1:] == (self.end_of_turn_id,)
        return self.continue_conversation(message, images, closed=closed, ok=ok)

    def open_conversation(
        self, message: str, images: Sequence[Image], system: str = SYSTEM
    ) -> Observation:
        """A first user message as written, `<image>` standing for each of the images."""
        lead = f"<|im_start|>system\n{self.defuse(system)}{END_OF_TURN}\n"
        return self._user(lead, message, images, ok=True)

    def continue_conversation(
        self, message: str, images: Sequence[Image], *, closed: bool, ok: bool = True
    ) -> Observation:
        """A later user message; `closed`: the turn before it already ends with `<|im_end|>`."""
        return self._user("\n" if closed else f"{END_OF_TURN}\n", message, images, ok=ok)

    def _user(self, lead: str, message: str, images: Sequence[Image], *, ok: bool) -> Observation:
        parts = self.defuse(message).split(IMAGE)
        if len(parts) != len(images) + 1:
            raise InputError(
                f"message has {len(parts) - 1} {IMAGE} for {len(images)} images: {message[:80]!r}"
            )
        fitted = tuple(fit_image(image, self.pixels) for image in images)
        counts = [num_visual_tokens(image) for image in fitted]
        text = parts[0] + "".join(
            f"<|vision_start|>{IMAGE_PAD * count}<|vision_end|>{part}"
            for count, part in zip(counts, parts[1:], strict=True)
        )
        opened = f"{lead}<|im_start|>user\n{text}{END_OF_TURN}\n<|im_start|>assistant\n"
        token_ids = self.tokenizer.encode(opened, add_special_tokens=False)
        return Observation(tuple(token_ids), message, fitted, sum(counts), ok)

    def encode_completion(
        self, text: str, excluded: Sequence[tuple[int, int]] = ()
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Ids of an assistant turn as a trace has it, `<|im_end|>` included, and the loss mask.

        Tokens that touch one of the `excluded` character spans of `text` are masked out.
        """
        breaks = [mark.start() for mark in self._special.finditer(text)]
        spans = [
            (start + bisect_left(breaks, start), end + bisect_left(breaks, end - 1))
            for start, end in excluded
        ]
        encoded = self.tokenizer(
            self.defuse(text),
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        mask = [
            not any(begin < stop and start < end for start, stop in spans)
            for begin, end in encoded["offset_mapping"]
        ]
        return (*encoded["input_ids"], self.end_of_turn_id), (*mask, True)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without the end-of-turn token."""
        if token_ids and token_ids[-1] == self.end_of_turn_id:
            token_ids = token_ids[:-1]
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=False))


def _break_up(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"
