"""Memory of a policy by formula, from a model that is built without its weights (meta device).

Formulas are for transformers' Qwen2.5-VL with scaled dot product attention, which never holds the
scores. `benchmarks/memory_estimate.py` measures what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLTextConfig

from pyvision_rl.model.images import TOKEN_PX
from pyvision_rl.model.inputs import VISUAL_TOKENS_PER_FORWARD
from pyvision_rl.model.kv import SPARE_SHARE
from pyvision_rl.model.loading import check_architecture, checkpoint_folder
from pyvision_rl.model.lora import add_adapters
from pyvision_rl.model.policy import LOGITS_PER_CHUNK, PolicyConfig

FLOAT32 = 4
PATCHES_PER_TOKEN = 4

Optimizer = Literal["adamw", "muon"]


@dataclass(frozen=True)
class Workload:
    """What a stage does with the model at once; 0 tokens: it does not train, or not sample."""

    train_tokens: int = 0
    """Tokens in one forward and backward pass, what conversations have in common once."""
    kv_tokens: int = 0
    """Tokens whose keys and values the engine holds."""
    optimizer: Optimizer = "adamw"
    """Muon keeps one moment of a matrix, AdamW two."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by part. What is transient is not needed at the same time, so the largest counts."""

    parameters: int
    trainable: int
    held: dict[str, int]
    transient: dict[str, int]

    @property
    def total(self) -> int:
        """The peak: all that is held, and the largest of what comes and goes."""
        return sum(self.held.values()) + max(self.transient.values(), default=0)


def build_on_meta(config: PolicyConfig) -> Qwen2_5_VLForConditionalGeneration:
    """The model of a checkpoint, frozen and adapted as configured, without any weight.

    Needs only its config.json; raises InputError or ConfigError where that cannot be used.
    """
    folder = checkpoint_folder(config.model)
    check_architecture(folder)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder))
        model = model.to(getattr(torch, config.dtype))
        model.model.visual.requires_grad_(not config.freeze_vision)
        if config.lora.rank:
            add_adapters(model, config.lora, vision=not config.freeze_vision)
    return model


def estimate_memory(config: PolicyConfig, work: Workload) -> MemoryEstimate:
    """Memory on the policy's device at the peak of a stage."""
    model = build_on_meta(config)
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    size = 2 if config.dtype == "bfloat16" else FLOAT32
    text = model.model.language_model.config
    held = {
        "weights": sum(p.numel() * p.element_size() for p in parameters),
        "vision features": config.feature_cache_mb * 2**20,
    }
    transient = {"vision forward": _vision_forward(model, work, size)}
    if work.train_tokens:
        held["gradients"] = sum(_gradient_bytes(p) for p in trained)
        held["optimizer"] = sum(_optimizer_bytes(p, work.optimizer) for p in trained)
        if config.device != "cpu" and work.optimizer == "adamw":
            # There AdamW steps on all tensors at once, and has one more of each meanwhile.
            transient["optimizer step"] = FLOAT32 * sum(p.numel() for p in trained)
        transient["activations"] = activation_bytes(text, config, work.train_tokens)
        if not config.freeze_vision:
            transient["activations"] += _trained_vision(model, config, work.train_tokens, size)
    if work.kv_tokens:
        tokens = int(work.kv_tokens * SPARE_SHARE)
        transient["KV cache"] = tokens * kv_bytes_per_token(text, size)
    count = sum(p.numel() for p in parameters)
    return MemoryEstimate(count, sum(p.numel() for p in trained), held, transient)


def kv_bytes_per_token(text: Qwen2_5_VLTextConfig, size: int) -> int:
    """Keys and values of one token in all layers."""
    return text.num_hidden_layers * 2 * _kv_heads(text) * _head_size(text) * size


