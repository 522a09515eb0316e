"""What the shipped tiny base is, what it can do, and what it must not know."""

import unicodedata
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pyvision_rl.data.needle import KINDS, item_seed, make_item, oracle_turns
from pyvision_rl.data.needle_draw import Pixels, crop_of
from pyvision_rl.model.codec import IMAGE, SYSTEM, observation_text, prompt_text
from pyvision_rl.model.loading import load_model
from pyvision_rl.model.tiny import TINY_BASE, tiny_config

NUM_PROMPTS = 100
OFFER = "Find it with Python if you need to. image_clue_0 is 672 x 672.\n"
OPENING = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    loaded = AutoTokenizer.from_pretrained(TINY_BASE)
    assert isinstance(loaded, PreTrainedTokenizerBase)
    return loaded


@cache
def model():
    return load_model(str(TINY_BASE), "float32", "cpu").eval()


@cache
def processor():
    return Qwen2VLImageProcessorPil.from_pretrained(TINY_BASE)


@cache
def items(kind, count):
    return tuple(make_item(item_seed("test", 9, index), kind) for index in range(count))


def pads(count):
    return f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"


def user(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@torch.no_grad()
def complete(texts, images, **options):
    """Completions of chats whose image marks are filled in; `images` in reading order."""
    tokens = tokenizer()(texts, return_tensors="pt", padding=True, padding_side="left")
    seen = processor()([Image.fromarray(image) for image in images], return_tensors="pt")
    written = model().generate(  # pyrefly: ignore[bad-argument-type] - their types disagree
        **tokens,
        **seen,
        mm_token_type_ids=(tokens.input_ids == model().config.image_token_id).int(),
        max_new_tokens=60,
        **options,
    )
    return tokenizer().batch_decode(
        written[:, tokens.input_ids.shape[1] :], skip_special_tokens=True
    )


def ask(asked, preamble="", **options):
    texts = [
        OPENING + user(prompt_text(preamble + item.question, 1).replace(IMAGE, pads(36)))
        for item in asked
    ]
    return complete(texts, [item.image for item in asked], **options)


def share_right(asked, answers):
    rights = [
        f"\\boxed{{{item.plan.answer}}}" in answer
        for item, answer in zip(asked, answers, strict=True)
    ]
    return sum(rights) / len(rights)


def test_folder_is_small_and_complete():
    names = {path.name for path in TINY_BASE.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "MODEL_CARD.md",
    }
    assert sum(path.stat().st_size for path in TINY_BASE.iterdir()) <= 5_000_000


def test_weights_are_full_precision_and_the_config_is_ours():
    assert {parameter.dtype for parameter in model().parameters()} == {torch.float32}
    ours, shipped = tiny_config(tokenizer()).to_dict(), model().config.to_dict()
    for part in ("text_config", "vision_config"):
        for name in ("rope_parameters", "hidden_size", "fullatt_block_indexes"):
            assert ours[part].get(name) == shipped[part].get(name)
    text = model().config.get_text_config()
    head_dim = text.hidden_size // text.num_attention_heads
    assert sum(text.rope_parameters["mrope_section"]) == head_dim // 2
    assert len(tokenizer()) == text.vocab_size


@given(st.text())
def test_any_text_comes_back(text):
    text = text.replace("<|", "<")
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("word", [*"0123456789", *(f" {digit}" for digit in range(10)), "112"])
def test_numbers_are_single_tokens(word):
    assert len(tokenizer().encode(word)) == 1


def test_protocol_texts_are_short():
    call = oracle_turns(items("one_look", 1)[0].plan)[0]
    assert len(tokenizer().encode(call)) <= 54
    assert len(tokenizer().encode(observation_text("", 1, 1))) <= 30


def test_chat_template_is_that_of_qwen2_5_vl():
    chat: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a "},
                {"type": "image"},
                {"type": "video", "video": "clip.mp4"},
                {"type": "text", "text": "\nb"},
            ],
        },
        {"role": "assistant", "content": "c\n"},
        {"role": "user", "content": "d"},
    ]
    expected = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\na <|vision_start|><|image_pad|><|vision_end|>"
        "<|vision_start|><|video_pad|><|vision_end|>\nb<|im_end|>\n"
        "<|im_start|>assistant\nc\n<|im_end|>\n<|im_start|>user\nd<|im_end|>\n"
    )
    render = partial(tokenizer().apply_chat_template, tokenize=False)
    assert render(chat) == expected
    assert render(chat, add_generation_prompt=True) == expected + "<|im_start|>assistant\n"
    assert render([{"role": "system", "content": "s"}, *chat[2:]]) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nd<|im_end|>\n"
    )


def test_reads_what_is_legible_and_nothing_else():
    easy = items("easy", NUM_PROMPTS)
    assert share_right(easy, ask(easy)) >= 0.95
    # Chance is 0.10; 100 items of each hard kind: 0.25 is 5 standard deviations above it.
    for kind in KINDS[1:]:
        hard = items(kind, NUM_PROMPTS)
        assert share_right(hard, ask(hard)) <= 0.25


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 1.0, "top_k": 0}])
def test_knows_nothing_of_the_agent_protocol(options):
    torch.manual_seed(0)
    asked = items("one_look", NUM_PROMPTS)
    answers = ask(asked, OFFER, **options)
    assert not [a for a in answers if "<code" in a or "interpreter" in a or "```" in a]
    assert sum("\\boxed{" in answer for answer in answers) >= 0.95 * NUM_PROMPTS


def test_follows_a_letter_seen_in_a_crop():
    asked = items("two_looks", 50)
    texts: list[str] = []
    images: list[Pixels] = []
    for item in asked:
        look = item.plan.looks[0]
        place = f"{look.colour} {look.row} {look.column}<|im_end|>\n"
        question = prompt_text(f"Where is the {look.colour} tag?", 1).replace(IMAGE, pads(36))
        shown = observation_text("", 1, 1).replace(IMAGE, pads(9))
        texts.append(OPENING + user(question) + place + user(shown))
        images += [item.image, np.ascontiguousarray(crop_of(item.image, look.row, look.column))]
    answers = complete(texts, images)
    expected = [f"{p.colour} {p.row} {p.column}" for p in (item.plan.looks[1] for item in asked)]
    assert sum(a == e for a, e in zip(answers, expected, strict=True)) >= 0.94 * len(asked)
