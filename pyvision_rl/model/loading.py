"""Reading a checkpoint: every way in which one cannot be used is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Qwen2_5_VLForConditionalGeneration,
)

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import TOKEN_PX
from pyvision_rl.model.tiny import TINY_BASE

TINY = "tiny"
"""Name of the base that the package ships."""


def checkpoint_folder(model: str) -> str:
    """Where a model's files are: a folder or hub id as it is, the shipped base by its name."""
    return str(TINY_BASE) if model == TINY else model


def check_device(device: str) -> None:
    """Raise ConfigError unless `device` exists here."""
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device}: use cpu, cuda or cuda:N") from error
    if wanted.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {device}: use cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if wanted.type == "cuda" and not count:
        raise ConfigError(f"device {device}: no CUDA device here; use cpu")
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        raise ConfigError(f"device {device}: there are {count} here, from cuda:0 on")


def check_architecture(model: str) -> None:
    """Raise InputError unless `model`, a folder or a hub id, is a Qwen2.5-VL that we can run."""
    path = Path(model)
    # Beside a folder that is here, a name that is not is a slip, not a hub id to ask for.
    is_hub_id = len(path.parts) == 2 and not path.is_absolute() and not path.parent.is_dir()
    if not path.is_dir() and not is_hub_id:
        raise InputError(f"model {model}: no such folder, and not a hub id of the form owner/name")
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(f"model {model}: no config.json that loads ({_line(error)})") from error
    if config.model_type != "qwen2_5_vl":
        raise InputError(f"model {model}: is a {config.model_type}, must be a qwen2_5_vl")
    vision = config.vision_config
    if vision.patch_size * vision.spatial_merge_size != TOKEN_PX:
        raise InputError(
            f"model {model}: a visual token covers {vision.patch_size * vision.spatial_merge_size} "
            f"pixels, must be {TOKEN_PX}"
        )
    if "sliding_attention" in config.text_config.layer_types:
        raise InputError(f"model {model}: uses sliding windows, only full attention is supported")


def load_model(
    model: str, dtype: Literal["float32", "bfloat16"], device: str
) -> Qwen2_5_VLForConditionalGeneration:
    """The weights on their device, complete or InputError."""
    try:
        loaded, report = AutoModelForImageTextToText.from_pretrained(
            model,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model {model}: no weights that load ({_line(error)})") from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"model {model}: {len(missing)} weights are missing, as {missing[0]}")
    read_vision_rope(loaded)
    return loaded.to(device)


def read_vision_rope(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Give the vision tower the rotary base of its configuration.

    transformers before 5.11 does not read it and takes 10,000, which is Qwen2.5-VL's own; the
    shipped base has another.
    """
    theta = (getattr(model.config.vision_config, "rope_parameters", None) or {}).get("rope_theta")
    frequencies = model.model.visual.rotary_pos_emb.inv_freq
    if theta is None or frequencies.is_meta:
        return
    exponents = torch.arange(len(frequencies), dtype=torch.float32) / len(frequencies)
    wanted = (float(theta) ** -exponents).to(frequencies.device)
    if not torch.allclose(frequencies, wanted):
        frequencies.copy_(wanted)


def vocabulary_size(model: str) -> int:
    """Ids that a checkpoint's model has, those without a token too. Raises InputError where its
    folder or hub id has no config.json that says so.
    """
    check_architecture(model)
    size: int = AutoConfig.from_pretrained(model).text_config.vocab_size
    return size


def never_written(codec: ChatCodec, vocabulary_size: int) -> tuple[int, ...]:
    """Ids that a policy never writes: special tokens but `<|im_end|>`, and ids without a token."""
    tokenizer = codec.tokenizer
    used = set(tokenizer.get_vocab().values())
    if max(used) >= vocabulary_size:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path}: has token {max(used)}, "
            f"the model only {vocabulary_size} tokens"
        )
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= {*tokenizer.all_special_ids, codec.image_pad_id}
    unused = set(range(vocabulary_size)) - used
    return tuple(sorted((special | unused) - {codec.end_of_turn_id}))


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
