"""Fixtures that several rooms share: a small checkpoint, its codec, an image file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.tiny import tiny_config, train_tokenizer

CORPUS = ["find the red tag. I see 0 1 2 3 4 5 6 7 8 9 </code> image_clue_0 <answer>"]


@pytest.fixture(scope="session")
def tiny_random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen2.5-VL with random weights, so wide that no choice is clear."""
    folder = tmp_path_factory.mktemp("tiny_random")
    tokenizer = train_tokenizer(CORPUS, 320)
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def codec() -> ChatCodec:
    """The chat codec on a tokenizer that knows few words and every byte."""
    return ChatCodec(train_tokenizer(CORPUS, 320), PixelLimits(784, 28224))


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    """A 200 x 100 picture with a gradient."""
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((200, 100)).convert("RGB").save(path)
    return path
