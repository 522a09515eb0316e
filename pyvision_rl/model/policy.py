"""The trained model: loading, log-probs of given tokens, saving."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from PIL.Image import Image
from torch.nn.functional import embedding
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLTextConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.inputs import num_images_in
from pyvision_rl.model.loading import (
    check_architecture,
    check_device,
    checkpoint_folder,
    load_model,
    never_written,
)
from pyvision_rl.model.lora import (
    ADAPTER,
    LoRAConfig,
    add_adapters,
    merged_state,
    read_adapters,
    write_adapters,
)
from pyvision_rl.model.pack import Pack, Row
from pyvision_rl.model.tree_attention import TREE_ATTENTION, Branches
from pyvision_rl.model.vision import Vision

BANNED_LOGIT = -1e30
"""Logit of a token that is never sampled: probability exactly 0, yet entropies stay finite."""

LOGITS_PER_CHUNK = 2**28
"""Bound of the logits that are alive at once in training (1 GiB in float32)."""


@dataclass(frozen=True)
class PolicyConfig:
    """Which checkpoint to load, and how."""

    model: str
    """Folder in Hugging Face layout, or hub id, of a Qwen2.5-VL; tiny is the shipped base."""
    pixels: PixelLimits = field(default_factory=PixelLimits)
    """Pixels that an image may have in the context."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights."""
    device: str = "cpu"
    """Where the model lies: cpu, cuda or cuda:N."""
    freeze_vision: bool = True
    """Train the language model only; an image is then encoded once and for all."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """Adapters to train instead of the weights."""
    gradient_checkpointing: bool = False
    """Keep one activation a layer in training and compute the others again in backward."""
    feature_cache_mb: int = 512
    """Bound of the vision features that are kept; 0: none is."""

    def __post_init__(self) -> None:
        if self.feature_cache_mb < 0:
            raise ConfigError(
                f"policy.feature_cache_mb: {self.feature_cache_mb}, must not be negative"
            )


class Policy:
    """A Qwen2.5-VL with its codec: the one model that engines sample from and learners update.

    Some ids are never written by the policy (`banned_ids`): special tokens other than `<|im_end|>`,
    and ids without a token. They have probability 0 in sampling and in `token_logprobs` alike, so
    that both speak of the same distribution.
    """

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, codec: ChatCodec, config: PolicyConfig
    ) -> None:
        self.model = model
        self.codec = codec
        self.config = config
        self.version = 0
        model.eval()
        model.set_attn_implementation({"text_config": TREE_ATTENTION})
        self.vision = Vision(
            model, codec.pixels, config.freeze_vision, config.feature_cache_mb * 2**20
        )
        if config.lora.rank:
            add_adapters(model, config.lora, vision=not config.freeze_vision)
        if config.gradient_checkpointing:
            # Renamed in transformers 5.23.
            old = model.gradient_checkpointing_enable
            getattr(model, "activation_checkpointing_enable", old)({"use_reentrant": False})
        self.vocabulary_size: int = model.lm_head.out_features
        self.banned_ids = never_written(codec, self.vocabulary_size)
        banned = torch.zeros(self.vocabulary_size, dtype=torch.bool)
        banned[list(self.banned_ids)] = True
        self._banned = banned.to(self.device)

    @classmethod
    def load(cls, config: PolicyConfig) -> Policy:
        """Read a checkpoint. InputError says in one line why one cannot be used."""
        check_device(config.device)
        folder = checkpoint_folder(config.model)
        check_architecture(folder)
        codec = ChatCodec.from_folder(folder, config.pixels)
        return cls(load_model(folder, config.dtype, config.device), codec, config)

    @property
    def text_config(self) -> Qwen2_5_VLTextConfig:
        """Sizes of the language model."""
        return self.model.model.language_model.config

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    @property
    def pad_id(self) -> int:
        """What rows are padded with."""
        pad_id = self.codec.tokenizer.pad_token_id
        return self.codec.end_of_turn_id if pad_id is None else pad_id

    def weights_changed(self) -> None:
        """To be called after every update: what was computed with the old weights is stale."""
        self.version += 1
        self.vision.weights_changed()

    def embed(self, token_ids: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embeddings [B, T, H] of tokens [B, T], image tokens replaced by features in row order."""
        embeds = self.model.model.language_model.embed_tokens(token_ids)
        if not features:
            return embeds
        mask = (token_ids == self.codec.image_pad_id).unsqueeze(-1)
        return embeds.masked_scatter(mask, torch.cat(list(features)).to(embeds.dtype))

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] in float32 with the banned tokens out of reach."""
        return logits.float().masked_fill(self._banned, BANNED_LOGIT)

    def token_logprobs(
        self,
        token_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        loss_mask: torch.Tensor,
        images: Sequence[Image],
        temperature: float = 1.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-prob of each token given what stands before it, and the entropy there: [B, T] each.

        Rows are padded on the right, where `attention_mask` is 0; none sees another. `images` are
        those of all rows, in row order. What rows have in common at their beginning, tokens and
        images, is computed once for all, and padding not at all. Both results are 0 where
        `loss_mask` is, and logits are computed only where it is not. The entropy is detached.
        Temperature 0 counts as 1, as in sampling.
        """
        self._check_targets(token_ids, loss_mask)
        lengths = attention_mask.sum(-1).tolist()
        pack = Pack.of(self._rows(token_ids, lengths, images), self.codec.image_pad_id)
        with self._checkpointed():
            features = self.vision.features(pack.images)
            embeds = self.embed(pack.token_ids.to(self.device), features)
            hidden = self.model.model.language_model(
                inputs_embeds=embeds,
                position_ids=pack.positions.to(self.device),
                attention_mask={"full_attention": self._branches(pack)},
                use_cache=False,
            ).last_hidden_state[0]
        targets = pack.targets(loss_mask, lengths)
        scored = self._score(
            embedding(targets.before.to(self.device), hidden),
            pack.token_ids[0, targets.nodes].to(self.device),
            temperature or 1.0,
        )
        blank = torch.zeros(token_ids.shape, device=self.device)
        places = (targets.rows.to(self.device), targets.columns.to(self.device))
        which = targets.which.to(self.device)
        logprobs, entropy = (
            blank.index_put(places, values.index_select(0, which)) for values in scored
        )
        return logprobs, entropy

    def _branches(self, pack: Pack) -> Branches:
        is_cpu = self.device.type == "cpu"
        return Branches.of(pack.tree, self.model.dtype, self.device, with_masks=is_cpu)

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        """Layers look at `training`: on, they checkpoint; in sampling they would drop the cache."""
        is_on = self.config.gradient_checkpointing and torch.is_grad_enabled()
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers:
            layer.training = is_on
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def _score(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs and entropies [N] of `targets`; many logits are made again in backward."""

        def score(hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.restrict(self.model.lm_head(hidden)) / temperature
            logprobs = logits.log_softmax(-1)
            with torch.no_grad():
                entropy = -(logprobs.exp() * logprobs).sum(-1)
            return logprobs.gather(-1, targets[:, None])[:, 0], entropy

        size = max(1, LOGITS_PER_CHUNK // self._banned.numel())
        if len(targets) <= size:
            return score(hidden, targets)
        parts = [
            checkpoint(score, *part, use_reentrant=False)
            for part in zip(hidden.split(size), targets.split(size), strict=True)
        ]
        logprobs, entropies = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)

    def _check_targets(self, token_ids: torch.Tensor, loss_mask: torch.Tensor) -> None:
        if loss_mask[:, 0].any():
            raise InputError("loss_mask is 1 on the first token of a row: nothing predicts it")
        targets = token_ids[loss_mask.bool()].to(self.device)
        if (bad := targets[self._banned[targets]]).numel():
            raise InputError(
                f"loss_mask is 1 on token {bad[0].item()}, which the policy can never write"
            )

    def _rows(
        self, token_ids: torch.Tensor, lengths: Sequence[int], images: Sequence[Image]
    ) -> list[Row]:
        """Conversations without padding; hands each its images."""
        parts = [ids[:length] for ids, length in zip(token_ids.tolist(), lengths, strict=True)]
        rows: list[Row] = []
        left = list(images)
        for ids in parts[:-1]:
            count = num_images_in(ids, left, self.codec.image_pad_id)
            rows.append((ids, left[:count]))
            left = left[count:]
        return [*rows, (parts[-1], left)]

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Replace the weights in place by a state dict of the model."""
        self.model.load_state_dict(state)
        self.vision.forget()
        self.weights_changed()

    def read(self, folder: str | Path) -> None:
        """Replace the weights in place by those of a checkpoint of the same model.

        With LoRA the adapters only: the weights below them are still those that were loaded.
        """
        if self.config.lora.rank:
            read_adapters(self.model, Path(folder) / ADAPTER)
            return self.weights_changed()
        # On the CPU: the device need not hold the weights twice.
        saved = load_model(str(folder), self.config.dtype, "cpu")
        return self.load_state(saved.state_dict())

    def write(self, folder: str | Path) -> None:
        """Write the files of Hugging Face's layout into a folder that is there.

        LoRA's adapters are merged into the weights, and written beside them too.
        """
        if self.config.lora.rank:
            self.model.save_pretrained(folder, state_dict=merged_state(self.model))
            write_adapters(self.model, Path(folder) / ADAPTER, self.config.model)
        else:
            self.model.save_pretrained(folder)
        self.codec.tokenizer.save_pretrained(folder)
        self.vision.processor.save_pretrained(folder)
        # safetensors gives its files to their owner alone, whatever the umask is.
        mode = (Path(folder) / "config.json").stat().st_mode
        for weights in Path(folder).rglob("*.safetensors"):
            weights.chmod(mode)

    def save(self, folder: str | Path) -> None:
        """Write a new folder in Hugging Face layout; it appears whole or not at all."""
        folder = Path(folder)
        if folder.exists():
            raise InputError(f"checkpoint {folder}: exists already; nothing was overwritten")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            self.write(draft)
            draft.chmod(0o755)
            os.rename(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
