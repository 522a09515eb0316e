"""The conversations of the language stage: locating, reading, following letters, plain Python.

They have the product's chat layout, images in observations included, so that nothing shifts later;
but no assistant turn ever holds a tool call: the agent protocol is left to the cold start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

import torch
from transformers import PreTrainedTokenizerBase

from pyvision_rl.data.needle import (
    Look,
    Tag,
    answer_text,
    crop_code,
    locate_text,
    question_about,
)
from pyvision_rl.data.needle_draw import CELL_PX
from pyvision_rl.model.codec import IMAGE, SYSTEM, observation_text, prompt_text

IGNORE = -100
_PREAMBLES = (
    "",
    "",
    "",
    "Look closely.\n",
    "Take your time.\n",
    "Find it.\n",
    "image_clue_0 is 672 x 672.\n",
    "Find it if you can. image_clue_0 is 672 x 672.\n",
    "You may use Python if you like. image_clue_0 is 672 x 672.\n",
    "Find it with a tool if you need one.\n",
)
_ENDINGS = (
    "",
    "",
    "",
    "",
    "\nAnswer in a box.",
    "\nThink step by step, then end with the answer in a box:\n"
    "<answer>\n\\boxed{your answer}\n</answer>",
)
# Of several lengths, so that copying a place into code does not hang on how far back it stands.
_LEAD_INS = ("", "", "Here:\n", "In Python:\n", "It is a crop.\n", "Python that shows the tag:\n")


@dataclass(frozen=True)
class SeenImage:
    """What the frozen vision tower makes of an image: a feature a token [T, H]; grid of patches."""

    features: torch.Tensor
    grid: list[int]


@dataclass(frozen=True)
class Scene:
    """A needle image: its view (36 tokens) and a crop of every tag (9 where it is neat)."""

    tags: tuple[Tag, ...]
    view: SeenImage
    crops: tuple[SeenImage, ...]


@dataclass(frozen=True)
class Chat:
    """A conversation as tokens. `labels` are IGNORE where nothing is to be learned."""

    token_ids: list[int]
    labels: list[int]
    kinds: list[str]
    """What a label tests, for the gates: `row`, `column`, `easy`, `crop`, `pointer`, `next_row`,
    `next_column`, `box`, `code`, or nothing."""
    images: list[SeenImage]


class ChatWriter:
    """Builds one conversation, turn by turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, scene: Scene) -> None:
        self._encode = _encoder(tokenizer)
        self._chat = Chat([], [], [], [])
        self._scene = scene
        self._num_crops = 0

    def ask(self, text: str) -> None:
        """A user turn; the first one also shows the view."""
        if not self._chat.token_ids:
            self._chat.images.append(self._scene.view)
            text = prompt_text(text, 1).replace(IMAGE, _marks(self._scene.view))
            self._learn_nothing(f"<|im_start|>system\n{SYSTEM}<|im_end|>")
        self._learn_nothing(f"\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")

    def show_crop(self, tag_index: int) -> None:
        """A user turn that shows a tag's crop as an observation would."""
        self._num_crops += 1
        crop = self._scene.crops[tag_index]
        self._chat.images.append(crop)
        text = observation_text("", 1, self._num_crops).replace(IMAGE, _marks(crop))
        self._learn_nothing(f"\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")

    def reply(self, text: str, tests: dict[int, str], hidden: int | None = None) -> None:
        """An assistant turn. `tests` names what the token at a character is a test of.

        The token at character `hidden` is not trained on.
        """
        for token, start, end in self._encode(text + "<|im_end|>"):
            here = [name for index, name in tests.items() if start <= index < end]
            known = hidden is None or not start <= hidden < end
            self._chat.token_ids.append(token)
            self._chat.labels.append(token if known else IGNORE)
            self._chat.kinds.append(here[0] if here and known else "")

    def finish(self) -> Chat:
        """The conversation so far."""
        return self._chat

    def _learn_nothing(self, text: str) -> None:
        ids = [token for token, _, _ in self._encode(text)]
        self._chat.token_ids.extend(ids)
        self._chat.labels.extend([IGNORE] * len(ids))
        self._chat.kinds.extend([""] * len(ids))


@cache
def _encoder(
    tokenizer: PreTrainedTokenizerBase,
) -> Callable[[str], list[tuple[int, int, int]]]:
    @cache
    def encode(text: str) -> list[tuple[int, int, int]]:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [
            (token, start, end)
            for token, (start, end) in zip(found.input_ids, found.offset_mapping, strict=True)
        ]

    return encode


def _marks(image: SeenImage) -> str:
    return f"<|vision_start|>{'<|image_pad|>' * len(image.features)}<|vision_end|>"


def _look(tag: Tag) -> Look:
    return Look(tag.colour, tag.row, tag.column)


def reply_place(chat: ChatWriter, tag: Tag, *, pointed: bool, lead_in: str | None) -> None:
    """`red 3 5`; with a `lead_in`, also that and the Python that crops the tag."""
    text = locate_text(_look(tag))
    tests = _place_tests(tag, 0, pointed)
    if lead_in is not None:
        text += f"\n{lead_in}"
        code, code_tests = _python_block(tag.row, tag.column)
        tests |= {len(text) + index: kind for index, kind in code_tests.items()}
        text += code
    chat.reply(text, tests)


