"""The tiny model that benchmarks run on."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.tiny import tiny_config, train_tokenizer
from pyvision_rl.runs.config import resolve_model

CORPUS = ["find the red tag, which digit is on it? plt.imshow(image_clue_0.crop()) </code>"]


def shipped_policy() -> Policy:
    """The shipped base, with the tiny recipe's limits of pixels."""
    return Policy.load(PolicyConfig(resolve_model("tiny"), PixelLimits(3136, 28224)))


def random_policy(folder: Path) -> Policy:
    """The tiny architecture with random weights, which rarely stop by themselves."""
    tokenizer = train_tokenizer(CORPUS, 450)
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Policy.load(PolicyConfig(str(folder)))
