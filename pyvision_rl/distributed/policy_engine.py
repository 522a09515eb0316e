"""verl's FSDP engine with our policy: the same distribution, and patches made from images.

Imported by each of verl's workers, which pick an engine by the environment variable that the
mapping sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from PIL.Image import Image
from tensordict import NonTensorData, TensorDict
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from verl.utils.tensordict_utils import nested_tensor_from_tensor_list
from verl.utils.transformers_compat import unpack_visual_output
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import FSDPEngineWithLMHead

from pyvision_rl.distributed.mapping import FREEZE_VISION, TRAIN_ALL
from pyvision_rl.distributed.rows import IMAGES, MEDIA, POSITIONS
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.inputs import make_patches
from pyvision_rl.model.loading import never_written, read_vision_rope
from pyvision_rl.model.policy import BANNED_LOGIT

DEVICES = ["cuda", "cpu", "npu"]
ENTROPY_TOKENS = 1024
"""Tokens whose whole distributions are held in float32 at once."""


class ModelOutput(Protocol):
    """What the model gives."""

    logits: Tensor


@EngineRegistry.register("language_model", "fsdp2", DEVICES, TRAIN_ALL)
class PolicyEngine(FSDPEngineWithLMHead):
    """Gives what a policy never writes probability 0, and takes images as images."""

    def _build_module(self) -> Qwen2_5_VLForConditionalGeneration:
        module = super()._build_module()
        read_vision_rope(module)
        codec = ChatCodec(self.model_config.tokenizer, PixelLimits())
        banned = torch.tensor(never_written(codec, module.lm_head.out_features))

        def restrict(_head: nn.Module, _inputs: object, logits: Tensor) -> Tensor:
            return restricted(logits, banned.to(logits.device))

        def unpack(_tower: nn.Module, _inputs: object, output: object) -> Tensor:
            return unpack_visual_output(output)[0]

        module.lm_head.register_forward_hook(restrict)
        # verl computes with what the tower returns where no row of a micro-batch has an image.
        module.model.visual.register_forward_hook(unpack)
        return module

    def prepare_model_inputs(
        self, micro_batch: TensorDict
    ) -> tuple[dict[str, Tensor], dict[str, object]]:
        """As verl does it, with our positions, and the patches of all rows' images in order."""
        rows = micro_batch.exclude(MEDIA, POSITIONS)
        # verl wants [4, T] of each row.
        positions = [of_row.T for of_row in micro_batch[POSITIONS].unbind()]
        rows["position_ids"] = nested_tensor_from_tensor_list(positions)
        inputs, outputs = super().prepare_model_inputs(rows)
        images = images_of(micro_batch[MEDIA])
        if images:
            # Sizes are final: the processor's own pixel limits are never asked.
            patches, grids = make_patches(Qwen2VLImageProcessorPil(), images)
            device = inputs["input_ids"].device
            inputs |= {"pixel_values": patches.to(device), "image_grid_thw": grids.to(device)}
        return inputs, outputs

    def prepare_model_outputs(
        self,
        output: ModelOutput,
        output_args: Mapping[str, Tensor],
        micro_batch: TensorDict,
        logits_processor_func: object,
    ) -> dict[str, Tensor]:
        """As verl does it, and the entropy, which is only looked at: verl would keep a graph of it,
        and a second copy of all logits for the backward pass."""
        entropy = self._entropy(output.logits, output_args, micro_batch["input_ids"].offsets())
        found = super().prepare_model_outputs(
            output, output_args, micro_batch, logits_processor_func
        )
        return found | {"entropy": entropy}

    def _entropy(self, logits: Tensor, args: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        """Nested, a row a sample; logits are packed, or padded rows."""
        if "temperature_rmpad" in args:
            packed = entropies(logits.squeeze(0), args["temperature_rmpad"])
            values = self._gather_and_unpad_packed(packed, args["pad_size"])
        else:
            lengths = offsets.diff().tolist()
            rows = zip(logits, lengths, args["temperature"], strict=True)
            values = torch.cat([entropies(row[:n], heat.expand(n)) for row, n, heat in rows])
        return torch.nested.nested_tensor_from_jagged(values, offsets)


@EngineRegistry.register("language_model", "fsdp2", DEVICES, FREEZE_VISION)
class FrozenVisionEngine(PolicyEngine):
    """Trains the language model only."""

    def _build_module(self) -> Qwen2_5_VLForConditionalGeneration:
        module = super()._build_module()
        module.model.visual.requires_grad_(False)
        return module


@torch.no_grad()
def restricted(logits: Tensor, banned: Tensor) -> Tensor:
    """Logits [..., V], changed in place, with the `banned` ids out of reach.

    Their gradient is 0 by itself, so that autograd need not know: it would copy all gradients. In
    float32 the largest of a row becomes 0: verl takes the difference of a logit and the log of
    the sum, which loses digits where both are far from it.
    """
    logits.index_fill_(-1, banned, BANNED_LOGIT)
    if logits.dtype == torch.float32:
        logits -= logits.detach().amax(-1, keepdim=True)
    return logits


@torch.no_grad()
def entropies(logits_TV: Tensor, temperatures_T: Tensor) -> Tensor:
    """Entropy of each token's distribution in float32, [T]."""
    parts = []
    pairs = (logits_TV.split(ENTROPY_TOKENS), temperatures_T.split(ENTROPY_TOKENS))
    for logits, temperatures in zip(*pairs, strict=True):
        logprobs = (logits.float() / temperatures[:, None]).log_softmax(-1)
        parts.append(-(logprobs.exp() * logprobs).sum(-1))
    return torch.cat(parts)


def images_of(rows: Iterable[NonTensorData | Mapping[str, tuple[Image, ...]]]) -> list[Image]:
    """The images of all rows, in order."""
    held = (row.data if isinstance(row, NonTensorData) else row for row in rows)
    return [image for row in held for image in row[IMAGES]]