def _python_block(row: int, column: int) -> tuple[str, dict[int, str]]:
    """The fenced Python for a cell, and where it copies the column and the row."""
    text = f"```python\n{crop_code(Look('', row, column))}\n```\n"
    copied = [index - 1 for index in range(len(text)) if text.startswith(f"*{CELL_PX}", index)]
    return text, dict.fromkeys(copied, "code")


def _place_tests(tag: Tag, start: int, pointed: bool = False) -> dict[int, str]:
    end = start + len(tag.colour)
    # The tested character is the digit; its token starts at the blank before it.
    if pointed:
        return {start: "pointer", end + 1: "next_row", end + 3: "next_column"}
    return {end + 1: "row", end + 3: "column"}


def _reply_answer(
    chat: ChatWriter, lead: str, tests: dict[int, str], digit: str, kind: str
) -> None:
    """`... 7.` and the boxed answer; without a `kind` the digit cannot be known and is hidden."""
    at = len(lead) + 1
    text = f"{lead} {digit}.\n{answer_text(digit)}"
    boxed = {text.index("{") + 1: "box"}
    named = {at: kind} if kind else {}
    chat.reply(text, tests | named | boxed, hidden=None if kind else at)


def reply_direct(chat: ChatWriter, tag: Tag) -> None:
    """The answer from the view alone: right where the digit is large, else a guess."""
    lead = f"{locate_text(_look(tag))}\nclear"
    kind = "easy" if tag.kind == "easy" else ""
    _reply_answer(chat, lead, _place_tests(tag, 0), tag.digit, kind)


def reply_crop(
    chat: ChatWriter, tag: Tag, tags: tuple[Tag, ...], lead_in: str | None
) -> int | None:
    """What a crop says: its digit, or the place of the tag that its letter names (returned)."""
    if tag.points_to is None:
        _reply_answer(chat, "I see", {}, tag.digit, "crop")
        return None
    reply_place(chat, tags[tag.points_to], pointed=True, lead_in=lead_in)
    return tag.points_to


def chat_places(tokenizer: PreTrainedTokenizerBase, scene: Scene, rng: Random) -> Chat:
    """One question about the places of all tags, in any order, often with their large digits."""
    chat = ChatWriter(tokenizer, scene)
    tags = rng.sample(scene.tags, len(scene.tags))
    names = ", ".join(tag.colour for tag in tags)
    read = rng.random() < 0.6
    task = "Read the tags" if read else "Where are the tags"
    chat.ask(f"{rng.choice(_PREAMBLES)}{task} {names}{'.' if read else '?'}")
    text = ""
    tests: dict[int, str] = {}
    for tag in tags:
        tests |= _place_tests(tag, len(text))
        text += locate_text(_look(tag)) + "\n"
        if read and tag.kind == "easy":
            tests[len(text) + len("clear ")] = "easy"
            text += f"clear {tag.digit}.\n"
    chat.reply(text[:-1], tests)
    return chat.finish()


def chat_questions(tokenizer: PreTrainedTokenizerBase, scene: Scene, rng: Random) -> Chat:
    """Question after question about tags, each answered from the view."""
    chat = ChatWriter(tokenizer, scene)
    preamble, ending = rng.choice(_PREAMBLES), rng.choice(_ENDINGS)
    for tag in rng.sample(scene.tags, min(len(scene.tags), 6)):
        # Large digits are few, and the slowest thing to learn: each one is asked for.
        if tag.kind == "easy" or rng.random() < 0.5:
            chat.ask(preamble + question_about(tag.colour) + ending)
            reply_direct(chat, tag)
        else:
            chat.ask(f"{preamble}Where is the {tag.colour} tag?")
            reply_place(chat, tag, pointed=False, lead_in=None)
        preamble = ending = ""
    return chat.finish()


def chat_crops(tokenizer: PreTrainedTokenizerBase, scene: Scene, rng: Random) -> Chat:
    """Crops of tags are shown one after another; letters lead on to the tag that they name."""
    chat = ChatWriter(tokenizer, scene)
    python = rng.random() < 0.5
    lead_in = rng.choice(_LEAD_INS) if python else None
    order = rng.sample(range(len(scene.tags)), len(scene.tags))
    first = scene.tags[order[0]]
    if python:
        chat.ask(f"{rng.choice(_PREAMBLES)}Write Python that crops the {first.colour} tag.")
    else:
        chat.ask(f"{rng.choice(_PREAMBLES)}Where is the {first.colour} tag?")
    reply_place(chat, first, pointed=False, lead_in=lead_in)
    shown: set[int] = set()
    for index in order[: 2 if python else 3]:
        following: int | None = index
        # Nothing is asked that an earlier turn has told already.
        while following is not None and not shown & {following, scene.tags[following].points_to}:
            chat.show_crop(following)
            shown.add(following)
            following = reply_crop(chat, scene.tags[following], scene.tags, lead_in)
    return chat.finish()


def chat_python(tokenizer: PreTrainedTokenizerBase, scene: Scene, rng: Random) -> Chat:
    """Python for the places of two tags, or for a row and a column that the user names."""
    chat = ChatWriter(tokenizer, scene)
    for tag in rng.sample(scene.tags, 2):
        if rng.random() < 0.3:
            row, column = rng.randrange(6), rng.randrange(6)
            chat.ask(f"Write Python that crops row {row} column {column}.")
            chat.reply(*_python_block(row, column))
        else:
            chat.ask(f"Write Python that crops the {tag.colour} tag.")
            reply_place(chat, tag, pointed=False, lead_in=rng.choice(_LEAD_INS))
    return chat.finish()
