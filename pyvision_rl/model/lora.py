"""Low-rank adapters (peft) inside the model: trained instead of it, merged where it is exported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyvision_rl.errors import ConfigError, InputError

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

ADAPTER = "adapter"
"""Folder in a checkpoint that holds the adapters alone, in peft's layout."""

_LANGUAGE = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
_VISION = r"model\.visual\.blocks\.\d+\.(attn|mlp)\.(qkv|proj|gate_proj|up_proj|down_proj)"
_PREFIX = "base_model.model."
_NAME = "default"


@dataclass(frozen=True)
class LoRAConfig:
    """Adapters on every linear layer of the blocks; all other weights stay as they are."""

    rank: int = 0
    """Rank of each update; 0: no adapters, the weights themselves are trained."""
    alpha: int = 32
    """The update is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0:
            raise ConfigError(
                f"lora: rank must not be negative and alpha above 0, got {self.rank}, {self.alpha}"
            )


def add_adapters(
    model: Qwen2_5_VLForConditionalGeneration, config: LoRAConfig, *, vision: bool
) -> None:
    """Put adapters, which change nothing yet, into the model and freeze the rest of it.

    `vision`: into the vision tower too. Adapters have the number format of the weights. Raises
    ConfigError where peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(f"lora needs {error.name}: pip install 'pyvision-rl[lora]'") from None
    adapters = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=f"({_LANGUAGE}|{_VISION})" if vision else _LANGUAGE,
    )
    # peft draws on the CPU, wherever the model lies.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inject_adapter_in_model(adapters, model, adapter_name=_NAME)
    # peft decides by device and version; in fewer bits than float32 the learner keeps masters.
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(model.dtype)


@torch.no_grad()
def merged_state(model: Qwen2_5_VLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The state of the plain model that computes the same, on the CPU; the model is unchanged."""
    from peft.tuners.lora import Linear

    adapted = {name: m for name, m in model.named_modules() if isinstance(m, Linear)}
    state = {}
    for key, value in model.state_dict().items():
        if ".lora_" in key:
            continue
        layer, _, rest = key.partition(".base_layer.")
        if rest == "weight":
            # One layer at a time: all updates together are as large as the model.
            delta = adapted[layer].get_delta_weight(_NAME)
            value = (value.float() + delta.float()).to(value.dtype)
        state[f"{layer}.{rest}" if rest else key] = value.cpu()
    return state


def write_adapters(
    model: Qwen2_5_VLForConditionalGeneration, folder: Path, base_model: str
) -> None:
    """Write the adapters alone as `PeftModel.from_pretrained` reads them."""
    from peft import LoraConfig

    adapters = model.peft_config[_NAME]
    assert isinstance(adapters, LoraConfig), "add_adapters put it there"
    config = {
        **adapters.to_dict(),
        "base_model_name_or_path": base_model,
        "inference_mode": True,
    }
    folder.mkdir()
    text = json.dumps(config, indent=2, default=sorted, sort_keys=True)
    (folder / "adapter_config.json").write_text(text + "\n")
    save_file(
        {_PREFIX + key: value.cpu() for key, value in _adapters(model).items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )


def read_adapters(model: Qwen2_5_VLForConditionalGeneration, folder: Path) -> None:
    """Replace the model's adapters by those of a folder. Raises InputError."""
    path = folder / "adapter_model.safetensors"
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no adapters that load ({error})") from error
    mine = _adapters(model)
    if {_PREFIX + key: value.shape for key, value in mine.items()} != {
        key: value.shape for key, value in saved.items()
    }:
        raise InputError(f"{path}: adapters of other layers or of another rank")
    with torch.no_grad():
        for key, value in mine.items():
            value.copy_(saved[_PREFIX + key])


def _adapters(model: Qwen2_5_VLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The adapters' own tensors by peft's names, without that of the adapter."""
    return {
        key.replace(f".{_NAME}.", "."): value.detach()
        for key, value in model.named_parameters()
        if ".lora_" in key
    }
