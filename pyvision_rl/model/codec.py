"""The one place where conversations become token ids, for SFT, RL, evaluation and export alike.

The layout is that of the released SFT data (Qwen2.5-VL chat, images named `<image_clue_k>`,
observations in `<tool_response><interpreter>`): trajectories, cold-start traces and the
tokenizer's own chat template give the same ids. Knows nothing of tools, tasks or weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pyvision_rl.errors import InputError
from pyvision_rl.model.images import PixelLimits, fit_image, num_visual_tokens
from pyvision_rl.types import Completion, Observation

SYSTEM = "You are a helpful assistant."
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


def image_tags(names: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Each image's content between tags that carry its name in the runtime."""
    return [f"<{name}>{content}</{name}>" for name, content in zip(names, contents, strict=True)]


def clue_names(first: int, count: int) -> list[str]:
    """Names of `count` images of a trajectory, counted from `first`: `image_clue_0` ..."""
    return [f"image_clue_{index}" for index in range(first, first + count)]


def prompt_text(text: str, images: Sequence[str]) -> str:
    """A task's user message: the given images, each in its tag, then the text."""
    tags = image_tags(clue_names(0, len(images)), images)
    return "\n".join(tags) + "\n\n" + text if tags else text


def observation_text(output: str, images: Sequence[str], first: int) -> str:
    """A user message that shows what code printed and drew; images are named from `first`."""
    if images:
        tags = "\n".join(image_tags(clue_names(first, len(images)), images))
        body = f"<interpreter>Text Result:\n{output}\nImage Result:\n{tags}</interpreter>\n"
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
        special = sorted((t for t in tokenizer.all_special_tokens), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, {*special, *REQUIRED_TOKENS})))
        self._opened = tuple(self._encode("<|im_start|>assistant\n"))

    @classmethod
    def from_folder(cls, folder: str | Path, pixels: PixelLimits) -> ChatCodec:
        """Load the tokenizer of a checkpoint in Hugging Face layout (folder or hub id)."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"model {folder}: no tokenizer that loads ({reason})") from error
        return cls(tokenizer, pixels)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def escape(self, text: str) -> str:
        """The text with special tokens broken up, so that it can never act as markup.

        Broken in the text itself, not only in the encoding: whatever tokenizes it later, a server
        or an export, sees no special token either. `<image>` and `<video>` are placeholders of
        data files.
        """
        text = self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return re.sub(r"<(image|video)>", r"< \1>", text)

    def _pads(self, images: Sequence[Image]) -> list[str]:
        return [
            f"<|vision_start|>{IMAGE_PAD * num_visual_tokens(image)}<|vision_end|>"
            for image in images
        ]

    def prompt(self, text: str, images: Sequence[Image]) -> Observation:
        """The opening of an episode: system line, one user message, the assistant's turn begun.

        `images` are fitted to the pixel limits here; `text` is escaped.
        """
        fitted = tuple(fit_image(image, self.pixels) for image in images)
        text = self.escape(text)
        message = prompt_text(text, self._pads(fitted))
        ids = self._encode(
            f"<|im_start|>system\n{SYSTEM}{END_OF_TURN}\n<|im_start|>user\n{message}{END_OF_TURN}\n"
        )
        return Observation(
            token_ids=(*ids, *self._opened),
            text=prompt_text(text, [""] * len(fitted)),
            images=fitted,
            num_visual_tokens=sum(map(num_visual_tokens, fitted)),
        )

    def observation(
        self, completion: Completion, output: str, images: Sequence[Image], first: int, ok: bool
    ) -> Observation:
        """What follows `completion`: its turn closed, the user message, the next turn begun.

        An engine that stopped at `</code>` did not sample `<|im_end|>`; it is then added here, as a
        token that is not the policy's.
        """
        fitted = tuple(fit_image(image, self.pixels) for image in images)
        output = self.escape(output)
        message = observation_text(output, self._pads(fitted), first)
        closed = completion.token_ids[-1:] == (self.end_of_turn_id,)
        close = "" if closed else END_OF_TURN
        ids = self._encode(f"{close}\n<|im_start|>user\n{message}{END_OF_TURN}\n")
        return Observation(
            token_ids=(*ids, *self._opened),
            text=observation_text(output, [""] * len(fitted), first),
            images=fitted,
            num_visual_tokens=sum(map(num_visual_tokens, fitted)),
            ok=ok,
        )

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """Ids of an assistant turn as a trace has it, `<|im_end|>` included."""
        return (*self._encode(self.escape(text)), self.end_of_turn_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without the end-of-turn token."""
        if token_ids and token_ids[-1] == self.end_of_turn_id:
            token_ids = token_ids[:-1]
        return self.tokenizer.decode(token_ids, skip_special_tokens=False)
