"""The vision tower: images to features, each image encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pyvision_rl.model.features import FeatureCache
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.inputs import image_key, make_patches, vision_batches


class Vision:
    """The vision part of a model, with its processor and the features that it made."""

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        pixels: PixelLimits,
        frozen: bool,
        cache_bytes: int,
    ) -> None:
        """`frozen`: it is not trained, and features never grow old."""
        model.model.visual.requires_grad_(not frozen)
        self.processor = Qwen2VLImageProcessorPil(
            min_pixels=pixels.min_pixels, max_pixels=pixels.max_pixels
        )
        self._model = model
        self._frozen = frozen
        self._cache = FeatureCache(cache_bytes)

    def forget(self) -> None:
        """The weights are others: what was made with the old ones is stale."""
        self._cache.clear()

    def weights_changed(self) -> None:
        """An update happened; it changed this part unless it is frozen."""
        if not self._frozen:
            self.forget()

    def features(self, images: Sequence[Image]) -> list[torch.Tensor]:
        """Features [tokens, H] of each image, in order; equal images are encoded once.

        Detached and kept from call to call, except where the vision tower is being trained.
        """
        keys = [image_key(image) for image in images]
        training = torch.is_grad_enabled() and not self._frozen
        known: dict[bytes, torch.Tensor] = {}
        missing: dict[bytes, Image] = {}
        for key, image in zip(keys, images, strict=True):
            kept = None if training else self._cache.get(key)
            if kept is None:
                missing[key] = image
            else:
                known[key] = kept
        encoded = self._encode(list(missing.values()), training)
        for key, features in zip(missing, encoded, strict=True):
            known[key] = features
            if not training:
                self._cache.put(key, features)
        return [known[key] for key in keys]

    def _encode(self, images: list[Image], training: bool) -> list[torch.Tensor]:
        # Features outlive this call and enter training: they must not be inference tensors.
        with torch.inference_mode(False), torch.set_grad_enabled(training):
            return [
                features for part in vision_batches(images) for features in self._encode_batch(part)
            ]

    def _encode_batch(self, images: list[Image]) -> tuple[torch.Tensor, ...]:
        pixels, grids = make_patches(self.processor, images)
        device = self._model.device
        output = self._model.model.get_image_features(
            pixels.to(device), grids.to(device), return_dict=True
        )
        # A split is a view: kept on its own it would hold the whole batch in memory.
        return tuple(f.clone() for f in output.pooler_output)