def activation_bytes(text: Qwen2_5_VLTextConfig, config: PolicyConfig, tokens: int) -> int:
    """What a forward pass of the language model keeps for the backward pass, at its peak.

    With checkpointing: the input of every layer, and all of one layer or the logits.
    """
    size = 2 if config.dtype == "bfloat16" else FLOAT32
    layer = tokens * layer_bytes_per_token(text, size, is_adapted=config.lora.rank > 0)
    logits = _logits_bytes(text, tokens)
    if config.gradient_checkpointing:
        # The logits are gone before the last layer is computed again.
        inputs = text.num_hidden_layers * tokens * text.hidden_size * size
        return inputs + max(layer, logits)
    return text.num_hidden_layers * layer + logits


def layer_bytes_per_token(text: Qwen2_5_VLTextConfig, size: int, *, is_adapted: bool) -> int:
    """Tensors that autograd keeps of one decoder layer, by token."""
    hidden = text.hidden_size
    # Each norm: its input in float32, the normalised (for the weight), what the linears read.
    norms = 2 * hidden * (FLOAT32 + (size if is_adapted else 2 * size))
    # q, the output of each row and of all; k and v; cosine and sine of the positions, which newer
    # versions of transformers keep once for all layers.
    attention = (3 * text.num_attention_heads + 2 * _kv_heads(text) + 2) * _head_size(text) * size
    # gate, up, silu(gate), and their product.
    return norms + attention + 4 * text.intermediate_size * size


def _logits_bytes(text: Qwen2_5_VLTextConfig, tokens: int) -> int:
    """Four float32 tensors over the vocabulary: logits, log-probs, and two for the entropy."""
    alive = min(tokens * text.vocab_size, LOGITS_PER_CHUNK)
    return 4 * FLOAT32 * alive


def _gradient_bytes(parameter: torch.Tensor) -> int:
    """The sum over micro-batches in float32, and one pass's own gradient in fewer bits."""
    size = parameter.element_size()
    return parameter.numel() * (FLOAT32 + (size if size < FLOAT32 else 0))


def _optimizer_bytes(parameter: torch.Tensor, optimizer: Optimizer) -> int:
    """Moments in float32, and the float32 master of a weight in fewer bits."""
    moments = 1 if optimizer == "muon" and parameter.ndim == 2 else 2
    master = parameter.element_size() < FLOAT32
    return FLOAT32 * parameter.numel() * (moments + master)


def _vision_layer(model: Qwen2_5_VLForConditionalGeneration, size: int) -> int:
    """Tensors of one vision block by visual token."""
    vision = model.model.visual.config
    hidden, inner = vision.hidden_size, vision.intermediate_size
    norms = 2 * (FLOAT32 + 2 * size) * hidden
    return PATCHES_PER_TOKEN * (norms + 5 * hidden * size + 4 * inner * size)


def _vision_forward(model: Qwen2_5_VLForConditionalGeneration, work: Workload, size: int) -> int:
    tokens = min(VISUAL_TOKENS_PER_FORWARD, work.train_tokens or work.kv_tokens)
    patch = 3 * 2 * (TOKEN_PX // 2) ** 2 * FLOAT32
    return tokens * (_vision_layer(model, size) + PATCHES_PER_TOKEN * patch)


def _trained_vision(
    model: Qwen2_5_VLForConditionalGeneration, config: PolicyConfig, tokens: int, size: int
) -> int:
    """At worst every token of a micro-batch is a visual one."""
    vision = model.model.visual.config
    if config.gradient_checkpointing:
        inputs = vision.depth * PATCHES_PER_TOKEN * vision.hidden_size * size
        return tokens * (inputs + _vision_layer(model, size))
    return tokens * vision.depth * _vision_layer(model, size)


def _head_size(text: Qwen2_5_VLTextConfig) -> int:
    return text.hidden_size // text.num_attention_heads


def _kv_heads(text: Qwen2_5_VLTextConfig) -> int:
    return text.num_key_value_heads or text.num_attention_heads
